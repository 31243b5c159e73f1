import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_model import find_size

from cnn import config as config_module
from cnn import describe, models
from cnn.errors import UserError
from cnn.models import remat
from cnn.models.variables import flatten_paths
from cnn.optim.freezing import Phase
from cnn.training import epoch, steps


def differentiate(structure, state, batch, numbers):
    """Return the gradients and running statistics of one training step's loss."""
    prepared = steps.prepare_batch(structure, 0, batch, numbers)
    arguments = (state.params, state, state.batch_stats, prepared)
    key = jax.random.key(0)
    gradient = jax.grad(steps.compute_loss, has_aux=True)
    return gradient(*arguments, key, structure, numbers)


@pytest.mark.parametrize(
    "name, rate",
    [
        ("wrn_10_1", 0.3),
        pytest.param("resnet18", 0.3, marks=pytest.mark.slow),
        # These two magnify rounding, by which programs with other masks differ, up to
        # 1e4 times; the test below compares what is drawn.
        pytest.param("densenet121", 0.0, marks=pytest.mark.slow),
        pytest.param("efficientnet_b0", 0.0, marks=pytest.mark.slow),
        pytest.param("convnext_tiny", 0.3, marks=pytest.mark.slow),
        pytest.param("squeezenet1_1", 0.3, marks=pytest.mark.slow),
    ],
)
def test_gradients_are_those_without(
    make_structure, make_numbers, start, make_batch, name, rate
):
    numbers = make_numbers(dropout_rate=rate, stochastic_depth_rate=rate)
    size = find_size(name)
    found, batch = [], make_batch(4, (size, size, 3))
    for is_wanted in (False, True):
        structure = make_structure({"remat": is_wanted}, model=name)
        state = start(structure, numbers, (size, size, 3))
        found.append(
            jax.jit(differentiate, static_argnums=0)(structure, state, batch, numbers)
        )
    plain, again = map(flatten_paths, found)
    assert list(plain) == list(again)
    largest = max(np.abs(x).max() for x in plain.values())
    for path, gradient in plain.items():
        np.testing.assert_allclose(
            again[path], gradient, rtol=1e-6, atol=1e-6 * largest, err_msg=path
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "densenet121"])
def test_what_is_dropped_is_dropped_again(
    make_structure, make_numbers, start, make_batch, monkeypatch, name
):
    """The masks of both passes are those without."""
    drawn, plain = [], jax.random.bernoulli

    def draw(key, p, shape):
        mask = plain(key, p, shape)
        jax.debug.callback(lambda x: drawn.append(np.asarray(x).tobytes()), mask)
        return mask

    monkeypatch.setattr(jax.random, "bernoulli", draw)
    numbers = make_numbers(dropout_rate=0.3, stochastic_depth_rate=0.3)
    size, found = find_size(name), []
    for is_wanted in (False, True):
        drawn.clear()
        structure = make_structure({"remat": is_wanted}, model=name)
        arguments = (
            start(structure, numbers, (size, size, 3)),
            make_batch(4, (size, size, 3)),
        )
        program = jax.jit(differentiate, static_argnums=0)
        jax.block_until_ready(program(structure, *arguments, numbers))
        jax.effects_barrier()
        found.append(list(drawn))
    assert found[0] and set(found[0]) == set(found[1])
    assert len(found[1]) > len(found[0]), "nothing was computed again"


def test_blocks_take_less_memory(make_structure, make_numbers, start, make_batch):
    numbers, batch, needed = make_numbers(), make_batch(64), []
    for is_wanted in (False, True):
        structure = make_structure({"remat": is_wanted}, model="resnet20")
        state = start(structure, numbers)
        chunk = {name: x[None] for name, x in batch.items()}
        bounds = np.int32(0), np.int32(1)
        program = epoch.make_train_chunk(structure)
        arguments = (state, steps.create_train_sums(), chunk, numbers, bounds)
        analysis = program.lower(*arguments).compile().memory_analysis()
        needed.append(analysis.temp_size_in_bytes)
    assert needed[1] < 0.7 * needed[0]


def test_frozen_statistics_stay_in_blocks(
    make_structure, make_numbers, start, make_batch
):
    """Two interceptors at once: normalisation is held inside blocks too."""
    numbers, batch = make_numbers(), make_batch(4)
    structure = make_structure(model="wrn_10_1")
    params = flatten_paths(start(structure, numbers).params)
    phase = Phase(0, frozenset(params), frozenset())
    structure = make_structure({"remat": True, "phase": phase}, model="wrn_10_1")
    state = start(structure, numbers)
    program = jax.jit(differentiate, static_argnums=0)
    stats = program(structure, state, batch, numbers)[1][0]
    jax.tree.map(np.testing.assert_array_equal, stats, state.batch_stats)


def test_models_without_blocks_are_refused(tmp_path):
    config = config_module.make_config({"remat": "blocks", "model": "simple_cnn"})
    with pytest.raises(UserError, match="--remat=blocks: simple_cnn has no blocks"):
        describe.describe(config, tmp_path, None)
    assert not list(tmp_path.iterdir())
    remat.check(config.model, [{"path": "stage1_block1/conv1"}])


def test_nothing_happens_unless_wanted():
    def count(is_wanted):
        def apply(x):
            with remat.recompute_blocks(is_wanted):
                return model.apply(variables, x).sum()

        return str(jax.make_jaxpr(jax.grad(apply))(images)).count("remat2[")

    model = models.create_model(models.ModelOptions(model="wrn_10_1"), 4)
    images = jnp.zeros((1, 8, 8, 1))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables)
    assert count(True) > 0 == count(False)
