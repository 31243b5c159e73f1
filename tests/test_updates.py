"""Update rules of timm and PyTorch, clipping, sharpness-aware steps, noise scale."""

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fixtures_runs import read_lines, train_run

from cnn import config as config_module
from cnn.errors import UserError
from cnn.optim import freezing, optimizer, sharpness
from cnn.optim.optimizer import Rule
from cnn.training import noise_scale, steps

GOLDEN = json.loads((Path(__file__).parent / "golden" / "updates.json").read_text())
BETAS = {"learning_rate": 0.02, "adam_beta1": 0.8, "adam_beta2": 0.95, "epsilon": 1e-6}
DECAY = {"weight_decay": 0.1}
LAMB = BETAS | {"optimizer": "lamb", "weight_decay": 0.02, "clip_norm": 1.0}
LARS = {"optimizer": "lars", "learning_rate": 0.5, "momentum": 0.9, "epsilon": 1e-6}
LARS |= DECAY | {"trust_coefficient": 0.05}
TF = {"optimizer": "rmsprop_tf", "learning_rate": 0.02, "epsilon": 1e-3}
TF |= {"rmsprop_decay": 0.9, "momentum": 0.0}
CASES = {
    "sgd": {"learning_rate": 0.1} | DECAY,
    "adam": BETAS | DECAY,
    "adamw": BETAS | DECAY | {"decay_norms": False},
    "rmsprop": TF | DECAY | {"optimizer": "rmsprop", "momentum": 0.9},
    "nadam": BETAS | DECAY,
    "nadamw": BETAS | DECAY,
    "adamax": BETAS | DECAY,
    "adabelief": BETAS | DECAY,
    "lion": BETAS,
    "lion_decay": BETAS | DECAY | {"optimizer": "lion"},
    "adagrad": {"learning_rate": 0.1, "epsilon": 1e-6} | DECAY,
    "rmsprop_tf": TF,
    "rmsprop_tf_all": TF | DECAY | {"momentum": 0.9, "decay_norms": False},
    "lamb": LAMB | {"decay_norms": False},
    "lamb_all": LAMB,
    "lamb_adapt": LAMB | {"weight_decay": 0.0, "clip_norm": 0.0},
    "lars": LARS | {"nesterov": False, "decay_norms": False},
    "lars_nesterov": LARS,
}
START = {"kernel": jnp.float32(GOLDEN["kernel"]), "bias": jnp.float32(GOLDEN["bias"])}


def make_gradient(params, step):
    """Return the gradients that make_optimizer.py gives PyTorch."""

    def make(number, w):
        places = jnp.arange(w.size, dtype=jnp.float32).reshape(w.shape)
        return 0.8 * w - 0.5 + 0.6 * jnp.sin(0.7 * step + places + number)

    return {name: make(i, params[name]) for i, name in enumerate(("kernel", "bias"))}


@pytest.mark.parametrize("name", GOLDEN["rules"])
def test_twenty_steps_equal_pytorch_and_timm(name):
    config = config_module.make_config({"optimizer": name} | CASES[name])

    @jax.jit
    def take(params, state, step, numbers):
        rate = numbers.learning_rate
        chain = optimizer.make_optimizer(config.optimizer, rate, numbers)
        updates, state = chain.update(make_gradient(params, step), state, params)
        return optax.apply_updates(params, updates), state

    numbers, params = config.make_numbers(), START
    rate = numbers.learning_rate
    state = optimizer.make_optimizer(config.optimizer, rate, numbers).init(params)
    expected = dict(zip(GOLDEN["shown"], GOLDEN["rules"][name], strict=True))
    for step in range(20):
        params, state = take(params, state, jnp.float32(step), numbers)
        if step in expected:
            for part, values in zip(("kernel", "bias"), expected[step], strict=True):
                largest = np.max(np.abs(values))
                np.testing.assert_allclose(params[part], values, 0, 1e-6 * largest)


def clip(flat, params, gradients):
    """Return clipped gradients: the step of SGD at the rate 1, without its sign."""
    flat = {"learning_rate": 1.0, "momentum": 0.0} | flat
    config = config_module.make_config(flat)
    numbers = config.make_numbers()
    chain = optimizer.make_optimizer(config.optimizer, numbers.learning_rate, numbers)
    updates = chain.update(gradients, chain.init(params), params)[0]
    return jax.tree.map(jnp.negative, updates)


def read_clipped(name):
    """Return weights, gradients and clipped ones of PyTorch in our layout."""

    def to_ours(values):
        array = jnp.float32(values)
        return jnp.moveaxis(array, (0, 1), (-1, -2)) if array.ndim > 1 else array

    trees = [{}, {}, {}]
    for path, arrays in GOLDEN[name].items():
        leaf = "kernel" if path in ("conv", "dense") else "bias"
        for tree, values in zip(trees, arrays, strict=True):
            tree[path] = {leaf: to_ours(values)}
    return trees


@pytest.mark.parametrize("flag, limit", [("clip_value", 0.15), ("clip_adaptive", 0.1)])
def test_clipping_equals_pytorch_and_timm(flag, limit):
    params, gradients, expected = read_clipped(flag)
    found = clip({flag: limit}, params, gradients)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8),
        found,
        expected,
    )
    same = jax.tree.map(lambda x, y: x == y, gradients, expected)
    shares = [float(x.mean()) for x in jax.tree.leaves(same)]
    assert 0 < np.mean(shares) < 1, "some are clipped and some are not"


def test_adaptive_clipping_leaves_the_head():
    params, gradients, expected = read_clipped("clip_adaptive")
    dense = [x.pop("dense") for x in (params, gradients, expected)]
    params["head"], gradients["head"] = dense[:2]
    found = clip({"clip_adaptive": 0.1}, params, gradients)
    np.testing.assert_array_equal(found["head"]["kernel"], dense[1]["kernel"])
    assert np.any(dense[1]["kernel"] != dense[2]["kernel"])


def test_each_place_of_a_local_kernel_is_a_unit():
    """A unit's gradient depends on its own weights and gradients alone."""
    random = np.random.default_rng(0)
    kernel, gradient = random.normal(size=(2, 2, 3, 3, 4, 5, 6)).astype(np.float32)[:2]
    whole = clip({"clip_adaptive": 0.3}, {"a_kernel": kernel}, {"a_kernel": gradient})
    one = {"a_kernel": kernel[1, 2]}, {"a_kernel": gradient[1, 2]}
    alone = clip({"clip_adaptive": 0.3}, *one)["a_kernel"]
    np.testing.assert_allclose(whole["a_kernel"][1, 2], alone, rtol=1e-6)


@pytest.mark.parametrize(
    "flat, words",
    [
        ({"clip_norm": 1.0, "clip_value": 0.5}, "clip_norm=1 and --clip_value=0.5"),
        ({"clip_value": 1.0, "clip_adaptive": 0.5}, "give one of them"),
        ({"clip_adaptive": 0.5, "decoupled_rates": True}, "do not go together"),
    ],
)
def test_limits_that_do_not_go_together_are_refused(flat, words):
    with pytest.raises(UserError, match=words):
        optimizer.check(config_module.make_config(flat).optimizer)


@pytest.mark.parametrize(
    "changes", [{"train_only": ("head",)}, {"model": "logistic_regression"}], ids=str
)
def test_adaptive_clipping_of_nothing_is_refused(tmp_path, changes):
    with pytest.raises(UserError, match="^--clip_adaptive=0.1 leaves head as it is"):
        train_run(tmp_path, clip_adaptive=0.1, cache_features="never", **changes)


@pytest.mark.parametrize("kind, rho", [("sam", 0.3), ("asam", 1.5)])
def test_twenty_sharpness_aware_steps_equal_pytorch(kind, rho):
    golden = GOLDEN[kind]
    x, targets = jnp.float32(golden["x"]), jnp.int32(golden["targets"])
    config = config_module.make_config({"sam": kind, "sam_rho": rho})
    rule, numbers = Rule(config.optimizer), config.make_numbers()
    params = {"norm": {"scale": jnp.float32([1.0, -0.5, 2.0]), "bias": START["bias"]}}
    params["dense"] = {"kernel": START["kernel"]}

    def compute(params):
        hidden = jnp.tanh(x @ params["dense"]["kernel"])
        logits = hidden * params["norm"]["scale"][None] + params["norm"]["bias"][None]
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    @jax.jit
    def take(params, numbers):
        near = sharpness.perturb(rule, numbers, params, jax.grad(compute)(params))
        return jax.tree.map(lambda w, g: w - 0.5 * g, params, jax.grad(compute)(near))

    expected = dict(zip(GOLDEN["shown"], golden["path"], strict=True))
    for step in range(20):
        params = take(params, numbers)
        if step in expected:
            found = params["norm"] | params["dense"]
            for name, values in expected[step].items():
                largest = np.max(np.abs(values))
                np.testing.assert_allclose(found[name], values, 0, 1e-6 * largest)


STEP = jax.jit(steps.train_step, static_argnums=0)
COMPUTE = jax.jit(steps.compute_gradients, static_argnums=0)


def test_a_sharp_step_is_two_passes_of_one(
    make_structure, make_numbers, start, make_batch
):
    """The second moves no statistics, has the dropout of the first, and is obeyed."""
    options = {"model": "simple_cnn", "widths": (3,), "dropout_rate": 0.5}
    options |= {"learning_rate": 0.1, "momentum": 0.0, "sam": "asam"}
    fields = {"accumulate_steps": 2, "class_weights": (0.5, 2.0, 1.0, 0.25)}
    structure = make_structure(fields, **options)
    numbers, batch = make_numbers(sam_rho=0.2, **options), make_batch(8)
    state = start(structure, numbers)
    found, sums, record = STEP(structure, state, batch, numbers)
    prepared = steps.prepare_batch(structure, 0, batch, numbers)
    first, batch_stats, expected_sums = COMPUTE(structure, state, prepared, numbers)
    near = sharpness.perturb(structure.rule, numbers, state.params, first)
    near = state.replace(params=near)
    second = COMPUTE(structure, near, prepared, numbers)[0]
    expected = jax.tree.map(lambda w, g: w - 0.1 * g, state.params, second)
    for one, other in (
        (found.params, expected),
        (found.batch_stats, batch_stats),
        (sums, expected_sums),
    ):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-6), one, other
        )
    np.testing.assert_allclose(record["gradient_norm"], optax.tree.norm(second), 1e-5)
    assert optax.tree.norm(jax.tree.map(jnp.subtract, first, second)) > 0.01


def test_only_what_trains_is_moved(make_structure, make_numbers, start):
    phase = freezing.Phase(0, frozenset({"head/kernel"}), frozenset())
    structure = make_structure({"phase": phase})
    numbers = make_numbers(sam_rho=0.5)
    params = start(structure, numbers).params
    gradients = {"head": {"kernel": jnp.ones_like(params["head"]["kernel"])}}
    near = sharpness.perturb(structure.rule, numbers, params, gradients)
    moved = jax.tree.map(jnp.subtract, near, params)
    np.testing.assert_allclose(optax.tree.norm(moved), 0.5, rtol=1e-5)
    moved["head"].pop("kernel")
    assert optax.tree.norm(moved) == 0


def test_another_rho_compiles_nothing(make_structure, make_numbers, start, make_batch):
    structure, traces = make_structure(), []

    @jax.jit
    def take(state, batch, numbers):
        traces.append(1)
        return steps.train_step(structure, state, batch, numbers)[0]

    for rho, count in ((0.1, 1), (0.7, 1), (0.0, 2)):
        numbers = make_numbers(sam_rho=rho)
        jax.eval_shape(take, start(structure, numbers), make_batch(8), numbers)
        assert len(traces) == count


def test_noise_is_estimated_without_bias():
    """The mean over all batches that can be drawn is the truth, exactly."""
    images = np.float64([[1.0, 0.5], [-2.0, 1.0], [0.5, 3.0]])  # a gradient each
    mean = images.mean(0)
    found = []
    for drawn in itertools.product(range(3), repeat=6):
        pieces = images[list(drawn)].reshape(3, 2, 2).mean(1)
        of_pieces, whole = np.mean(np.sum(pieces**2, -1)), pieces.mean(0)
        found.append(noise_scale.estimate(of_pieces, {"w": whole}, 6, 3))
    square, variance = (np.mean([x[n] for x in found]) for n in noise_scale.NAMES)
    np.testing.assert_allclose(square, np.sum(mean**2), rtol=1e-5)
    np.testing.assert_allclose(variance, np.sum((images - mean) ** 2) / 3, rtol=1e-5)


def test_noise_scale_compares_the_pieces(
    make_structure, make_numbers, start, make_batch
):
    weights = (0.5, 2.0, 1.0, 0.25)
    fields = {"class_weights": weights, "accumulate_steps": 2, "log_noise_scale": True}
    structure, numbers = make_structure(fields), make_numbers()
    batch, state = make_batch(8), start(structure, numbers)
    _, sums, record = STEP(structure, state, batch, numbers)
    assert set(sums) == {"loss", "correct", "count"}
    prepared, squares = steps.prepare_batch(structure, 0, batch, numbers), []
    total = np.sum(np.float32(weights)[np.asarray(batch["labels"])])
    for i in (0, 1):
        piece = {name: x[i::2] for name, x in prepared.items()}
        one = make_structure({"class_weights": weights})
        gradient = COMPUTE(one, state, piece, numbers)[0]
        # Of the whole batch's weights, half belong to a piece on average.
        own = np.sum(np.float32(weights)[np.asarray(piece["labels"])])
        squares.append(optax.tree.norm(gradient, squared=True) * (2 * own / total) ** 2)
    whole = optax.tree.norm(COMPUTE(one, state, prepared, numbers)[0], squared=True)
    mean = np.mean(squares)
    np.testing.assert_allclose(record["gradient_square"], 2 * whole - mean, rtol=1e-4)
    np.testing.assert_allclose(
        record["gradient_variance"], (mean - whole) * 8, rtol=1e-4
    )


def test_an_epoch_has_the_ratio_of_its_steps(tmp_path, no_pauses):
    options = {"accumulate_steps": 2, "log_noise_scale": True, "sam_rho": 0.05}
    options |= {"model": "logistic_regression"}
    train_run(tmp_path, **options)
    lines = read_lines(tmp_path)
    found = [line["noise_scale"] for line in lines if line.get("epoch")]
    logged = [line for line in lines if "gradient_variance" in line]
    assert len(found) == 3 and len(logged) == 15
    for number, scale in enumerate(found):
        own = logged[5 * number : 5 * number + 5]
        square, variance = (sum(x[n] for x in own) for n in noise_scale.NAMES)
        assert scale == noise_scale.divide(square, variance)


def test_noise_louder_than_the_gradient_has_no_scale():
    assert noise_scale.divide(-0.1, 2.0) is None
    assert noise_scale.divide(0.1, -2.0) == 0.0
    assert noise_scale.divide(0.5, 2.0) == 4.0
