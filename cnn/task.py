"""The static part of training and evaluation steps, and what they pass around."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax

from cnn.augment import AugmentOptions
from cnn.optimizer import OptimizerOptions
from cnn.transfer.freezing import Phase
from cnn.transfer.rates import Rates

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
    augment: AugmentOptions = AugmentOptions()
    phase: Phase | None = None
    rates: Rates = ()
    takes_features: bool = False
