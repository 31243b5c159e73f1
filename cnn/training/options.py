"""How long a run trains, on what batches, and what it minimises."""

import dataclasses
from typing import ClassVar

from cnn.option import option, strength


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How long a run trains, and on what it selects."""

    modes: ClassVar[str] = "train sweep describe"

    epochs: int = option(
        10, "passes over the training set", kind="traced", within="[1, 1000000]"
    )
    seed: int = option(
        0,
        "what initial weights, order and dropout are drawn from",
        kind="traced",
        within="[0, 2147483647]",
    )
    eval_every_epochs: int = option(
        1,
        "epochs between evaluations",
        within="[1, inf)",
        only_for="mode!=sweep or early_stop_epochs",
    )
    early_stop_epochs: int = option(
        0,
        "epochs without a better validation metric after which training stops; 0 "
        "never stops",
        within="[0, inf)",
    )
    select_by: str = option(
        "accuracy",
        "validation metric of the best checkpoint and of early stopping",
        choices=("accuracy", "balanced_accuracy", "loss"),
        only_for="validation_fraction or validation_split or "
        "dataset=folder:*|csv:*|npz:*",
    )


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step computes its gradient."""

    modes: ClassVar[str] = "train sweep describe"

    batch_size: int = option(
        128,
        "examples that one update of the weights sees",
        within="[1, inf)",
        only_for="mode!=predict or not predict_batch_size",
        modes="train sweep describe convert evaluate predict",
    )
    accumulate_steps: int = option(
        1,
        "pieces in which a batch's gradient is computed, one after the other, to save "
        "memory; the update stays that of the whole batch",
        within="[1, inf)",
    )


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """What training minimises."""

    modes: ClassVar[str] = "train sweep describe"

    loss: str = option(
        "softmax",
        "softmax: cross-entropy of one class among all; bce: binary cross-entropy of "
        "each class, mean over classes",
        choices=(
            "softmax",
            "bce",
        ),
        modes="train sweep describe convert",
    )
    label_smoothing: float = strength(
        "share of the target spread evenly over all classes", "[0, 1)"
    )
    class_weights: str = option(
        "none",
        "weight of each class in the loss: none, or balanced: examples / (classes · "
        "examples of the class), so that every class counts the same; with label "
        "smoothing it weighs the smoothed part too, as in PyTorch",
        choices=("none", "balanced"),
    )
