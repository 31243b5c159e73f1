"""How parameters follow their gradients: update rule, schedule, freezing, averages."""

import dataclasses
from typing import ClassVar

from cnn.models.options import NORMALISED, WIDENED
from cnn.option import option, strength

_ADAMS = "adam|adamw|nadam|nadamw|adamax|adabelief|lamb"


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How parameters follow their gradients."""

    modes: ClassVar[str] = "train sweep describe"

    optimizer: str = option(
        "sgd",
        "update rule; rmsprop_tf is TensorFlow's, nadamw timm's; muon has adamw for "
        "vectors, muon_sgd sgd for all but the kernels of convolutions",
        choices=(
            "sgd",
            "adam",
            "adamw",
            "nadam",
            "nadamw",
            "adamax",
            "adabelief",
            "lion",
            "adagrad",
            "rmsprop",
            "rmsprop_tf",
            "lamb",
            "lars",
            "muon",
            "muon_sgd",
        ),
    )
    learning_rate: float = option(
        0.1, "peak learning rate", kind="traced", within="[0, inf)"
    )
    decoupled_rates: bool = option(
        False,
        "sgd and muon_sgd: learning_rate and weight_decay are per 1024 examples and "
        "over 1 + 1 / (1 - momentum), and the decay does not depend on the rate: each "
        "can be tuned alone",
        only_for="optimizer=sgd|muon_sgd",
    )
    muon_learning_rate: float = option(
        0.24,
        "muon_sgd: peak length of the orthogonal step of a convolution's kernel, "
        "which is kept at the norm sqrt(outputs)",
        kind="traced",
        within="[0, inf)",
        only_for="optimizer=muon_sgd",
    )
    muon_momentum: float = option(
        0.6,
        "muon_sgd: momentum of those kernels",
        kind="traced",
        within="[0, 1)",
        only_for="optimizer=muon_sgd",
    )
    momentum: float = option(
        0.9,
        "momentum of sgd, rmsprop, rmsprop_tf, lars and muon, and of muon_sgd's sgd",
        kind="traced_unless_zero",
        within="[0, 1)",
        only_for="optimizer=sgd|rmsprop|rmsprop_tf|lars|muon|muon_sgd",
    )
    nesterov: bool = option(
        True,
        "Nesterov's form of sgd's, lars's and muon's momentum",
        only_for="momentum and optimizer=sgd|lars|muon or optimizer=muon_sgd",
    )
    adam_beta1: float = option(
        0.9,
        "decay of the first moment of the rules with adam in their names, adabelief, "
        "lamb and muon's vectors; lion's share of its momentum in a step",
        kind="traced",
        within="[0, 1)",
        only_for=f"optimizer={_ADAMS}|lion|muon",
    )
    adam_beta2: float = option(
        0.999,
        "decay of the second moment of the rules with adam in their names, adabelief, "
        "lamb and muon's vectors; of lion's momentum, whose authors have 0.99",
        kind="traced",
        within="[0, 1)",
        only_for=f"optimizer={_ADAMS}|lion|muon",
    )
    rmsprop_decay: float = option(
        0.99,
        "decay of rmsprop's and rmsprop_tf's second moment",
        kind="traced",
        within="[0, 1)",
        only_for="optimizer=rmsprop|rmsprop_tf",
    )
    epsilon: float = option(
        1e-8,
        "added to what the step is divided by; in rmsprop_tf inside the root, in "
        "adabelief inside and outside; in muon for vectors",
        kind="traced",
        within="(0, inf)",
        only_for=f"optimizer={_ADAMS}|adagrad|rmsprop|rmsprop_tf|lars|muon",
    )
    trust_coefficient: float = option(
        0.001,
        "lars: length of a parameter's step before its learning rate, as a share of "
        "the parameter's norm",
        kind="traced",
        within="(0, inf)",
        only_for="optimizer=lars",
    )
    weight_decay: float = strength(
        "weight decay: decoupled and times the learning rate in adamw, nadamw, "
        "adabelief, lion, lamb and muon, added to the gradient in the others",
        "[0, inf)",
    )
    decay_norms: bool = option(
        True,
        "decay biases and normalisation scales too, not kernels alone; lamb and lars "
        "scale the steps by layer of what they decay",
        only_for="weight_decay or optimizer=lamb|lars",
    )
    clip_norm: float = strength(
        "largest global norm of the gradient; larger ones are scaled down to it",
        "[0, inf)",
    )
    clip_value: float = strength(
        "largest absolute value of each number of the gradient", "[0, inf)"
    )
    clip_adaptive: float = strength(
        "adaptive gradient clipping: largest norm of the gradient of each output's "
        "weights, as a share of their own norm; the head's is not clipped",
        "[0, inf)",
    )
    sam_rho: float = strength(
        "sharpness-aware minimisation: distance from the weights at which the gradient "
        "is taken, uphill; each step computes two gradients",
        "[0, inf)",
    )
    sam: str = option(
        "sam",
        "how that distance is measured: sam in the weights, asam in shares of the size "
        "of each (ASAM; its rho is about ten times as large)",
        choices=("sam", "asam"),
        only_for="sam_rho",
    )
    parametrization: str = option(
        "standard",
        "how initial weights and the rates of layers follow the width: standard (each "
        "layer as its own size has it) or mup (the best learning rate stays near the "
        "one of --mup_base_width; docs/tuning_small.md)",
        choices=("standard", "mup"),
        only_for=WIDENED,
    )
    mup_base_width: float = option(
        1.0,
        "the --width_multiplier at which mup is the standard parametrization",
        within="(0, 1024]",
        only_for="parametrization=mup",
    )


@dataclasses.dataclass(frozen=True)
class ScheduleOptions:
    """How the learning rate changes over the run."""

    modes: ClassVar[str] = "train sweep describe"

    schedule: str = option(
        "cosine",
        "learning rate over the run: constant, cosine, linear and polynomial (all "
        "three to final_rate_factor), step (times milestone_factor at each milestone), "
        "exponential (times exponential_factor each epoch), cosine_restarts (cosine "
        "again and again), one_cycle (up and down along cosines), triangle (up and "
        "down along lines), plateau (times plateau_factor when the validation metric "
        "of --select_by no longer gets better), stable_then_decay (constant, then down "
        "over the last decay_share of the run, which --extend can make longer)",
        choices=(
            "constant",
            "cosine",
            "linear",
            "step",
            "polynomial",
            "exponential",
            "cosine_restarts",
            "one_cycle",
            "triangle",
            "plateau",
            "stable_then_decay",
        ),
    )
    rate_every: str = option(
        "step",
        "when the rate changes: at every step, or at every epoch's first step, as if "
        "an epoch were one step of the schedule",
        choices=("step", "epoch"),
    )
    final_rate_factor: float = strength(
        "share of the peak rate that the schedule falls to at the end of the run, or "
        "before each restart",
        "[0, 1]",
        only_for="schedule=cosine|linear|polynomial|cosine_restarts|stable_then_decay",
    )
    decay_share: float = option(
        0.2,
        "share of the steps, the last ones, over which stable_then_decay lowers the "
        "rate",
        kind="traced",
        within="(0, 1)",
        only_for="schedule=stable_then_decay",
    )
    decay_power: float = option(
        0.5,
        "power of the share of those steps that is past, which is taken off the rate; "
        "0.5: by its root, 1: along a line",
        kind="traced",
        within="(0, 1000]",
        only_for="schedule=stable_then_decay",
    )
    polynomial_power: float = option(
        1.0,
        "power of the share of the run that is left, for schedule=polynomial",
        kind="traced",
        within="(0, 1000]",
        only_for="schedule=polynomial",
    )
    exponential_factor: float = option(
        0.97,
        "what schedule=exponential multiplies the rate by over an epoch",
        kind="traced",
        within="(0, 1]",
        only_for="schedule=exponential",
    )
    restart_epochs: float = option(
        10.0,
        "epochs of the first period of schedule=cosine_restarts",
        kind="traced",
        within="(0, schedule)",
        only_for="schedule=cosine_restarts",
    )
    restart_factor: int = option(
        1,
        "how many times as long as the one before each further period is",
        kind="traced",
        within="[1, 1000]",
        only_for="schedule=cosine_restarts",
    )
    one_cycle_start: float = option(
        0.04,
        "share of the peak rate that one_cycle starts at",
        kind="traced",
        within="[0, 1]",
        only_for="schedule=one_cycle",
    )
    one_cycle_peak: float = option(
        0.3,
        "share of the run after which it is at its peak",
        kind="traced",
        within="(0, 1)",
        only_for="schedule=one_cycle",
    )
    one_cycle_end: float = option(
        4e-6,
        "share of the peak rate that it ends at",
        kind="traced",
        within="[0, 1]",
        only_for="schedule=one_cycle",
    )
    one_cycle_momentum: float = strength(
        "what one_cycle lowers --momentum or --adam_beta1 to while the rate rises, "
        "and raises it from while the rate falls; 0: it stays",
        "[0, 1)",
        default=0.85,
        only_for="schedule=one_cycle and momentum or schedule=one_cycle and adam_beta1",
    )
    triangle_start: float = option(
        0.2,
        "factor that triangle starts at",
        kind="traced",
        within="[0, 1]",
        only_for="schedule=triangle",
    )
    triangle_peak: float = option(
        0.23,
        "share of the run after which it is 1",
        kind="traced",
        within="(0, 1)",
        only_for="schedule=triangle",
    )
    triangle_end: float = option(
        0.07,
        "factor that it ends at",
        kind="traced",
        within="[0, 1]",
        only_for="schedule=triangle",
    )
    warmup_epochs: float = strength(
        "epochs over which the rate rises at first, as --warmup_kind says",
        "[0, epochs]",
        only_for="schedule!=one_cycle",
    )
    warmup_kind: str = option(
        "product",
        "product: linear, times the schedule; before: linear, then the schedule over "
        "the rest of the run, whose epochs count from there; instead: linear in place "
        "of the schedule's first epochs; constant: the start factor, then as before",
        choices=("product", "before", "instead", "constant"),
        only_for="warmup_epochs",
    )
    warmup_start_factor: float = strength(
        "share of the peak rate that warm-up starts at",
        "[0, 1]",
        only_for="warmup_epochs",
    )
    milestones: tuple[float, ...] = option(
        (60.0, 120.0, 160.0),
        "epochs at which schedule=step lowers the rate",
        kind="traced",
        within="[0, schedule)",
        only_for="schedule=step and not step_every_epochs",
    )
    step_every_epochs: float = strength(
        "epochs between two steps of schedule=step, in place of the milestones",
        "[0, schedule)",
        only_for="schedule=step",
    )
    milestone_factor: float = option(
        0.1,
        "what schedule=step multiplies the rate by at each milestone",
        kind="traced",
        within="(0, 1]",
        only_for="schedule=step",
    )
    plateau_factor: float = option(
        0.1,
        "what schedule=plateau multiplies the rate by",
        kind="traced",
        within="(0, 1)",
        only_for="schedule=plateau",
    )
    plateau_patience: int = option(
        10,
        "evaluations without a better validation metric that it lets pass",
        kind="traced",
        within="[0, evaluations)",
        only_for="schedule=plateau",
    )
    plateau_threshold: float = option(
        1e-4,
        "share of the best metric by which a better one must differ from it",
        kind="traced",
        within="[0, 1)",
        only_for="schedule=plateau",
    )
    plateau_cooldown: int = option(
        0,
        "evaluations after each lowering that do not count as without a better one",
        kind="traced",
        within="[0, evaluations)",
        only_for="schedule=plateau",
    )
    plateau_floor: float = option(
        0.0,
        "share of the peak rate below which it does not go",
        kind="traced",
        within="[0, 1]",
        only_for="schedule=plateau",
    )
    rate_scaling: str = option(
        "none",
        "linear: the peak rate is learning_rate times batch_size / rate_scaling_base; "
        "sqrt: times the root of that",
        choices=("none", "linear", "sqrt"),
        only_for="not decoupled_rates",
    )
    rate_scaling_base: float = option(
        256.0,
        "batch size, in examples, whose rate --learning_rate is",
        kind="traced",
        within="(0, inf)",
        only_for="rate_scaling",
    )


@dataclasses.dataclass(frozen=True)
class FreezingOptions:
    """Which parameters train, when, and at which rates."""

    modes: ClassVar[str] = "train sweep describe"

    freeze: tuple[str, ...] = option((), "patterns of paths that stay as they are")
    freeze_through: str = option(
        "", "stage such as stage2 that stays as it is, with everything before it"
    )
    train_only: tuple[str, ...] = option(
        (), "patterns of the only paths that train; all others stay as they are"
    )
    unfreeze: tuple[str, ...] = option(
        (),
        "pattern:epoch: frozen paths that train from that epoch on (counted from 0)",
        only_for="train_only or freeze or freeze_through",
    )
    freeze_statistics: bool = option(
        False,
        "keep the running statistics of all batch normalisations and normalise by "
        "them in training too; those of frozen ones always stay",
        only_for=NORMALISED,
    )
    layer_decay: float = strength(
        "what the learning rate is multiplied by with every layer down from the last "
        "one; 0: the same rate for all",
        "[0, 1]",
    )
    learning_rate_for: tuple[str, ...] = option(
        (),
        "pattern=factor of the learning rate of those paths, times --layer_decay; of "
        "several, the first that matches; with --decoupled_rates their decay stays",
        kind="traced_by_name",
        within="[0, inf)",
    )
    train_until: tuple[str, ...] = option(
        (),
        "pattern=epochs for which those paths train, then stay as they are; of "
        "several, the first that matches",
        kind="traced_by_name",
        within="[0, epochs)",
    )


@dataclasses.dataclass(frozen=True)
class AveragingOptions:
    """How weights are averaged over steps."""

    modes: ClassVar[str] = "train sweep describe"

    ema_decay: float = strength(
        "decay of the averaged weights, which are then the ones evaluated, at each of "
        "their updates; early on as --ema_warmup says",
        "[0, 1)",
    )
    ema_every_steps: int = strength(
        "steps from one update of the averaged weights to the next, counted from each "
        "epoch's first; 0 is 1",
        "[0, epoch_steps]",
        default=0,
        only_for="ema_decay",
    )
    ema_start_epochs: float = strength(
        "epochs for which the averaged weights are a copy, and from which --ema_warmup "
        "counts its steps",
        "[0, epochs)",
        only_for="ema_decay",
    )
    ema_warmup: str = option(
        "ramp",
        "decay at first; ramp: min(decay, (1 + step) / (10 + step)); none: 0 once, "
        "then the decay; power: min(decay, 1 - (1 + step / ema_warmup_steps) ** "
        "-ema_warmup_power)",
        choices=("ramp", "none", "power"),
        only_for="ema_decay",
    )
    ema_warmup_power: float = option(
        2 / 3,
        "power of --ema_warmup=power; larger ones end sooner",
        kind="traced",
        within="(0, inf)",
        only_for="ema_warmup=power",
    )
    ema_warmup_steps: float = option(
        1.0,
        "steps by which --ema_warmup=power is slowed down",
        kind="traced",
        within="(0, steps]",
        only_for="ema_warmup=power",
    )
    lookahead_decay: float = strength(
        "decay per step of Lookahead's slow weights, which are then the ones "
        "evaluated, at the end of the run; training continues from them at each "
        "synchronisation and each end of an epoch",
        "[0, 1)",
    )
    lookahead_power: float = option(
        3.0,
        "Lookahead's decay is multiplied by the share of the run that has passed to "
        "this power",
        kind="traced",
        within="[0, inf)",
        only_for="lookahead_decay",
    )
    lookahead_every_steps: int = option(
        5,
        "steps between Lookahead's synchronisations",
        kind="traced",
        within="[1, steps)",
        only_for="lookahead_decay",
    )
    lookahead_start_epochs: float = option(
        0.0,
        "epochs without Lookahead at first",
        kind="traced",
        within="[0, epochs)",
        only_for="lookahead_decay",
    )
