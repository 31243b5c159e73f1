"""A 2-D convolution and its gradients, in formulations that are fast on CPU.

Arrays: x [N, H, W, C], kernel [Sh, Sw, C / groups, O], gradient [N, H', W', O];
`stride`, `padding`, `dilation` as `geometry.resolve_convolution` returns them.

XLA's CPU backend is fast only for convolutions written NHWC, HWIO → NHWC, and the
gradients that JAX derives are not: inside a loop they ran 40 times slower. So the
input gradient is written as such a convolution, and the kernel gradient as matrix
products over chunks of images that fit the cache. Broad 3×3 convolutions of stride 1
are computed with a quarter of the multiplications (`winograd`).

Of a strided convolution's input, at stride 2, an even pixel meets every other tap of
the kernel and an odd pixel the rest: the input gradient is `stride` convolutions of
stride 1 along an axis, each with its own taps (a phase).
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnn.ops import geometry
from cnn.ops.cpu import chunks, grouped_rules, winograd
from cnn.ops.cpu.taps import stack_taps, sum_dtype
from cnn.ops.geometry import Pairs

_CHUNK_BYTES = 6_000_000  # less makes products too small for several threads
_WINOGRAD = 64  # so many channels, and fewer multiplications pay
_WINOGRAD_GRADIENT = 16  # in the kernel gradient, which copies pixels anyway
_WIDE = 256  # so many features fill a product; with three times as many it is slower


def is_plain(
    x: jax.Array, kernel: jax.Array, *static, has_onednn: bool = False
) -> bool:
    """Say whether XLA's own convolution is the fastest on CPU.

    A kernel with more taps than the image has pixels on an axis falls out of the
    fast convolution (3×3 on 2×2 pixels, 64 channels: 1.7 ms against 0.17 ms as a
    matrix product), and a 1×1 kernel is a product anyway (3.2 against 2.0 ms, at
    stride 2 1.4 against 0.6 ms). `winograd` needs fewer multiplications where it
    applies. Everything else without groups is slower as patches, by 1.5 to 4 times.
    `grouped_rules` has those with groups, but oneDNN, if the program has it, those of
    one channel each.
    """
    if has_onednn and grouped_rules.is_onednns(x, kernel.shape, static):
        return True
    sides = zip(x.shape[1:3], kernel.shape, strict=False)
    small = kernel.shape[:2] == (1, 1) or any(pixels < taps for pixels, taps in sides)
    return static[-1] == 1 and not small and not _is_winograd(x, kernel.shape, static)


def _is_winograd(x, kernel_shape, static, least=_WINOGRAD) -> bool:
    """Say whether `winograd` is faster, and in x's type exact enough."""
    wide = x.dtype.itemsize >= 4
    return wide and winograd.pays(x.shape, kernel_shape, static, least)


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
    has_onednn: bool = False,
) -> jax.Array:
    """Compute the convolution: plain, as a matrix product, or by blocks of groups."""
    static = (stride, padding, dilation, groups)
    if is_plain(x, kernel, *static, has_onednn=has_onednn):
        return geometry.plain_convolution(x, kernel, *static)
    if _is_winograd(x, kernel.shape, static):
        return winograd.convolve(x, kernel, padding)
    shape = geometry.convolution_shape(x.shape, kernel.shape, static)
    if grouped_rules.is_depthwise(kernel.shape, groups):
        return grouped_rules.convolve_depthwise(x, kernel, shape, *static[:3])
    if groups > 1:
        blocks = grouped_rules.count_blocks(x.shape[-1], groups)
        kernels = grouped_rules.merge_groups(kernel, groups, blocks)
        parts = zip(jnp.split(x, blocks, -1), kernels, strict=True)
        return jnp.concatenate([convolve(*part, *static[:3], 1) for part in parts], -1)
    taps = stack_taps(x, shape, kernel.shape, *static[:3])
    product = taps.reshape(-1, kernel[..., 0].size) @ kernel.reshape(-1, shape[-1])
    return product.reshape(shape)


def input_gradient(
    gradient: jax.Array,
    kernel: jax.Array,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
    has_onednn: bool = False,
) -> jax.Array:
    """Compute the 2-D input gradient as one convolution of stride 1 for each phase.

    Pixels of x whose rows and columns have the same remainder by the stride, a phase,
    meet the same taps. So each phase is a convolution of the gradient with these taps
    alone; zeros between the gradient's pixels would cost stride² times the products.
    Where the gradient has few pixels, one product with all taps has them at once.
    """
    pixels = math.prod(gradient.shape[:3])
    few = kernel.shape[:2] == (1, 1) or pixels <= kernel.shape[-1]
    if groups == 1 and few:
        return _spread_taps(gradient, kernel, shape, stride, padding, dilation)
    sizes = shape[1:3], kernel.shape[:2], gradient.shape[1:3], stride, padding, dilation
    axes = [list_phases(*axis) for axis in zip(*sizes, strict=True)]
    # Phases of a stride are no faster with it (16x16x96, 3x3: 2.8 against 2.9 ms).
    is_depthwise = grouped_rules.is_depthwise(kernel.shape, groups)
    is_onednns = has_onednn and is_depthwise and stride == (1, 1)
    parts = []
    for rows, columns in itertools.product(*axes):
        taps = kernel[rows.taps, columns.taps][::-1, ::-1]
        taps = _exchange_channels(taps, groups)
        if is_onednns:
            # XLA merges the flip into the convolution, which oneDNN then does not take.
            taps = lax.optimization_barrier(taps)
        static = (rows.padding, columns.padding), (rows.dilation, columns.dilation)
        seen = _pad(gradient, rows.cut, columns.cut)
        found = convolve(seen, taps, (1, 1), *static, groups, is_onednns)
        parts.append(_pad(found, rows.place, columns.place))
    return sum(parts[1:], parts[0]) if parts else jnp.zeros(shape, gradient.dtype)


def _spread_taps(gradient, kernel, shape, stride, padding, dilation) -> jax.Array:
    """Multiply each pixel of the gradient with all taps, and add up where these lead.

    The product reads the kernel as it lies. A convolution would need it with input
    and output channels exchanged, and to copy 3×3 taps of 512 to 512 channels takes
    as long as the product of 128 pixels (3.4 instead of 1.5 ms).
    """
    height, width, depth, features = kernel.shape
    kind = sum_dtype(gradient)
    product = lax.dot_general(
        gradient.reshape(-1, features),
        kernel.reshape(-1, features),
        (((1,), (1,)), ((), ())),
        preferred_element_type=kind,
    )
    product = product.reshape(*gradient.shape[:3], height, width, depth)
    total = jnp.zeros(shape, kind)
    for tap in np.ndindex(height, width):
        places = []
        for axis in (0, 1):
            first = tap[axis] * dilation[axis] - padding[axis][0]
            reach = geometry.extent(gradient.shape[1 + axis], stride[axis])
            places.append((first, shape[1 + axis] - first - reach, stride[axis] - 1))
        total = total + _pad(product[:, :, :, *tap], *places)
    return total.astype(gradient.dtype)


def _pad(x: jax.Array, rows: tuple, columns: tuple) -> jax.Array:
    """Put zeros around and between pixels, or cut some, as `lax.pad` counts them."""
    if rows == columns == (0, 0, 0):
        return x
    none = (0, 0, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), (none, rows, columns, none))


def kernel_gradient(
    x: jax.Array,
    gradient: jax.Array,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    padding: Pairs,
    dilation: tuple[int, ...],
    groups: int,
) -> jax.Array:
    """Compute the 2-D kernel gradient as a sum of matrix products over image chunks."""
    height, width, depth, features = shape
    images = x.shape[0]
    if depth * groups == 0 or x.size == 0 or gradient.size == 0:
        return jnp.zeros(shape, x.dtype)
    static = (stride, padding, dilation)
    if grouped_rules.is_depthwise(shape, groups):
        return grouped_rules.depthwise_kernel_gradient(x, gradient, shape, *static)
    if groups > 1 and stride == (1, 1):
        blocks = grouped_rules.count_blocks(x.shape[-1], groups)
        own = (height, width, x.shape[-1] // blocks, features // blocks)
        parts = [jnp.split(a, blocks, -1) for a in (x, gradient)]
        found = [kernel_gradient(*p, own, *static, 1) for p in zip(*parts, strict=True)]
        return grouped_rules.take_groups(found, shape, groups)
    if _is_winograd(x, shape, (*static, 1), _WINOGRAD_GRADIENT):
        return winograd.kernel_gradient(x, gradient, padding)
    if stride == (1, 1) and height * width > 1 and depth >= 8:
        product, columns = _multiply_shifts, width * depth + height * features
        split, order = (width, depth, height, features), (2, 0, 1, 3)
        if features >= _WIDE:
            split, order = shape, (0, 1, 2, 3)
    else:
        product, columns = _multiply_patches, height * width * depth * groups + features
        split, order = shape, (0, 1, 2, 3)

    def multiply(x, gradient):
        return product(x, gradient, shape, *static, groups)

    pixels = gradient.shape[1] * gradient.shape[2]
    size = chunks.fit_images(pixels * columns * x.dtype.itemsize, _CHUNK_BYTES)
    if height * width == 1:
        size = images  # there is nothing to copy
    total = chunks.sum_chunks(multiply, x, gradient, size)
    return total.reshape(split).transpose(order).astype(x.dtype)


def _multiply_shifts(x, gradient, shape, stride, padding, dilation, groups):
    """Shift x along columns and the gradient along rows; one product has all taps.

    A tap (a, b) meets row i + a·d − low of x with row i of the gradient. Moving the
    gradient's rows instead of x's leaves Sw copies of x and Sh of the gradient where
    patches would make Sh·Sw of x, and gives the product [Sw·C, Sh·O] two broad sides
    (8×8 pixels, 256 to 256 channels, 64 images: one product 101 ms, a product for each
    row of the kernel 84; 16×16, 128 to 128: 79 and 85).
    """
    height, width, depth, features = shape
    rows, ends = x.shape[1], gradient.shape[2]
    x = jnp.pad(x, ((0, 0), (0, 0), padding[1], (0, 0)))
    x = [x[:, :, b * dilation[1] : b * dilation[1] + ends] for b in range(width)]
    moved = []
    for a in range(height):
        low = a * dilation[0] - padding[0][0]
        high = rows - gradient.shape[1] - low
        zero = jnp.zeros((), gradient.dtype)
        around = ((0, 0, 0), (low, high, 0), (0, 0, 0), (0, 0, 0))
        moved.append(lax.pad(gradient, zero, around))
    x = jnp.concatenate(x, -1).reshape(-1, width * depth)
    if features < _WIDE:
        moved = [jnp.concatenate(moved, -1)]
    moved = [m.reshape(-1, m.shape[-1]) for m in moved]
    kind = sum_dtype(x)
    products = [jnp.matmul(x.T, m, preferred_element_type=kind) for m in moved]
    return jnp.stack(products)


def _multiply_patches(x, gradient, shape, stride, padding, dilation, groups):
    """Multiply the gradient with the patches of x that its pixels saw.

    The product is [Sh·Sw·C / groups, O].
    """
    height, width, depth, features = shape
    taps = stack_taps(x, gradient.shape, shape, stride, padding, dilation)
    kind = sum_dtype(x)
    if groups == 1:
        taps = taps.reshape(-1, height * width * depth)
        pixels = gradient.reshape(-1, features)
        return jnp.matmul(taps.T, pixels, preferred_element_type=kind)
    taps = taps.reshape(-1, height * width, groups, depth)
    pixels = gradient.reshape(-1, groups, features // groups)
    product = jnp.einsum("ptgc,pgo->tcgo", taps, pixels, preferred_element_type=kind)
    return product.reshape(-1, features)


def _exchange_channels(kernel: jax.Array, groups: int) -> jax.Array:
    """Turn [Sh, Sw, C / groups, O] into [Sh, Sw, O / groups, C]."""
    height, width, depth, features = kernel.shape
    split = kernel.reshape(height, width, depth, groups, features // groups)
    split = split.transpose(0, 1, 4, 3, 2)
    return split.reshape(height, width, features // groups, groups * depth)


class Phase(NamedTuple):
    """What the pixels of an axis see that have the same remainder by the stride."""

    taps: slice  # of the kernel, in its order
    dilation: int  # between these taps, in pixels of the gradient
    padding: tuple[int, int]  # zeros around the gradient
    cut: tuple[int, int, int]  # what no tap meets, as `lax.pad` takes it
    place: tuple[int, int, int]  # of the results among all pixels, as `lax.pad` takes


def list_phases(
    length: int,
    taps: int,
    pixels: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
) -> list[Phase]:
    """List the phases of an axis in which a tap meets a pixel, at most `stride` many.

    Tap a leads pixel i of x to pixel (i + low − a · dilation) / stride of the gradient
    where that is whole: for a phase with every `step`th tap.

    Args:
        length: pixels of x.
        taps: of the kernel.
        pixels: of the gradient.
    """
    common = math.gcd(stride, dilation)
    step, apart = stride // common, dilation // common
    phases = []
    for start in range(min(stride, length)):
        reached = [start + padding[0] - a * dilation for a in range(min(step, taps))]
        first = next((a for a, i in enumerate(reached) if i % stride == 0), None)
        if first is None:
            continue
        count = -(-(length - start) // stride)
        reach = (len(range(first, taps, step)) - 1) * apart
        low = reach - reached[first] // stride
        high = count + reach - pixels - low
        cut = min(low, 0), min(high, 0)
        if pixels + sum(cut) <= 0:
            continue
        phases.append(
            Phase(
                taps=slice(first, None, step),
                dilation=apart,
                padding=(max(low, 0), max(high, 0)),
                cut=(*cut, 0),
                place=(start, length - start - (count - 1) * stride - 1, stride - 1),
            )
        )
    return phases
