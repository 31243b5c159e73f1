"""The two gradients of a convolution, as functions of their own.

Arrays are channels-last: x [N, H, W, C], kernel [Sh, Sw, C / groups, O] and the
gradient of the loss with respect to the output, g [N, H', W', O]; one spatial axis
less in 1-D. The convolution is y = Σ_ab x[·s + a·d − low] kernel[a, b], with the
options of `convolution.conv2d`. Shapes that do not belong to one convolution raise
ValueError.

`convolution_rules` holds the formulations and why they are fast.
"""

from collections.abc import Sequence

import jax

from cnn.ops import geometry
from cnn.ops.cpu import convolution_rules
from cnn.ops.geometry import Padding


def convolution_input_gradient(
    gradient: jax.Array,
    kernel: jax.Array,
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Compute ∂loss/∂x of a convolution from ∂loss/∂y.

    For a valid convolution of stride 1 it is the full convolution of the gradient
    with the flipped kernel, input and output channels exchanged. A stride s puts
    s − 1 zeros between the gradient's pixels first; padding trims the result.

    Returns:
        ∂loss/∂x of `input_shape`, in the gradient's dtype.

    Source: Goodfellow, Bengio, Courville, Deep Learning (2016), §9.5,
        https://www.deeplearningbook.org/contents/convnets.html
    """
    shape = tuple(input_shape)
    static = geometry.resolve_convolution(
        shape, kernel.shape, stride, padding, dilation, groups
    )
    _check_gradient(gradient, shape, kernel.shape, static)
    kernel = kernel.astype(gradient.dtype)
    if len(shape) == 4:
        return convolution_rules.input_gradient(gradient, kernel, shape, *static)
    flat = (shape[0], 1, *shape[1:])
    out = convolution_rules.input_gradient(
        gradient[:, None], kernel[None], flat, *geometry.lift(static)
    )
    return out[:, 0]


def convolution_kernel_gradient(
    x: jax.Array,
    gradient: jax.Array,
    kernel_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "valid",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> jax.Array:
    """Compute ∂loss/∂kernel of a convolution from ∂loss/∂y.

    At the kernel's offset (a, b) it is Σ over images and output pixels of
    x[n, i·s + a·d − low, j·s + b·d − low, c] · g[n, i, j, o].

    Returns:
        ∂loss/∂kernel of `kernel_shape`, in x's dtype.
    """
    shape = tuple(kernel_shape)
    static = geometry.resolve_convolution(
        x.shape, shape, stride, padding, dilation, groups
    )
    _check_gradient(gradient, x.shape, shape, static)
    gradient = gradient.astype(x.dtype)
    if x.ndim == 4:
        return convolution_rules.kernel_gradient(x, gradient, shape, *static)
    lifted = convolution_rules.kernel_gradient(
        x[:, None], gradient[:, None], (1, *shape), *geometry.lift(static)
    )
    return lifted[0]


def _check_gradient(
    gradient: jax.Array, shape: tuple, kernel_shape: tuple, static: tuple
) -> None:
    expected = geometry.convolution_shape(shape, kernel_shape, static)
    if gradient.shape != expected:
        raise ValueError(
            f"gradient {list(gradient.shape)}: x {list(shape)} and kernel "
            f"{list(kernel_shape)} give an output of {list(expected)}"
        )
