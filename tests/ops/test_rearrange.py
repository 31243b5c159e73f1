"""Rearrangements: exact places, inverses, refusals."""

import jax
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


# Of 0 … 11, made by torch.nn.ChannelShuffle(groups).
SHUFFLED = {
    1: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
    2: [0, 6, 1, 7, 2, 8, 3, 9, 4, 10, 5, 11],
    3: [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11],
    4: [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11],
    12: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
}


@pytest.mark.parametrize("groups", SHUFFLED)
@pytest.mark.parametrize("shape", [(2, 5, 12), (2, 4, 3, 12)])
def test_channel_shuffle_deals_the_groups_out_as_pytorch_does(groups, shape):
    x = jax.random.normal(jax.random.key(0), shape)
    got = rearrange.channel_shuffle(x, groups)
    np.testing.assert_array_equal(got, np.asarray(x)[..., SHUFFLED[groups]])
    each = 12 // groups
    for i, j in np.ndindex(groups, each):  # the definition
        np.testing.assert_array_equal(got[..., j * groups + i], x[..., i * each + j])


@pytest.mark.parametrize("shape", [(1, 2, 12), (2, 2, 2, 12)])
def test_the_inverse_of_a_shuffle_is_another_and_its_gradient(shape):
    keys = jax.random.split(jax.random.key(0))
    x, upstream = (jax.random.normal(key, shape) for key in keys)
    got, pull_back = jax.vjp(lambda x: rearrange.channel_shuffle(x, 3), x)
    np.testing.assert_array_equal(rearrange.channel_shuffle(got, 4), x)
    (gradient,) = pull_back(upstream)
    np.testing.assert_array_equal(gradient, rearrange.channel_shuffle(upstream, 4))


def test_channels_that_do_not_fit_are_not_shuffled():
    with pytest.raises(ValueError, match="groups=2 does not divide 3 channels"):
        rearrange.channel_shuffle(X, 2)
    with pytest.raises(ValueError, match="groups=0"):
        rearrange.channel_shuffle(X, 0)
    with pytest.raises(ValueError, match=r"takes \[N, L, C\] or"):
        rearrange.channel_shuffle(X[0, 0], 3)


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
