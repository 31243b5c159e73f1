"""A model's weights as images.

Kernels are float32 [S, S, C / groups, O] as the model has them, or [O, H, W, C] as
images; in what is scaled for showing, 0 is black, 1 white and a weight of 0 is 0.5.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def list_kernels(
    model: nn.Module, variables: Any, image_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """List a model's convolution kernels by path, in the order of execution.

    Args:
        model: maps float32 [N, H, W, C] to logits.
        variables: `params` and `batch_stats`.
        image_shape: (H, W, C).

    Returns:
        [S, S, C / groups, O] for each.
    """
    found: dict[str, np.ndarray] = {}

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and module.has_variable(
            "params", "kernel"
        ):
            kernel = module.get_variable("params", "kernel")
            if kernel.ndim == 4:
                found["/".join(module.path) or "kernel"] = np.asarray(kernel)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
        jax.eval_shape(lambda images: model.apply(variables, images), images)
    return found


def find_pixel_weights(
    params: Any, image_shape: tuple[int, int, int]
) -> dict[str, np.ndarray]:
    """Find the weights that a model has for each pixel of the whole image.

    Args:
        params: the model's; those of the first dense layer over all pixels (`head`
            of logistic regression, `dense1` of an mlp), or a kernel as large as the
            image (the sliding regression's).
        image_shape: (H, W, C).

    Returns:
        By the layer's name, one image a class or unit, [O, H, W, C]; empty for a
        model that has no such weights.
    """
    height, width, channels = image_shape
    kernel = params.get("kernel")
    if kernel is not None and kernel.shape[:3] == image_shape:
        return {"kernel": as_images(kernel)}
    layers = params.values()
    if all(getattr(x, "keys", dict)() == {"kernel", "bias"} for x in layers):
        name = "dense1" if "dense1" in params else "head"
        kernel = np.asarray(params[name]["kernel"])
        if kernel.ndim == 2:
            return {name: as_images(kernel.reshape(height, width, channels, -1))}
    return {}


def as_images(kernel: np.ndarray) -> np.ndarray:
    """Bring a kernel [S, S, C, O] to images [O, S, S, C]."""
    return np.moveaxis(np.asarray(kernel, np.float32), -1, 0)


def sort_by_size(images: np.ndarray) -> np.ndarray:
    """Return the order of kernels [O, H, W, C] by their norm, largest first: [O]."""
    return np.argsort(-_compute_norms(images), kind="stable")


def find_negligible(images: np.ndarray) -> np.ndarray:
    """Find the kernels [O, H, W, C] that weight decay has left nearly nothing of.

    Returns:
        bool [O], whether the norm is below 2 % of the largest; in the converted
        ResNet-20 of CIFAR-10 such kernels stay below 1.2 %, the others above 3 %.
    """
    norms = _compute_norms(images)
    return norms < 0.02 * norms.max()


def scale_each(images: np.ndarray) -> np.ndarray:
    """Scale each kernel to -1..1 by its own greatest weight: [O, H, W, C].

    Negligible ones become 0: blown up they would look like the others.
    """
    most = np.max(np.abs(images), axis=(1, 2, 3), keepdims=True)
    scaled = images / np.maximum(most, np.finfo(np.float32).tiny)
    return np.where(find_negligible(images)[:, None, None, None], 0, scaled)


def shift_right(images: np.ndarray, pixels: int) -> np.ndarray:
    """Move images to the right; what comes in from the left is black.

    Args:
        pixels: by how many, at least 0.
    """
    width = images.shape[2]
    padded = np.pad(images, ((0, 0), (0, 0), (pixels, 0), (0, 0)))
    return padded[:, :, :width]


def _compute_norms(images: np.ndarray) -> np.ndarray:
    return np.sqrt(np.sum(np.square(images), axis=(1, 2, 3)))
