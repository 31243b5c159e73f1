"""Convolution in one and two dimensions, as every layer of every model uses it.

Arrays are channels-last: x [N, H, W, C] or [N, L, C]; kernels [Sh, Sw, C / groups,
O] or [S, C / groups, O]. As everywhere in deep learning, "convolution" here is
cross-correlation, y[i] = Σ_a x[i·stride + a·dilation − low] · kernel[a], summed over
the channels of the group; `true_convolution1d` and `2d` flip the kernel. Arrays are
floats, the kernel is cast to x's dtype, and the result has it too. Shapes or numbers
that do not fit together raise ValueError.

What computes is chosen in `_choose` and `_backward` for the platform compiled for:
- GPU, TPU: `geometry.plain_convolution`, and JAX's own derivatives of it.
- CPU, forward and input gradient: a plain convolution too, Winograd's products for
  broad 3×3 kernels of stride 1 (`cpu/winograd`), one product for 1×1 kernels and few
  pixels.
- CPU, kernel gradient: products of shifted pixels, or Winograd's.
- CPU, all three for images of 2 or 4 pixels a side and 3×3 kernels: a few products, of
  all pixels at once (`cpu/tiny_images`).

`--convolution=plain` takes the first everywhere; oneDNN (`runtime/xla`) may compute
what is plain on CPU.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cnn.ops import geometry
from cnn.ops.cpu import convolution_rules, tiny_images
from cnn.ops.geometry import Padding

FORMULATIONS = ("auto", "plain")
ONEDNN = "onednn"  # `auto` for programs that `runtime/xla` compiles with that library


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    formulation: str = "auto",
) -> jax.Array:
    """Slide a kernel over the rows and columns of images.

    y[n, i, j, o] = Σ_abc x[n, i·s + a·d − low, j·s + b·d − low, c] kernel[a, b, c, o],
    where x is zero outside its borders. With `groups` the channels of input and
    output are cut into that many parts, and part k of y sees part k of x alone.

    Args:
        stride: pixels between windows; one number or (rows, columns).
        padding: zeros around x: `valid` none, `same` keeps H and W at stride 1,
            `full` one less than the kernel's extent on all sides; or one number,
            (low, high), or ((top, bottom), (left, right)). With even extents `same`
            puts the odd pixel on the right and bottom.
        dilation: pixels between the kernel's taps; one number or (rows, columns).
        groups: how many parts the channels are cut into.
        formulation: `auto` computes the result and both gradients in the way that is
            fast on the platform compiled for, `plain` as XLA and JAX have them,
            `onednn` as `auto` for a program that calls oneDNN.

    Returns:
        [N, H', W', O], H' = (H + top + bottom − extent) // stride + 1.

    Source: Dumoulin and Visin, A guide to convolution arithmetic for deep learning
        (2016), https://arxiv.org/abs/1603.07285
    """
    if x.ndim != 4:
        raise ValueError(f"x {list(x.shape)}: conv2d takes [N, H, W, C]")
    return _convolve(x, kernel, stride, padding, dilation, groups, formulation)


def conv1d(
    x: jax.Array,
    kernel: jax.Array,
    *,
    stride: int = 1,
    padding: Padding = "valid",
    dilation: int = 1,
    groups: int = 1,
    formulation: str = "auto",
) -> jax.Array:
    """Slide a kernel along sequences.

    y[n, i, o] = Σ_ac x[n, i·stride + a·dilation − low, c] kernel[a, c, o]. The options
    are those of `conv2d`, on one axis.

    Returns:
        [N, L', O]; for stride 1 and an extent of e, L' is L − (e − 1) for `valid`, L
        for `same`, L + (e − 1) for `full`.
    """
    if x.ndim != 3:
        raise ValueError(f"x {list(x.shape)}: conv1d takes [N, L, C]")
    return _convolve(x, kernel, stride, padding, dilation, groups, formulation)


def true_convolution2d(x: jax.Array, kernel: jax.Array, **options) -> jax.Array:
    """Convolve in the mathematical sense: `conv2d` with the kernel turned by 180°."""
    return conv2d(x, kernel[::-1, ::-1], **options)


def true_convolution1d(x: jax.Array, kernel: jax.Array, **options) -> jax.Array:
    """Convolve in the mathematical sense: `conv1d` with the kernel reversed."""
    return conv1d(x, kernel[::-1], **options)


def _convolve(x, kernel, stride, padding, dilation, groups, formulation) -> jax.Array:
    static = geometry.resolve_convolution(
        x.shape, kernel.shape, stride, padding, dilation, groups
    )
    geometry.convolution_shape(x.shape, kernel.shape, static)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"x is {x.dtype}: convolutions take floating-point arrays")
    if formulation not in (*FORMULATIONS, ONEDNN):
        raise ValueError(f"formulation {formulation!r}: one of {FORMULATIONS}")
    rule = geometry.plain_convolution
    if formulation != "plain":
        rule = functools.partial(_conv2d, formulation == ONEDNN)
    kernel = kernel.astype(x.dtype)
    if x.ndim == 4:
        return rule(x, kernel, *static)
    return rule(x[:, None], kernel[None], *geometry.lift(static))[:, 0]


def _choose(has_onednn, x, kernel, *static) -> jax.Array:
    """Convolve in the formulation that is fast on the platform compiled for."""

    def plain(x, kernel):
        return geometry.plain_convolution(x, kernel, *static)

    def fast(x, kernel):
        return convolution_rules.convolve(x, kernel, *static)

    if tiny_images.fits(x, kernel.shape, static):
        fast = tiny_images.convolve
    elif convolution_rules.is_plain(x, kernel, *static, has_onednn=has_onednn):
        return plain(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=fast, default=plain)


_with_gradients = jax.custom_vjp(_choose, nondiff_argnums=(0, 3, 4, 5, 6))


def _forward(has_onednn, x, kernel, *static):
    x = lax.optimization_barrier(x)
    return _choose(has_onednn, x, kernel, *static), (x, kernel)


def _backward(has_onednn, stride, padding, dilation, groups, kept, gradient):
    """Choose the gradient rule: ours on CPU, the backend's own elsewhere."""
    static = (stride, padding, dilation, groups)

    def on_cpu(x, kernel, gradient):
        gradient = lax.optimization_barrier(gradient)
        if tiny_images.fits(x, kernel.shape, static):
            return tiny_images.compute_gradients(x, kernel, gradient)
        return (
            convolution_rules.input_gradient(
                gradient, kernel, x.shape, *static, has_onednn=has_onednn
            ),
            convolution_rules.kernel_gradient(x, gradient, kernel.shape, *static),
        )

    def derived(x, kernel, gradient):
        _, pull = jax.vjp(
            lambda *pair: geometry.plain_convolution(*pair, *static), x, kernel
        )
        return pull(gradient)

    return lax.platform_dependent(*kept, gradient, cpu=on_cpu, default=derived)


_with_gradients.defvjp(_forward, _backward)
# Layers of the same shapes are traced once.
_conv2d = jax.jit(_with_gradients, static_argnums=(0, 3, 4, 5, 6))
