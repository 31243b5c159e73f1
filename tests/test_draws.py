"""Draws computed together: the bits of jax.random, in as few programs as one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.models import draws
from cnn.training.state import create_state

DRAWS = ("random_bits", "random_fold_in", "threefry2x32")


def draw(seed):
    """Draw numbers of all kinds, and keys from keys."""
    key = jax.random.fold_in(jax.random.key(seed), 3)
    keys = [jax.random.fold_in(key, number) for number in (7, 2**31, 2**32 - 1)]
    several = jax.random.split(key, 2)
    many = draws._BLOCK + 1
    return {
        "normal": jax.random.normal(keys[0], (3, 3, 2, 5)),
        "truncated": jax.random.truncated_normal(keys[1], -2, 2, (7, 11)),
        "uniform": jax.random.uniform(keys[2], (many,), minval=-1.5, maxval=2.5),
        "one": jax.random.uniform(jax.random.fold_in(keys[0], seed), ()),
        "none": jax.random.uniform(keys[0], (0, 3)),
        "short": jax.random.bits(keys[1], (5,), jnp.uint8),
        "of_several": jax.vmap(lambda x: jax.random.bits(x, (4,)))(several),
        "twice": jax.random.normal(
            jax.random.key(jax.random.bits(keys[2], dtype=jnp.uint32)), (6,)
        ),
        "seed": seed,
        "constant": jnp.ones((2,)),
    }


def count_draws(traced):
    """Count what hashes in a traced function, and in what it calls."""
    inner = jax.tree.leaves(
        [list(eqn.params.values()) for eqn in traced.eqns],
        is_leaf=lambda x: hasattr(x, "eqns"),
    )
    own = sum(eqn.primitive.name in DRAWS for eqn in traced.eqns)
    return own + sum(count_draws(x) for x in inner if hasattr(x, "eqns"))


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_draws_together_are_the_same_bits(seed):
    apart = jax.jit(draw)(seed)
    together = jax.jit(draws.draw_together(draw))(seed)
    assert apart.keys() == together.keys()
    for name, wanted in apart.items():
        assert together[name].dtype == wanted.dtype, name
        np.testing.assert_array_equal(together[name], wanted, err_msg=name)


def test_draws_of_several_seeds_are_those_of_each():
    seeds = np.arange(3, dtype=np.int32)
    together = jax.jit(jax.vmap(draws.draw_together(draw)))(seeds)
    for number, seed in enumerate(seeds):
        for name, wanted in jax.jit(draw)(seed).items():
            np.testing.assert_array_equal(together[name][number], wanted, err_msg=name)


class Layers(nn.Module):
    """As many dense layers as asked for."""

    count: int

    @nn.compact
    def __call__(self, x, train=False):
        """Map images to features."""
        x = x.reshape(len(x), -1)
        for _ in range(self.count):
            x = nn.Dense(8, bias_init=nn.initializers.normal())(x)
        return x


def test_more_layers_draw_in_no_more_programs(make_structure, make_numbers):
    """Each hash of its own takes XLA on CPU 0.2 s of a core to compile."""
    rule, numbers = make_structure().rule, make_numbers()

    def count(number):
        def create(numbers):
            return create_state(Layers(number), (4, 4, 1), rule, numbers)

        return count_draws(jax.make_jaxpr(create)(numbers).jaxpr)

    assert count(1) == count(5) <= 5
