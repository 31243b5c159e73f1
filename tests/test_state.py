import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.models.variables import count_parameters
from cnn.training import state as state_module
from cnn.training.state import TrainState


@pytest.fixture
def small():
    """Return a state with nested leaves of several types, one of them empty."""
    return TrainState(
        step=jnp.int32(7),
        params={
            "b": {"kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3).T},
            "a2": {"bias": jnp.ones(2)},
            "a10": {"bias": jnp.zeros((0, 3))},
        },
        batch_stats={},
        opt_state=({"count": jnp.int32(1)}, (jnp.bfloat16(2.5),)),
        ema=None,
    )


def test_sha256_follows_its_description(small):
    leaves = {
        "opt_state/0/count": ("int32", "()", np.int32(1).tobytes()),
        "opt_state/1/0": ("bfloat16", "()", b"\x20\x40"),
        "params/a10/bias": ("float32", "(0, 3)", b""),
        "params/a2/bias": ("float32", "(2,)", np.ones(2, np.float32).tobytes()),
        "params/b/kernel": (
            "float32",
            "(3, 2)",
            np.float32([0, 3, 1, 4, 2, 5]).tobytes(),
        ),
        "step": ("int32", "()", np.int32(7).tobytes()),
    }
    digest = hashlib.sha256()
    for path in sorted(leaves):
        dtype, shape, data = leaves[path]
        digest.update(f"{path} {dtype} {shape}\n".encode() + data)
    assert state_module.compute_state_sha256(small) == digest.hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        {"step": jnp.int32(8)},
        {"step": jnp.uint32(7)},
        {"step": jnp.full((1,), 7, jnp.int32)},
        {"batch_stats": {"mean": jnp.zeros(0)}},
        {"ema": {"x": jnp.zeros(1)}},
    ],
)
def test_sha256_sees_every_change(small, change):
    before = state_module.compute_state_sha256(small)
    assert state_module.compute_state_sha256(small.replace(**change)) != before


def test_paths_are_sorted_and_written_out(small):
    paths = list(state_module.flatten_paths(small.params))
    assert paths == ["a10/bias", "a2/bias", "b/kernel"]


def test_first_state(make_structure, make_numbers, start):
    structure = make_structure(model="simple_cnn", optimizer="adam")
    numbers = make_numbers(optimizer="adam", ema_decay=0.9, seed=3)
    found = start(structure, numbers)
    assert found.step == 0 and found.step.dtype == jnp.int32
    create = functools.partial(state_module.create_variables, structure.model)
    variables = jax.jit(create, static_argnums=1)(3, (8, 8, 1))
    jax.tree.map(np.testing.assert_array_equal, found.params, variables["params"])
    averaged = {"params": found.params, "batch_stats": found.batch_stats}
    jax.tree.map(np.testing.assert_array_equal, found.ema, averaged)
    assert state_module.get_variables(found) is found.ema
    types = {leaf.dtype for leaf in jax.tree.leaves(found.params)}
    assert types == {jnp.dtype(jnp.float32)}


def test_without_averaging_the_weights_are_evaluated(
    make_structure, make_numbers, start
):
    found = start(make_structure(), make_numbers())
    assert found.ema is None and found.batch_stats == {}
    assert state_module.get_variables(found)["params"] is found.params


def test_seed_chooses_the_weights(make_structure, make_numbers, start):
    states = [start(make_structure(), make_numbers(seed=seed)) for seed in (0, 0, 1)]
    one, same, other = (state_module.compute_state_sha256(s) for s in states)
    assert one == same != other


def test_parameters_are_counted(small):
    assert count_parameters(small.params) == 8
    shapes = jax.eval_shape(lambda: small.params)
    assert count_parameters(shapes) == 8


@pytest.mark.parametrize("value, finite", [(1.0, True), (np.inf, False)])
def test_finite_is_every_number(small, value, finite):
    params = small.params | {"c": jnp.float32([0.0, value])}
    assert state_module.is_finite(params) == finite
