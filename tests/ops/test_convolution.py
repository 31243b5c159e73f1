"""Convolution: the lecture's numbers, references in scipy, gradients, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal
from jax import lax

from cnn.ops import convolution, geometry
from cnn.ops.cpu import grouped_rules

INPUT = [
    [5, -1, 3, 8, 4, 6, -2],
    [-3, 4, 9, 1, 1, 7, -4],
    [5, -6, 3, 2, 1, -2, 0],
    [0, -8, 5, 5, 4, -2, 3],
    [4, 7, 2, -7, 3, 1, 4],
    [4, -3, 1, 2, 6, 1, -1],
    [0, 0, 3, -2, 3, -1, 0],
]
KERNEL = [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]
VALID = [
    [-10, -11, -15, -20, -17],
    [-25, -16, 7, 1, -8],
    [24, 2, -17, -2, 12],
    [10, -6, -8, 4, 4],
    [-17, 0, 11, 3, -8],
]
# height, width, channels, kernel, features, stride, padding, dilation, groups
CASES = {
    "same": (6, 7, 8, (3, 3), 5, 1, "same", 1, 1),
    "few channels": (6, 5, 3, (3, 3), 4, 1, "same", 1, 1),
    "stride and groups": (7, 8, 4, (3, 2), 6, 2, 1, 1, 2),
    "pairs": (9, 8, 8, (2, 3), 4, (2, 3), ((0, 1), (2, 0)), (2, 1), 4),
    "1x1 stride 2": (5, 6, 4, (1, 1), 3, 2, 0, 1, 1),
    "1x1 padded": (3, 3, 2, (1, 1), 3, 1, 1, 1, 1),
    "cropping stride": (8, 8, 2, (2, 2), 3, 5, "valid", 1, 1),
    "stride, dilation": (15, 17, 4, (5, 4), 3, (4, 2), ((3, 2), (2, 3)), (2, 3), 1),
    "a phase unseen": (1, 5, 4, (2, 1), 3, (2, 1), ((4, 0), (0, 0)), (3, 1), 1),
    "small image": (2, 2, 8, (3, 3), 4, 1, "same", 1, 1),
    "wide padding": (4, 5, 8, (3, 3), 4, 1, 4, 1, 1),
    "full dilated": (5, 4, 8, (3, 2), 4, 1, "full", 2, 1),
    "depthwise": (5, 5, 4, (3, 3), 4, 1, "same", 1, 4),
    "depthwise, more": (7, 6, 4, (3, 2), 8, (2, 1), ((1, 0), (0, 2)), (1, 2), 4),
    "depthwise, small": (2, 2, 6, (7, 7), 6, 1, "same", 1, 6),
    "blocks of groups": (5, 6, 32, (3, 3), 64, 1, "same", 1, 8),
    "blocks, stride": (7, 6, 24, (3, 3), 12, 2, 1, 1, 6),
}


def make_case(name, images=3):
    """Return x, kernel, the convolution and XLA's own, of one of the cases."""
    rows, columns, channels, window, features, *numbers = CASES[name]
    stride, padding, dilation, groups = numbers
    generator = np.random.default_rng(0)
    x = generator.normal(size=(images, rows, columns, channels))
    kernel = generator.normal(size=(*window, channels // groups, features))
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    reach = [(s - 1) * d for s, d in zip(window, pair(dilation), strict=True)]
    explicit = {
        "same": [(e // 2, e - e // 2) for e in reach],
        "valid": [(0, 0)] * 2,
        "full": [(e, e) for e in reach],
    }.get(padding if isinstance(padding, str) else "", padding)
    if isinstance(explicit, int):
        explicit = [(explicit, explicit)] * 2

    def ours(x, kernel):
        return convolution.conv2d(
            x, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups
        )

    def plain(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            pair(stride),
            explicit,
            rhs_dilation=pair(dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    return jnp.float32(x), jnp.float32(kernel), ours, plain


def image(rows):
    return jnp.float32(rows)[None, :, :, None]


def matrix(rows):
    return jnp.float32(rows)[:, :, None, None]


def test_lecture_windows_of_one_dimension():
    x = jnp.float32([5, 7, 0]).reshape(1, 3, 1)
    kernel = jnp.float32([-1, 3, -1]).reshape(3, 1, 1)
    assert convolution.conv1d(x, kernel).item() == 16
    x = jnp.float32([0.7, 0.5, 0.3, 1]).reshape(1, 4, 1)
    kernel = jnp.float32([0.8, 0, 0.8, 0.2]).reshape(4, 1, 1)
    assert convolution.conv1d(x, kernel).item() == pytest.approx(1.0, abs=1e-6)


def test_lecture_image():
    y = convolution.conv2d(image(INPUT), matrix(KERNEL))[0, :, :, 0]
    np.testing.assert_array_equal(y, VALID)
    assert y[1, 3] == 1
    y = convolution.conv2d(image(INPUT), matrix(KERNEL), stride=2)[0, :, :, 0]
    np.testing.assert_array_equal(y, np.array(VALID)[::2, ::2])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_output_lengths(size):
    x, kernel = jnp.ones((1, 9, 1)), jnp.ones((size, 1, 1))
    lengths = {"valid": 9 - (size - 1), "same": 9, "full": 9 + size - 1}
    for padding, length in lengths.items():
        y = convolution.conv1d(x, kernel, padding=padding)
        assert y.shape == (1, length, 1), padding


def test_same_padding_of_even_kernels_adds_on_the_right_and_bottom():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 3, 3, 0].set(1.0)
    kernel = jnp.float32([[1, 2], [3, 4]])[:, :, None, None]
    y = convolution.conv2d(x, kernel, padding="same")[0, :, :, 0]
    assert y.shape == (4, 4)
    np.testing.assert_array_equal(y[2:, 2:], [[4, 3], [2, 1]])


def test_same_padding_does_not_depend_on_the_stride():
    x, kernel, *_ = make_case("same")
    dense = convolution.conv2d(x, kernel, padding="same")
    strided = convolution.conv2d(x, kernel, padding="same", stride=2)
    np.testing.assert_allclose(strided, dense[:, ::2, ::2], atol=1e-5)


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
def test_equals_scipy(mode):
    generator = np.random.default_rng(1)
    x, kernel = generator.normal(size=(6, 7)), generator.normal(size=(3, 3))
    y = convolution.conv2d(image(x), matrix(kernel), padding=mode)[0, :, :, 0]
    np.testing.assert_allclose(
        y, scipy.signal.correlate2d(x, kernel, mode), atol=1e-5, rtol=1e-5
    )
    y = convolution.true_convolution2d(image(x), matrix(kernel), padding=mode)
    np.testing.assert_allclose(
        y[0, :, :, 0], scipy.signal.convolve2d(x, kernel, mode), atol=1e-5, rtol=1e-5
    )
    row, taps = jnp.float32(x[0]).reshape(1, -1, 1), jnp.float32(kernel[0])
    y = convolution.true_convolution1d(row, taps.reshape(3, 1, 1), padding=mode)
    np.testing.assert_allclose(
        y[0, :, 0], np.convolve(x[0], kernel[0], mode), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", CASES)
def test_equals_plain_convolution_and_its_gradients(name):
    x, kernel, ours, plain = make_case(name)
    weights = jnp.sin(jnp.arange(plain(x, kernel).size, dtype=jnp.float32))

    def both(rule):
        def loss(x, kernel):
            y = rule(x, kernel)
            return jnp.sum(y * weights.reshape(y.shape)), y

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, kernel)

    leaves = map(jax.tree.leaves, (both(ours), both(plain)))
    for got, expected in zip(*leaves, strict=True):
        assert got.shape == expected.shape
        scale = float(jnp.max(jnp.abs(expected)))
        np.testing.assert_allclose(got, expected, atol=1e-5 * scale)


def draw_case(seed):
    """Draw shapes and options of a convolution that exists."""
    random = np.random.default_rng(seed)
    while True:
        groups = int(random.choice([1, 1, 2, 4, 8]))
        channels, features = groups * random.integers(1, [7, 7])
        window, stride, dilation, pads = random.integers(
            [1] * 8, [5, 5, 4, 4, 3, 3, 4, 4]
        ).reshape(4, 2)
        shape = (int(random.integers(1, 6)), *random.integers(1, 12, 2), channels)
        extent = (window - 1) * dilation + 1
        if np.all(np.asarray(shape[1:3]) + 2 * (pads - 1) >= extent):
            break
    options = {
        "stride": tuple(map(int, stride)),
        "dilation": tuple(map(int, dilation)),
        "padding": tuple((int(p) - 1, int(p) - 1) for p in pads),
        "groups": groups,
    }
    x = jnp.asarray(random.normal(size=shape), jnp.float32)
    kernel_shape = (*map(int, window), channels // groups, features)
    kernel = jnp.asarray(random.normal(size=kernel_shape), jnp.float32)
    return x, kernel, options


@pytest.mark.parametrize(
    "seed",
    [*range(12), *(pytest.param(s, marks=pytest.mark.slow) for s in range(12, 150))],
)
def test_auto_equals_plain_over_random_shapes(seed):
    """Results within 1e-5 of the largest, gradients within 1e-4."""
    x, kernel, options = draw_case(seed)
    rules = {
        name: functools.partial(convolution.conv2d, formulation=name, **options)
        for name in convolution.FORMULATIONS
    }
    ours, pull = jax.vjp(rules["auto"], x, kernel)
    wanted, pull_plain = jax.vjp(rules["plain"], x, kernel)
    weights = jnp.cos(jnp.arange(wanted.size, dtype=jnp.float32))
    weights = weights.reshape(wanted.shape)
    found = (ours, *pull(weights))
    for got, expected, tolerance in zip(
        found, (wanted, *pull_plain(weights)), (1e-5, 1e-4, 1e-4), strict=True
    ):
        assert got.shape == expected.shape
        scale = float(jnp.max(jnp.abs(expected)))
        np.testing.assert_allclose(got, expected, atol=tolerance * scale)


def test_unknown_formulation_is_refused():
    with pytest.raises(ValueError, match="'fast': one of"):
        convolution.conv1d(jnp.ones((1, 4, 1)), jnp.ones((2, 1, 1)), formulation="fast")


def test_vmap_over_images_and_over_kernels_equals_a_loop():
    x, kernel, ours, _ = make_case("same", images=2)
    xs, kernels = jnp.stack([x, 2 * x]), jnp.stack([kernel, kernel[::-1]])
    loss = lambda x, k: jnp.sum(jnp.square(ours(x, k)))  # noqa: E731
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    got = jax.jit(jax.vmap(gradient))(xs, kernels)
    for index in range(2):
        expected = gradient(xs[index], kernels[index])
        for a, b in zip(got, expected, strict=True):
            np.testing.assert_allclose(a[index], b, rtol=1e-4, atol=1e-3)


def test_bfloat16_stays_bfloat16_and_float32_kernels_get_float32_gradients():
    x, kernel, ours, _ = make_case("same")
    half = x.astype(jnp.bfloat16)
    y = ours(half, kernel)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), ours(x, kernel), atol=0.2)
    loss = lambda x, k: jnp.sum(ours(x, k).astype(jnp.float32))  # noqa: E731
    to_x, to_kernel = jax.jit(jax.grad(loss, argnums=(0, 1)))(half, kernel)
    assert (to_x.dtype, to_kernel.dtype) == (jnp.bfloat16, jnp.float32)


def test_one_export_serves_all_platforms():
    x, kernel, ours, _ = make_case("small image")
    gradient = jax.jit(jax.grad(lambda k: jnp.sum(ours(x, k))))
    exported = jax.export.export(gradient, platforms=["cpu", "cuda", "tpu"])(kernel)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    np.testing.assert_allclose(exported.call(kernel), gradient(kernel), rtol=1e-5)


@pytest.mark.parametrize(
    ("x", "kernel", "options", "message"),
    [
        ((4, 4, 2), (3, 3, 2, 1), {}, "conv2d takes"),
        ((1, 4, 4, 2), (3, 2, 1), {}, "give"),
        ((1, 4, 4, 2), (3, 3, 3, 1), {}, "2 input and 1 output channels"),
        ((1, 4, 4, 2), (3, 3, 1, 3), {"groups": 2}, "divisible"),
        ((1, 4, 4, 2), (5, 5, 2, 1), {}, "reaches 5 pixels"),
        ((1, 4, 4, 2), (3, 3, 2, 1), {"padding": "SAME"}, "padding='SAME'"),
        ((1, 4, 4, 2), (3, 3, 2, 1), {"padding": -1}, "none negative"),
        ((1, 4, 4, 2), (3, 3, 2, 1), {"stride": 0}, "stride=0"),
        ((1, 4, 4, 2), (3, 3, 2, 1), {"dilation": (1, 1, 1)}, "tuple of 2"),
    ],
)
def test_refuses_what_does_not_fit(x, kernel, options, message):
    with pytest.raises(ValueError, match=message):
        convolution.conv2d(jnp.ones(x), jnp.ones(kernel), **options)


def test_refuses_whole_numbers():
    with pytest.raises(ValueError, match="int32"):
        convolution.conv1d(jnp.ones((1, 4, 1), jnp.int32), jnp.ones((2, 1, 1)))


@pytest.mark.parametrize(
    "channels, groups, blocks",
    [(128, 32, 8), (512, 32, 32), (2048, 64, 32), (24, 6, 1), (32, 8, 2), (14, 7, 1)],
)
def test_groups_are_merged_into_few_broad_blocks(channels, groups, blocks):
    assert grouped_rules.count_blocks(channels, groups) == blocks


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
def test_padding_to_ceil_is_xlas_same(size, stride):
    x = jnp.arange(8 * 9, dtype=jnp.float32).reshape(1, 8, 9, 1)
    kernel = jnp.arange(1, size**2 + 1, dtype=jnp.float32).reshape(size, size, 1, 1)
    wanted = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    padding = geometry.pad_to_ceil((8, 9), size, stride)
    found = convolution.conv2d(x, kernel, stride=stride, padding=padding)
    np.testing.assert_allclose(found, wanted, 1e-6)
