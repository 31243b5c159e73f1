"""How long a run trains, on what batches, and what it minimises."""

import dataclasses
from typing import ClassVar

from cnn.models.options import NORMALISED
from cnn.option import free_option, option, strength


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """How long a run trains, and on what it selects."""

    modes: ClassVar[str] = "train sweep describe"

    epochs: int = option(
        10,
        "passes over the training set",
        kind="traced",
        within="[1, 1000000]",
        only_for="not minutes or mode=sweep",
    )
    minutes: float = option(
        0.0,
        "in place of --epochs: minutes from the command's start to its end; before the "
        "first step a rehearsal of some makes them whole epochs, which are kept in "
        "config.json; of a sweep: in place of --trials, which its first draws decide; "
        "0: none",
        within="[0, 1000000]",
        only_for="mode!=sweep or search=points and not halving",
        modes="train sweep",
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
        within="[1, epochs]",
        only_for="mode!=sweep or early_stop_epochs or schedule=plateau",
    )
    early_stop_epochs: int = option(
        0,
        "epochs without a better validation metric after which training stops; 0 "
        "never stops",
        within="[0, epochs)",
    )
    blame_above: float = free_option(
        0.0,
        "times its running mean over about the last 50 steps above which a step's loss "
        "stops training, and the step is replayed, as one that is not finite is; 0: "
        "never",
        within="[0, inf)",
        modes="train",
    )
    select_by: str = option(
        "auto",
        "validation metric of the best checkpoint, of early stopping and of "
        "schedule=plateau; of several labels an image mean_average_precision, f1 (at a "
        "probability of 0.5) or loss; auto: accuracy, or mean_average_precision",
        choices=(
            "auto",
            "accuracy",
            "balanced_accuracy",
            "loss",
            "mean_average_precision",
            "f1",
        ),
        only_for="validation_fraction or validation_split or "
        "dataset=folder:*|csv:*|npz:*",
    )
    recompute_statistics: int = option(
        0,
        "training batches over which, after training or averaging, the running "
        "statistics of batch normalisation are computed again for the weights that are "
        "evaluated, as exact means; 0: they stay the moving averages of training",
        within="[0, steps]",
        only_for=f"mode=average or {NORMALISED}",
        modes="train sweep describe average",
    )


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step computes its gradient."""

    modes: ClassVar[str] = "train sweep describe"

    batch_size: int = option(
        128,
        "examples that one update of the weights sees",
        within="[1, 16777216]",
        only_for="mode!=predict or not predict_batch_size",
        modes="train sweep describe convert evaluate predict",
    )
    sampling: str = option(
        "uniform",
        "what an epoch sees: uniform: each training image at most once; balanced: as "
        "many draws with replacement, by which every class is equally probable; sqrt: "
        "likewise, a class in proportion to the root of its images. An image of "
        "several labels is drawn as one of its rarest",
        choices=("uniform", "balanced", "sqrt"),
    )
    repeats_in_batch: int = option(
        1,
        "repeated augmentation: times that an image stands in its batch, each time "
        "varied differently; an epoch has its number of steps and the fewer images",
        within="[1, 64]",
    )
    accumulate_steps: int = option(
        1,
        "pieces in which a batch's gradient is computed, one after the other, to save "
        "memory; the update stays that of the whole batch",
        within="[1, 65536]",
    )
    log_noise_scale: bool = option(
        False,
        "estimate the gradient noise scale from the pieces of --accumulate_steps: the "
        "batch size in images above which larger batches pay less and less; printed "
        "and written to metrics.jsonl each epoch",
        only_for="accumulate_steps!=1",
        modes="train describe",
    )
    track_examples: bool = option(
        False,
        "keep loss, margin, first right answer and forgettings of each training image, "
        "and write them to examples.csv at the end, the image whose label is most "
        "probably wrong first. Images that are mixed have no label of their own",
        only_for="not mixup_alpha and not cutmix_alpha",
        modes="train describe",
    )


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """What training minimises."""

    modes: ClassVar[str] = "train sweep describe"

    loss: str = option(
        "auto",
        "auto: softmax, or bce of several labels an image; softmax: cross-entropy of "
        "one class among all; bce: binary cross-entropy of each class; focal: bce in "
        "which terms weigh less the better they are predicted; mse: squared distance "
        "of the logits from the targets",
        choices=(
            "auto",
            "softmax",
            "bce",
            "focal",
            "mse",
        ),
        modes="train sweep describe convert",
    )
    loss_reduction: str = option(
        "mean",
        "what an example's loss is of those of its classes: their mean or their sum, "
        "in evaluation too; the gradient of the sum is as many times larger as there "
        "are classes",
        choices=("mean", "sum"),
        only_for="loss=bce|focal|mse",
        modes="train sweep describe convert",
    )
    bce_threshold: float = strength(
        "in training, targets above it become 1 and all others 0, after smoothing and "
        "mixing: an example mixed of two classes is both",
        "[0, 1)",
        only_for="loss=bce",
    )
    focal_gamma: float = strength(
        "in training, power of 1 - probability of what is there by which a class's "
        "term is multiplied",
        "[0, 10]",
        default=2.0,
        only_for="loss=focal",
    )
    focal_alpha: float = strength(
        "in training, weight of terms of classes that are there, 1 - it of those that "
        "are not; 0: both weigh 1",
        "[0, 1)",
        only_for="loss=focal",
    )
    label_smoothing: float = strength(
        "share s of the target spread evenly over all classes; of several labels an "
        "image each class's target t becomes (1 - s) · t + s / 2",
        "[0, 1)",
    )
    class_weights: str = option(
        "none",
        "weight of each class in the loss: none, or balanced: labels / (classes · "
        "labels of the class), so that every class counts the same; it multiplies the "
        "class's term, that of smoothed and mixed parts too, as in PyTorch; auto: "
        "balanced where a class has more than twice as many as another, else none",
        choices=("none", "balanced", "auto"),
    )


@dataclasses.dataclass(frozen=True)
class DistillationOptions:
    """Whom training learns from besides the labels."""

    modes: ClassVar[str] = "train sweep describe"

    teacher: str = option(
        "",
        "trained model that the run learns from too: a run's directory, one of its "
        "checkpoints DIR/checkpoints/STEP, or any weights that --init_from takes; it "
        "sees the same varied images and does not change; empty: none",
        is_path=True,
    )
    teacher_model: str = option(
        "",
        "architecture of a --teacher that is a file of weights, a name of --model; a "
        "run knows its own",
        only_for="teacher",
    )
    teacher_mean: tuple[float, ...] = option(
        (),
        "what a --teacher that is a file of weights was trained with as --mean, of "
        "[0, 1] images; empty: as it says itself, or as its model was published",
        only_for="teacher",
    )
    teacher_std: tuple[float, ...] = option(
        (),
        "likewise as --std",
        within="(0, inf)",
        only_for="teacher",
    )
    distillation: str = option(
        "soft",
        "what is learnt from --teacher: soft, its probabilities: T² · KL(teacher || "
        "student), both at the temperature T; hard, its most probable class: "
        "cross-entropy",
        choices=("soft", "hard"),
        only_for="teacher",
    )
    distillation_temperature: float = option(
        1.0,
        "temperature T: what both models' logits are divided by",
        kind="traced",
        within="[0.001, 1000000]",
        only_for="distillation=soft",
    )
    distillation_share: float = option(
        0.5,
        "share s of distillation in the loss: (1 - s) · --loss of the labels + s · "
        "--distillation",
        kind="traced",
        within="[0, 1]",
        only_for="teacher",
    )
