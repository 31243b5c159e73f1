"""What a model makes of an image, stage by stage.

`function` maps scaled images float32 [N, H, W, C] to (logits [N, K], features by
stage) and is a `jax.tree_util.Partial`, as `named_run.NamedRun.function` is. Where its
`func` has `compiler_options`, items for `jax.jit`, logits are compiled with them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.visualize.compute import receptive_field, tracing
from cnn.visualize.compute.receptive_field import Field

# On CPU a ResNet-20 takes 0.64 ms an image in batches of 64, 0.79 ms in those of 250.
_LEAST, _MOST, _BATCH_PIXELS = 4, 250, 64 * 32 * 32
# Its gradient takes 1.51 ms an image in batches of 32, 1.76 ms in those of 64.
_GRADIENT_PIXELS = _BATCH_PIXELS // 2


@dataclasses.dataclass(frozen=True)
class Stage:
    """The features that a model has at one place.

    Attributes:
        name: as the model names them.
        shape: (H, W, channels), or (units,) after a dense layer.
        field: which pixels each value is computed of.
        is_thresholded: whether they are what a ReLU lets through.
    """

    name: str
    shape: tuple[int, ...]
    field: Field
    is_thresholded: bool

    @property
    def is_map(self) -> bool:
        """Return whether the features have places in the image."""
        return len(self.shape) == 3

    def describe(self) -> str:
        """Say the size of the features and of their receptive field."""
        if not self.is_map:
            return f"{self.name}: {self.shape[0]} units, each sees the whole image"
        height, width, channels = self.shape
        shape = f"{self.name}: {height}×{width}, {channels} channels"
        return f"{shape}; each value sees {self.field.describe()}"


def list_stages(function: Any, image_shape: tuple[int, int, int]) -> tuple[Stage, ...]:
    """List a model's stages in the order of computation; nothing is computed."""
    # Two images, so that the axis of images is not taken for an axis of length one.
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    order: list[str] = []

    def compute(images: jax.Array) -> dict[str, jax.Array]:
        features = function(images)[1]
        order[:] = list(features)
        return features

    shapes = jax.eval_shape(compute, images)
    fields = receptive_field.compute_fields(compute, images)
    thresholded = tracing.find_thresholded(function, images)
    return tuple(
        Stage(name, tuple(shapes[name].shape[1:]), fields[name], name in thresholded)
        for name in order
    )


@jax.jit
def compute_responses(function: Any, images: jax.Array) -> dict[str, jax.Array]:
    """Compute the features of images, before the ReLU where a stage ends in one.

    Returns:
        [N, h, w, channels] by stage; negative values are those that a ReLU stops.
    """
    return tracing.expose(function)(images)[1]


def compute_logits(function: Any, images: jax.Array) -> jax.Array:
    """Compute the logits of images, float32 [N, K]."""
    options = getattr(function.func, "compiler_options", ())
    return compile_with(_compute_logits, options)(function, images)


def _compute_logits(function: Any, images: jax.Array) -> jax.Array:
    return function(images)[0]


@functools.cache
def compile_with(
    compute: Callable[..., Any], options: tuple[tuple[str, Any], ...]
) -> Any:
    """Return a function that is compiled with these options when it is called.

    Args:
        compute: of arrays, pure.
        options: items for `jax.jit`'s `compiler_options`; empty for its own.
    """
    return jax.jit(compute, compiler_options=dict(options) or None)


def choose_batch_size(pixels: int, is_gradient: bool = False) -> int:
    """Return how many images of so many pixels, height times width, are a batch.

    Args:
        pixels: of an image.
        is_gradient: whether gradients are computed of them.
    """
    pixels_at_once = _GRADIENT_PIXELS if is_gradient else _BATCH_PIXELS
    return min(_MOST, max(_LEAST, pixels_at_once // pixels))


def map_batches(
    function: Callable[..., Any],
    *arrays: np.ndarray,
    pixels: int,
    is_gradient: bool = False,
) -> Any:
    """Apply a function to arrays batch by batch, with one shape for all batches.

    The shape is that of a whole batch however few they are, so that all calls share one
    compiled program; what is missing is filled with copies of the last.

    Args:
        function: of arrays [n, …], compiled; returns a tree of arrays [n, …].
        *arrays: [N, …], N at least 1.
        pixels: height times width of the images that it computes of, which bounds
            the batch.
        is_gradient: whether it computes gradients of them, in smaller batches.

    Returns:
        The tree of arrays [N, …], in numpy.
    """
    total = len(arrays[0])
    size = choose_batch_size(pixels, is_gradient)
    results = []
    for start in range(0, total, size):
        batch = [np.asarray(array[start : start + size]) for array in arrays]
        missing = size - len(batch[0])
        padded = [
            np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) for x in batch
        ]
        result = function(*(jnp.asarray(x) for x in padded))
        results.append(jax.tree.map(np.asarray, result))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:total], *results)
