"""Which library computes on CPU: XLA's own, or oneDNN where that pays.

For evaluation it is chosen by the model and the images alone, so that a run and
`--mode=evaluate` compute the same bits.
"""

import dataclasses
import math
from typing import Any

from jax.sharding import Mesh

from cnn.models import summary
from cnn.ops import convolution
from cnn.runtime import xla
from cnn.training.steps import Structure


def choose_compiler_options(
    structure: Structure, mesh: Mesh, image_shape: tuple[int, int, int], count: int
) -> tuple[tuple[str, Any], ...]:
    """Choose the options with which a program that evaluates images is compiled.

    Args:
        image_shape: (H, W, C) of the images as they are stored.
        count: of the images.

    Returns:
        As `xla.choose_compiler_options`: oneDNN's where it can be and so many images
        outweigh compilation, unless the run has `--cpu_kernels=xla`.
    """
    is_possible = xla.choose_compiler_options("auto", mesh, math.inf)
    if not is_possible or structure.takes_features or structure.cpu_kernels == "xla":
        return ()
    size = structure.image_size
    shape = (size, size, image_shape[2]) if size else image_shape
    macs = count * summary.describe_model(structure.model, shape)["macs"]
    return xla.choose_compiler_options("auto", mesh, macs)


def adapt(structure: Structure, compiler_options: tuple) -> Structure:
    """Return a structure whose convolutions suit the library of a program.

    Args:
        compiler_options: of `xla.choose_compiler_options`.
    """
    if not compiler_options or structure.takes_features:
        return structure
    layers = getattr(structure.model, "layers", None)  # a user's model may have none
    if layers is None or layers.formulation != "auto":
        return structure
    layers = dataclasses.replace(layers, formulation=convolution.ONEDNN)
    model = structure.model.clone(layers=layers)
    return dataclasses.replace(structure, model=model)
