import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.data.decode import Layout, fit_arrays
from cnn.models import layers
from cnn.training import steps

GOLDEN = json.loads((Path(__file__).parent / "golden" / "losses.json").read_text())
STEP = jax.jit(steps.train_step, static_argnums=0)
EVALUATE = jax.jit(steps.eval_step, static_argnums=0)


def assert_close(one, other, tolerance=1e-6):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), one, other
    )


@pytest.mark.parametrize("weights", [(), (0.5, 2.0, 1.0, 0.25)])
def test_pieces_give_the_update_of_the_whole(
    make_structure, make_numbers, start, make_batch, weights
):
    numbers = make_numbers(label_smoothing=0.1)
    results = []
    for pieces in (1, 4):
        structure = make_structure(
            {"accumulate_steps": pieces, "class_weights": weights}
        )
        results.append(
            STEP(structure, start(structure, numbers), make_batch(8), numbers)
        )
    (one, sums, record), (four, other_sums, other_record) = results
    assert_close(one.params, four.params)
    assert_close((sums, record), (other_sums, other_record))
    assert other_sums["count"] == 8


def test_every_piece_moves_the_running_statistics(
    make_structure, make_numbers, start, make_batch
):
    numbers, means = make_numbers(), []
    batch = {name: np.repeat(x, 4, axis=0) for name, x in make_batch(1).items()}
    for pieces in (1, 4):
        structure = make_structure(
            {"accumulate_steps": pieces}, model="simple_cnn", widths=(3,)
        )
        state = STEP(structure, start(structure, numbers), batch, numbers)[0]
        means.append(state.batch_stats["stage1_norm"]["mean"])
    np.testing.assert_allclose(means[1] / means[0], (1 - 0.9**4) / 0.1, rtol=1e-4)


class Table(nn.Module):
    """Logits that are parameters, so that the loss is PyTorch's on given logits."""

    @nn.compact
    def __call__(self, x, train=False, dropout_rate=None, **rates):
        """Return the table."""
        del x, train, dropout_rate
        table = self.param("table", lambda key: jnp.float32(GOLDEN["logits"]))
        return table


@pytest.mark.parametrize(
    "name, weights, smoothing",
    [
        ("plain", (), 0.0),
        ("smooth", (), 0.1),
        ("weighted", tuple(GOLDEN["weights"]), 0.0),
        ("both", tuple(GOLDEN["weights"]), 0.1),
    ],
)
def test_gradient_equals_pytorch(
    make_structure, make_numbers, start, name, weights, smoothing
):
    numbers = make_numbers(
        label_smoothing=smoothing, learning_rate=1.0, momentum=0.0, schedule="constant"
    )
    small = make_structure(momentum=0.0, schedule="constant")
    structure = dataclasses.replace(small, model=Table(), class_weights=weights)
    labels = np.int32(GOLDEN["labels"])
    batch = {"images": np.zeros((6, 2, 2, 1), np.uint8), "labels": labels}
    before = start(structure, numbers, (2, 2, 1))
    state, sums, _ = STEP(structure, before, batch, numbers)
    gradient = before.params["table"] - state.params["table"]
    np.testing.assert_allclose(gradient, GOLDEN[name]["gradient"], rtol=1e-5, atol=5e-7)
    if not weights:
        assert sums["loss"] / 6 == pytest.approx(GOLDEN[name]["loss"], rel=1e-6)
    assert sums["correct"] == (np.argmax(GOLDEN["logits"], axis=1) == labels).sum()


CASES = {
    "softmax": {},
    "bce": {"loss": "bce"},
    "bce_sum": {"loss": "bce", "loss_reduction": "sum"},
    "bce_threshold": {"loss": "bce", "bce_threshold": 0.2},
    "bce_threshold_sum": {
        "loss": "bce",
        "bce_threshold": 0.2,
        "loss_reduction": "sum",
    },
    "focal": {"loss": "focal"},
    "focal_steep": {"loss": "focal", "focal_gamma": 0.5, "loss_reduction": "sum"},
    "focal_alpha": {"loss": "focal", "focal_gamma": 1.5, "focal_alpha": 0.25},
    "focal_flat": {"loss": "focal", "focal_gamma": 0.0},
    "mse": {"loss": "mse"},
    "mse_sum": {"loss": "mse", "loss_reduction": "sum"},
}


def mix(options, numbers, epoch, batch, images, targets):
    """Mix targets as the golden values have it."""
    share = jnp.float32(GOLDEN["shares"])[:, None]
    return images, (1 - share) * targets + share * jnp.roll(targets, 1, axis=0)


@pytest.mark.parametrize("key", GOLDEN["cases"])
def test_every_loss_equals_its_library(
    make_structure, make_numbers, start, monkeypatch, key
):
    name, kind, weighting = key.split()
    chosen = {"label_smoothing": 0.0 if kind == "hard" else 0.1} | CASES[name]
    structure = make_loss_structure(make_structure, chosen, Table())
    if weighting == "weighted":
        weights = tuple(GOLDEN["weights"])
        structure = dataclasses.replace(structure, class_weights=weights)
    if kind == "mixed":
        chosen["mixup_alpha"] = 0.2
        monkeypatch.setattr(steps.pipeline, "mix_batch", mix)
    numbers = make_numbers(**chosen)
    state = start(structure, numbers, (2, 2, 1))
    batch = {
        "images": np.zeros((6, 2, 2, 1), np.uint8),
        "labels": np.int32(GOLDEN["labels"]),
        "ids": np.arange(6),
    }
    prepared = steps.prepare_batch(structure, 0, batch, numbers)
    gradients, _, sums = steps.compute_gradients(structure, state, prepared, numbers)
    wanted = GOLDEN["cases"][key]
    assert_near(gradients["table"], wanted["gradient"])
    is_reported = "focal" not in name or name == "focal_flat"
    if weighting == "plain" and is_reported:  # what is reported has no weights
        assert sums["loss"] / 6 == pytest.approx(wanted["loss"], rel=1e-6)


def make_loss_structure(make_structure, chosen, model):
    """Make a structure of a loss."""
    static = {n: x for n, x in chosen.items() if n in ("loss", "loss_reduction")}
    return dataclasses.replace(make_structure(static), model=model)


def assert_near(found, wanted):
    """Compare within 1e-6 of the largest."""
    np.testing.assert_allclose(found, wanted, 0, 1e-6 * np.abs(wanted).max())


class Hidden(nn.Module):
    """Five hidden units between six numbers and four classes, filled by a formula."""

    @nn.compact
    def __call__(self, x, train=False, dropout_rate=None, **rates):
        """Return logits of given inputs."""
        del x, train, dropout_rate

        def fill(name, *shape):
            numbers = np.arange(np.prod(shape), dtype=np.float32)
            first = np.sin(numbers + shape[0]).reshape(shape)
            return self.param(name, lambda key: jnp.asarray(first))

        inputs = jnp.cos(jnp.arange(36.0).reshape(6, 6))
        hidden = nn.relu(inputs @ fill("kernel", 6, 5) + fill("bias", 5)[None])
        return hidden @ fill("head_kernel", 5, 4) + fill("head_bias", 4)[None]


@pytest.mark.parametrize("name", GOLDEN["paths"])
def test_twenty_steps_of_every_loss_equal_its_librarys(
    make_structure, make_numbers, start, name
):
    options = {"schedule": "constant", "momentum": 0.9, "nesterov": False}
    chosen = options | {"learning_rate": 0.1, "label_smoothing": 0.1} | CASES[name]
    structure = make_loss_structure(
        lambda static: make_structure(static, **options), chosen, Hidden()
    )
    numbers = make_numbers(**chosen)
    state = start(structure, numbers, (2, 2, 1))
    batch = {
        "images": np.zeros((6, 2, 2, 1), np.uint8),
        "labels": np.int32(GOLDEN["labels"]),
        "ids": np.arange(6),
    }
    for _ in range(20):
        state = STEP(structure, state, batch, numbers)[0]
    assert_near(state.params["head_kernel"], GOLDEN["paths"][name])


@pytest.mark.parametrize("kind", ["gamma", "alpha"])
def test_focal_numbers_are_traced(make_structure, make_numbers, start, kind):
    structure = make_loss_structure(make_structure, {"loss": "focal"}, Table())
    batch = {"images": np.zeros((6, 2, 2, 1), np.uint8), "ids": np.arange(6)}
    batch["labels"], norms, traced = np.int32(GOLDEN["labels"]), [], []

    @jax.jit
    def step(state, numbers):
        traced.append(1)
        return steps.train_step(structure, state, batch, numbers)[2]["gradient_norm"]

    for value in (0.25, 0.75):
        numbers = make_numbers(loss="focal", **{f"focal_{kind}": value})
        norms.append(step(start(structure, numbers, (2, 2, 1)), numbers))
    assert len(traced) == 1 and norms[0] != norms[1]


def test_absent_classes_leave_the_weights(
    make_structure, make_numbers, start, make_batch
):
    batch = make_batch(4)
    batch["labels"] = np.zeros(4, np.int32)
    structure, numbers = (
        make_structure({"class_weights": (0.0, 1, 1, 1)}),
        make_numbers(),
    )
    before = start(structure, numbers)
    after = STEP(structure, before, batch, numbers)[0]
    assert_close(before.params, after.params, 0)


def test_bfloat16_keeps_float32_state(make_structure, make_numbers, start, make_batch):
    numbers = make_numbers(ema_decay=0.9)
    states, logits = [], []
    for dtype in (jnp.float32, jnp.bfloat16):
        structure = make_structure(model="simple_cnn", widths=(3,), dtype=dtype)
        before = start(structure, numbers)
        states.append(STEP(structure, before, make_batch(8), numbers)[0])
        variables = {"params": before.params, "batch_stats": before.batch_stats}
        images = make_batch(8)["images"]
        logits.append(steps.predict_step(structure, variables, images))
    kinds = {x.dtype for x in jax.tree.leaves(states[1])}
    assert kinds == {jnp.dtype(jnp.float32), jnp.dtype(jnp.int32)}
    assert logits[1].dtype == jnp.float32
    difference = np.abs(logits[0] - logits[1]).max()
    assert 0 < difference < 0.05
    assert_close(states[0].params, states[1].params, 0.05)


def test_dropout_follows_seed_and_step(make_structure, make_numbers, start, make_batch):
    structure, batch = make_structure(mlp_widths=(16,)), make_batch(8)

    def compute_loss(seed, step, rate=0.5):
        numbers = make_numbers(dropout_rate=rate, seed=seed)
        state = start(structure, make_numbers())
        state = state.replace(step=jnp.int32(step))
        return float(STEP(structure, state, batch, numbers)[2]["loss"])

    first = compute_loss(0, 0)
    assert first == compute_loss(0, 0)
    values = [first, compute_loss(0, 1), compute_loss(1, 0), compute_loss(1, 1)]
    assert len({*values, compute_loss(0, 0, 0.0)}) == 5


class Masked(nn.Module):
    """Logits 0 whose gradient is the dropout mask."""

    @nn.compact
    def __call__(self, x, train=False, dropout_rate=None, **rates):
        """Return zeros [N, 4]."""
        weights = self.param("weights", nn.initializers.zeros, (64,))
        rows = jnp.broadcast_to(weights, (x.shape[0], 64))
        kept = layers.Dropout()(rows, dropout_rate, train)
        return jnp.pad(kept.sum(axis=1, keepdims=True), ((0, 0), (0, 3)))


def test_every_piece_drops_other_units(make_structure, make_numbers, start, make_batch):
    numbers = make_numbers(dropout_rate=0.5, momentum=0.0)
    small = make_structure(momentum=0.0)
    structure = dataclasses.replace(small, model=Masked(), accumulate_steps=2)
    batch = make_batch(2) | {"labels": np.zeros(2, np.int32)}
    state = STEP(structure, start(structure, numbers), batch, numbers)[0]
    weights = np.asarray(state.params["weights"])
    kept = np.round(weights / weights.max() * 2)
    assert set(kept) == {0, 1, 2}, "kept in no piece, in one, in both"


@pytest.mark.parametrize(
    "height, width, top, left",
    [(8, 8, 1, 1), (9, 12, 2, 3), (7, 11, 0, 2), (13, 6, 4, 0)],
)
def test_stored_images_are_cut_where_files_are(
    make_structure, make_numbers, start, make_batch, height, width, top, left
):
    structure = make_structure({"image_size": 6})
    state = start(structure, make_numbers(), (6, 6, 1))
    images = make_batch(3, (height, width, 1))["images"]
    centre = images[:, top : top + 6, left : left + 6]
    layout = Layout(size=6, resize_size=min(height, width))
    np.testing.assert_array_equal(fit_arrays(images, layout), centre)
    variables = {"params": state.params, "batch_stats": {}}
    np.testing.assert_array_equal(
        steps.predict_step(structure, variables, images),
        steps.predict_step(structure, variables, centre),
    )


def test_images_are_scaled(make_structure, make_numbers, start, make_batch):
    structure = make_structure()
    state = start(structure, make_numbers())
    images = make_batch(3)["images"]
    expected = structure.model.apply(
        {"params": state.params}, (np.float32(images) / 255 - 0.5) / 0.25
    )
    variables = {"params": state.params, "batch_stats": {}}
    found = steps.predict_step(structure, variables, images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_record_and_averages(make_structure, make_numbers, start, make_batch):
    numbers = make_numbers(ema_decay=0.75, momentum=0.0, learning_rate=0.1, epochs=2)
    structure = make_structure(model="simple_cnn", widths=(3,), momentum=0.0)
    before = start(structure, numbers).replace(step=jnp.int32(1))
    state, sums, record = STEP(structure, before, make_batch(8), numbers)
    assert state.step == 2 and record["loss"] == sums["loss"] / 8
    rate = 0.1 * (1 + np.cos(np.pi / 6)) / 2
    assert record["learning_rate"] == pytest.approx(rate)
    moved = jax.tree.map(jnp.subtract, state.params, before.params)
    norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(moved)))
    assert record["gradient_norm"] == pytest.approx(norm / rate, rel=1e-4)
    decay = 2 / 11
    old, new = before.ema, {"params": state.params, "batch_stats": state.batch_stats}
    expected = jax.tree.map(lambda x, y: decay * x + (1 - decay) * y, old, new)
    assert_close(state.ema, expected)


def test_evaluation_leaves_out_smoothing_and_padding(
    make_structure, make_numbers, start, make_batch
):
    structure, batch = make_structure({"class_weights": (9.0, 1, 1, 1)}), make_batch(8)
    state = start(structure, make_numbers())
    variables = {"params": state.params, "batch_stats": {}}
    mask = np.arange(8) < 5
    found = EVALUATE(structure, variables, batch | {"mask": mask})
    logits = np.float64(steps.predict_step(structure, variables, batch["images"]))[:5]
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    own = logs[np.arange(5), batch["labels"][:5]]
    assert found["loss"] == pytest.approx(-own.sum(), rel=1e-5)
    assert found["count"] == 5 == found["confusion"].sum()
