import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.data.order import make_eval_order
from cnn.runtime import devices
from cnn.training import epoch, metrics, steps

STEPS, BATCH = 5, 4


@pytest.fixture(scope="module")
def chunk():
    """Return a chunk of random batches of 4 classes."""
    random = np.random.default_rng(3)
    return {
        "images": random.integers(0, 256, (STEPS, BATCH, 8, 8, 1), dtype=np.uint8),
        "labels": random.integers(0, 4, (STEPS, BATCH)).astype(np.int32),
        "ids": np.arange(STEPS * BATCH, dtype=np.int32).reshape(STEPS, BATCH),
    }


@pytest.fixture
def setting(make_structure, make_numbers):
    """Return structure and numbers of a model with all that a step can have."""
    options = {"ema_decay": 0.9, "optimizer": "adam", "dropout_rate": 0.5, "epochs": 2}
    structure = make_structure(model="simple_cnn", widths=(4,), **options)
    return structure, make_numbers(**options)


def make_fresh(structure, make=epoch.make_train_chunk):
    """Make a program that no other test has called."""
    return make.__wrapped__(structure)


def run(program, state, chunk, numbers, cuts):
    sums, records = jax.device_put(steps.create_train_sums()), []
    for first, last in zip(cuts, cuts[1:], strict=False):
        bounds = np.int32(first), np.int32(last)
        state, sums, found = program(state, sums, chunk, numbers, bounds)
        records.append({n: np.asarray(x)[first:last] for n, x in found.items()})
    joined = {n: np.concatenate([r[n] for r in records]) for n in epoch.STEP_METRICS}
    return jax.device_get((state, sums, joined))


def test_any_division_into_calls_is_the_same_bits(setting, start, chunk):
    structure, numbers = setting
    program = make_fresh(structure)
    whole = run(program, start(structure, numbers), chunk, numbers, [0, STEPS])
    for cuts in ([0, 1, 2, 3, 4, 5], [0, 2, 5], [0, 4, 4, 5]):
        parts = run(program, start(structure, numbers), chunk, numbers, cuts)
        jax.tree.map(np.testing.assert_array_equal, whole, parts)
    assert program._cache_size() == 1
    assert whole[1]["count"] == STEPS * BATCH and whole[0].step == STEPS
    assert np.all(whole[2]["gradient_norm"] > 0)


def test_loop_equals_single_steps(setting, start, chunk):
    structure, numbers = setting
    program = epoch.make_train_chunk(structure)
    found = run(program, start(structure, numbers), chunk, numbers, [0, STEPS])
    step = jax.jit(steps.train_step, static_argnums=0)
    state, total, losses = start(structure, numbers), steps.create_train_sums(), []
    for i in range(STEPS):
        batch = {name: x[i] for name, x in chunk.items()}
        state, sums, record = step(structure, state, batch, numbers)
        total = metrics.add_sums(total, sums)
        losses.append(record["loss"])
    for one, other in ((found[0], state), (found[1], total)):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
            one,
            other,
        )
    np.testing.assert_allclose(found[2]["loss"], losses, rtol=1e-6, atol=1e-6)


def test_two_devices_equal_one(setting, start, chunk):
    structure, numbers = setting
    mesh = devices.make_mesh()
    program = epoch.make_train_chunk(structure)
    one = run(program, start(structure, numbers), chunk, numbers, [0, STEPS])
    state = jax.device_put(start(structure, numbers), devices.replicated(mesh))
    split = jax.device_put(chunk, devices.split_batches(mesh))
    two = run(program, state, split, numbers, [0, STEPS])
    np.testing.assert_allclose(one[2]["loss"], two[2]["loss"], rtol=1e-5, atol=1e-5)
    for tree in ("batch_stats", "params"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
            getattr(one[0], tree),
            getattr(two[0], tree),
        )


def test_other_numbers_and_bounds_do_not_recompile(
    make_structure, make_numbers, start, chunk
):
    structure = make_structure()
    program = make_fresh(structure)
    states = []
    for seed, rate, cuts in ((0, 0.1, [0, 3]), (1, 0.2, [2, 3]), (1, 0.01, [2, 3])):
        numbers = make_numbers(seed=seed, learning_rate=rate)
        states.append(run(program, start(structure, numbers), chunk, numbers, cuts)[0])
    assert program._cache_size() == 1
    heads = [state.params["head"]["kernel"] for state in states]
    assert np.any(heads[1] != heads[2]), "the rate must matter"
    numbers = make_numbers(label_smoothing=0.1)
    run(program, start(structure, numbers), chunk, numbers, [0, 1])
    assert program._cache_size() == 2


def test_state_is_donated(make_structure, make_numbers, start, chunk):
    structure, numbers = make_structure(), make_numbers()
    before = jax.tree.map(jnp.copy, start(structure, numbers))
    with jax.debug_nans(False):  # under which jax donates nothing
        run(make_fresh(structure), before, chunk, numbers, [0, 1])
    assert before.params["head"]["kernel"].is_deleted()


@pytest.mark.parametrize("model", ["mlp", "simple_cnn"])
def test_evaluation_is_equal_for_every_batch_size(
    make_structure, make_numbers, start, make_images, model
):
    structure, images = make_structure(model=model, widths=(4,)), make_images(45)
    state = start(structure, make_numbers())
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    pixels = images.read(np.arange(45))
    whole = {"images": pixels, "labels": images.labels, "mask": np.ones(45, bool)}
    evaluate = jax.jit(steps.eval_step, static_argnums=0)
    expected = metrics.summarise(evaluate(structure, variables, whole))
    program = epoch.make_eval_chunk(structure)
    for batch_size in (1, 7, 64):
        positions, mask = make_eval_order(45, batch_size)
        chunk = {
            "images": pixels[positions],
            "labels": images.labels[positions],
            "mask": mask,
        }
        last = np.int32(len(mask))
        found = program(variables, metrics.create_sums(4), chunk, (np.int32(0), last))
        found = metrics.summarise(found)
        assert found.pop("loss") == pytest.approx(expected["loss"], rel=1e-5)
        assert found == {n: x for n, x in expected.items() if n != "loss"}


def test_evaluation_takes_its_part_of_the_chunk(
    make_structure, make_numbers, start, chunk
):
    structure = make_structure()
    state = start(structure, make_numbers())
    variables = {"params": state.params, "batch_stats": {}}
    masked = chunk | {"mask": np.ones((STEPS, BATCH), bool)}
    program = make_fresh(structure, epoch.make_eval_chunk)
    found = program(
        variables,
        jax.device_put(metrics.create_sums(4)),
        masked,
        epoch.make_bounds(1, 3),
    )
    found = program(variables, found, masked, epoch.make_bounds(4, 1))
    assert found["count"] == 4 * BATCH
    assert program._cache_size() == 1
    totals = np.asarray(found["confusion"]).sum(axis=1)
    np.testing.assert_array_equal(totals, np.bincount(chunk["labels"][1:].ravel()))
