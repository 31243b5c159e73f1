"""Which leaves of every model are kernels; that every rule takes the rest as vectors.

A leaf's role is its name's: no update may depend on how many axes a bias has.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_model import LARGER, NAMES, create, find_size, mark_slow

from cnn import config as config_module
from cnn.models.variables import create_variables, flatten_paths, is_kernel
from cnn.optim import muon, optimizer, paths

OPTIMIZERS = config_module.list_fields()["optimizer"].metadata["choices"]
# The last part of a vector's path; a locally connected layer's is `local1_bias`.
VECTORS = {"bias", "scale"}
# With several places at each of which there is a matrix.
LOCAL = {"local1_kernel", "local2_kernel"}


@functools.cache
def list_leaves(name):
    """Return the rank of each parameter by path."""
    size = find_size(name)
    shapes = jax.eval_shape(lambda: create_variables(create(name), 0, (size, size, 3)))
    return {path: x.ndim for path, x in flatten_paths(shapes["params"]).items()}


@pytest.mark.parametrize("name", mark_slow(LARGER))
def test_a_leaf_is_a_kernel_or_one_of_the_known_vectors(name):
    for path, rank in list_leaves(name).items():
        last = path.split("/")[-1]
        if is_kernel(path):
            assert rank in ((6,) if last in LOCAL else (2, 4)), path
        else:
            assert last.split("_")[-1] in VECTORS, path
        assert muon.is_stepped(path, np.empty((1,) * rank)) == (
            is_kernel(path) and rank == 4
        )


@functools.cache
def compute_update(rule, path, shape, **changes):
    """Return the first update of a leaf by a fixed gradient, flat."""
    flat = {"optimizer": rule, "learning_rate": 0.1, "weight_decay": 0.5}
    flat |= {"decay_norms": False, "decoupled_rates": rule == "muon_sgd"} | changes
    config = config_module.make_config(flat)
    numbers = config.make_numbers()
    chain = optimizer.make_optimizer(config.optimizer, jnp.float32(0.1), numbers)
    params, gradient = (
        {path: jnp.asarray(x, jnp.float32).reshape(shape)}
        for x in ([1.0, -2.0, 3.0, 0.5], [0.3, 0.1, -0.2, 0.4])
    )
    updates, _ = chain.update(gradient, chain.init(params), params)
    return np.ravel(updates[path])


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_every_rule_takes_all_but_kernels_as_vectors(rule):
    """A vector's update is that of the same numbers in a row; it does not decay."""
    leaves = {
        (path.split("/")[-1], rank)
        for name in NAMES
        if name not in LARGER
        for path, rank in list_leaves(name).items()
    }
    assert ("local1_bias", 4) in leaves and ("scale", 4) in leaves
    for last, rank in leaves:
        shape = (1,) * (rank - 2) + (2, 2) if rank > 1 else (4,)
        found = compute_update(rule, last, shape)
        undecayed = compute_update(rule, last, shape, weight_decay=0.0)
        decays = not np.array_equal(found, undecayed)
        steps_alone = rule == "muon_sgd" and rank == 4  # its norm is fixed instead
        assert decays == (is_kernel(last) and not steps_alone), last
        if not is_kernel(last):
            row = compute_update(rule, "bias", (4,))
            np.testing.assert_array_equal(found, row, err_msg=last)


def test_kernels_are_marked_by_their_own_name_alone():
    tree = {
        "kernel": 0,
        "kernels": 0,
        "kernel_size": 0,
        "a": {"b_kernel": 0, "bias": 0},
    }
    marked = flatten_paths(paths.mark_kernels(tree))
    assert {path for path, found in marked.items() if found} == {"kernel", "a/b_kernel"}
