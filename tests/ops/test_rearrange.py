"""Rearrangements: exact places, inverses, refusals."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn.ops import rearrange

X = jnp.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)


def test_space_to_depth_puts_a_blocks_pixels_into_channels_row_by_row():
    got = rearrange.space_to_depth(X, 2)
    assert got.shape == (2, 2, 3, 12)
    pixels = [X[1, 2, 4], X[1, 2, 5], X[1, 3, 4], X[1, 3, 5]]
    np.testing.assert_array_equal(got[1, 1, 2], jnp.concatenate(pixels))


def test_depth_to_space_is_the_inverse():
    got = rearrange.depth_to_space(rearrange.space_to_depth(X, 2), 2)
    np.testing.assert_array_equal(got, X)
    with pytest.raises(ValueError, match="does not divide 3 channels"):
        rearrange.depth_to_space(X, 2)
    with pytest.raises(ValueError, match="4×6"):
        rearrange.space_to_depth(X, 4)


def test_flatten_keeps_the_order_channels_fastest():
    got = rearrange.flatten(X)
    assert got.shape == (2, 72)
    assert got[1, (2 * 6 + 5) * 3 + 1] == X[1, 2, 5, 1]
    assert rearrange.flatten(X[:0]).shape == (0, 72)


def test_channel_order_there_and_back():
    first = rearrange.nhwc_to_nchw(X)
    assert first[1, 2, 3, 5] == X[1, 3, 5, 2]
    np.testing.assert_array_equal(rearrange.nchw_to_nhwc(first), X)
    with pytest.raises(ValueError, match="four axes"):
        rearrange.nhwc_to_nchw(X[0])
