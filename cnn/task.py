"""The static part of training and evaluation steps, and what they pass around."""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

import flax.linen as nn
import jax

from cnn import augment, averaging, devices, losses, models, optimizer
from cnn.augment import AugmentOptions
from cnn.data.images import Dataset
from cnn.data.statistics import compute_scaling
from cnn.errors import UserError
from cnn.optimizer import OptimizerOptions
from cnn.transfer.freezing import Phase
from cnn.transfer.rates import Rates

if TYPE_CHECKING:
    from cnn.config import Config

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """What a step is made of besides its numbers; nothing here changes in a run.

    Attributes:
        model: maps float32 images to logits [N, num_classes].
        num_classes: K.
        mean: what is subtracted from each channel of [0, 1] images.
        std: what each channel is then divided by.
        image_size: height and width in pixels of what the model sees, cut from stored
            images: in training at a random place, in evaluation from the centre; 0
            takes them whole.
        steps_per_epoch: the length of an epoch.
        class_weights: K weights of the loss; empty when all are 1.
        optimizer: the structure of the update.
        accumulate_steps: pieces a batch is computed in.
        remat: whether the backward pass computes the model's blocks again.
        augment: the structure of augmentation.
        phase: which leaves train; None: all.
        rates: each parameter's place among the learning rates by layer.
        takes_features: whether a training batch's `images` are what the model takes,
            neither to be varied nor scaled.
    """

    model: nn.Module
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int = 0
    steps_per_epoch: int = 1
    class_weights: tuple[float, ...] = ()
    optimizer: OptimizerOptions = OptimizerOptions()
    accumulate_steps: int = 1
    remat: bool = False
    augment: AugmentOptions = AugmentOptions()
    phase: Phase | None = None
    rates: Rates = ()
    takes_features: bool = False


def make_task(
    config: "Config",
    dataset: Dataset,
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Task:
    """Make the static part of a run's steps.

    Args:
        config: every option.
        dataset: the images.
        pixels: mean and std of each channel; None: as the options say.

    Raises:
        UserError: the batch is larger than the training set, does not divide into
            `accumulate_steps`, or early stopping has no validation set.
    """
    _check_fits(config, dataset)
    static, data = config.make_static(), config.data
    num_classes = len(dataset.class_names)
    mean, std = pixels or compute_scaling(
        data.scaling, data.mean, data.std, dataset.train
    )
    return Task(
        model=models.create_model(
            static.model, num_classes, devices.get_dtype(config.device)
        ),
        num_classes=num_classes,
        mean=mean,
        std=std,
        image_size=data.image_size,
        steps_per_epoch=len(dataset.train) // config.step.batch_size,
        class_weights=losses.compute_class_weights(
            config.loss, dataset.train.labels, num_classes
        ),
        optimizer=static.optimizer,
        accumulate_steps=config.step.accumulate_steps,
        remat=config.model.remat == "blocks",
        augment=static.augment,
    )


def _check_fits(config: "Config", dataset: Dataset) -> None:
    """Refuse options that do not go with the images or with each other."""
    batch_size, pieces = config.step.batch_size, config.step.accumulate_steps
    if len(dataset.train) < batch_size:
        raise UserError(
            f"--batch_size={batch_size} is larger than the training set of "
            f"{len(dataset.train)} images; give a smaller one"
        )
    check_pieces(batch_size, pieces)
    if config.train.early_stop_epochs and dataset.validation is None:
        raise UserError(
            "--early_stop_epochs selects on validation data and there is none; carve "
            "it out of train with --validation_fraction=0.1"
        )
    optimizer.check(config.optimizer)
    averaging.check(config.averaging)
    augment.check(config.augment, dataset.train.shape, config.data.image_size)


def check_pieces(batch_size: int, pieces: int) -> None:
    """Refuse a batch that does not divide into pieces of one size.

    Raises:
        UserError: naming both flags.
    """
    if batch_size % pieces:
        raise UserError(
            f"--accumulate_steps={pieces} does not divide --batch_size={batch_size}"
        )
