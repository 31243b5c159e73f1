"""Batch normalisation of a single value in each channel is refused.

Its result is its bias, whatever it sees: nothing before it learns. That is so of one
image, or one in a piece of its batch, where a layer has a single place.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from cnn.config import Config
from cnn.errors import UserError
from cnn.models import summary
from cnn.optim.freezing import Phase
from cnn.training.steps import Structure

Shape = tuple[int, int, int]


def check(
    config: Config,
    structure: Structure,
    layers: Sequence[Mapping[str, Any]],
    phases: Sequence[Phase | None],
    image_shape: Shape,
) -> None:
    """Refuse batches, or pieces of them, that some layer sees a single value of.

    Args:
        layers: of `summary.describe_model` on images of that shape.
        phases: of the run's plan.
        image_shape: (H, W, C) of training images of the largest size.

    Raises:
        UserError: naming the layer, `--batch_size` and what else to change.
    """
    options, model = config.step, structure.model
    images = options.batch_size * config.augment.augment_repeats
    in_piece, channels = images // options.accumulate_steps, image_shape[2]
    if in_piece < 2:
        size = min(size for _, size in config.data.sizes)
        if 0 < size < image_shape[0]:
            shape = size, size, channels
            layers = summary.describe_model(model, shape)["layers"]
        _check_layers(config, layers, phases)
    if images < 2 and config.train.recompute_statistics:
        size = config.data.for_evaluation().image_size or image_shape[0]
        shape = size, size, channels
        _check_layers(config, summary.describe_model(model, shape)["layers"], phases)


def _check_layers(
    config: Config, layers: Sequence[Mapping[str, Any]], phases: Sequence[Phase | None]
) -> None:
    """Refuse layers that normalise one image by its own statistics at one place."""
    for layer in layers:
        height_width = layer["output_shape"][:-1]
        if layer["type"] != "BatchNorm" or any(side > 1 for side in height_width):
            continue
        if all(phase and layer["path"] not in phase.moving for phase in phases):
            continue
        pieces = config.step.accumulate_steps
        of = f" in {pieces} pieces (--accumulate_steps)" if pieces > 1 else ""
        raise UserError(
            f"--batch_size={config.step.batch_size}{of} gives batch normalisation a "
            f"single value of each channel in {layer['path']}, and it would learn "
            "nothing; give a larger batch or fewer pieces, larger images, or "
            "--freeze_statistics"
        )
