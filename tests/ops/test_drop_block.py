"""DropBlock against timm's, and what its seeds are drawn at."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import drop_block

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "drop_block.npz")
CASES = sorted({name.partition("/")[0] for name in GOLDEN})


@pytest.mark.parametrize("name", CASES)
def test_it_equals_timm(name):
    x, y, seeds = (GOLDEN[f"{name}/{part}"] for part in ("x", "y", "seeds"))
    height, width, size, rate, share = GOLDEN[f"{name}/case"]
    gamma = drop_block.compute_seed_rate(
        rate * share, int(size), int(height), int(width)
    )
    np.testing.assert_allclose(gamma, GOLDEN[f"{name}/gamma"], rtol=1e-6)
    found = jax.jit(drop_block.drop_block, static_argnums=2)(x, seeds, int(size))
    np.testing.assert_allclose(found, y, rtol=0, atol=1e-6 * np.abs(y).max())
    assert seeds.any() and not y.all(), "the case drops something"


def test_without_seeds_nothing_changes():
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)
    found = drop_block.drop_block(x, jnp.zeros((2, 6, 6, 1), bool), 3)
    np.testing.assert_array_equal(found, x)


def test_bfloat16_stays():
    x = jnp.ones((1, 4, 4, 2), jnp.bfloat16)
    seeds = jnp.zeros((1, 4, 4, 1), bool).at[0, 1, 1].set(True)
    assert drop_block.drop_block(x, seeds, 3).dtype == jnp.bfloat16
