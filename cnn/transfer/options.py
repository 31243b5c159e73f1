"""TransferOptions: where weights come from, and which of them stay as they were.

A pattern is a regular expression that means a path, or everything that begins with it
up to a `/` or a `_`: `stem` means `stem/kernel` and `stem_norm/scale`, `stage2` all
blocks of that stage, `.*norm\\d?` every normalisation. Commas separate patterns.
"""

import dataclasses

from cnn.options import option


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """What training starts from, and what stays as it was there."""

    init_from: str = option(
        "",
        "weights to start from: a run's directory (its latest checkpoint), one of its "
        "checkpoints DIR/checkpoints/STEP, or a file of PyTorch's weights (.pth, .th, "
        ".pt, .safetensors); empty: drawn anew",
    )
    init_reset: tuple[str, ...] = option(
        (),
        "patterns of our paths whose weights are drawn anew; empty: the head when the "
        "classes are others than the source's; none: nothing",
    )
    init_skip: tuple[str, ...] = option(
        (), "patterns of the source's names that are left out"
    )
    init_rename: tuple[str, ...] = option(
        (),
        "pattern->new: the beginning of a name in the source that matches the pattern "
        "becomes new (a group is \\1); of several, the first that matches",
    )
    freeze: tuple[str, ...] = option((), "patterns of paths that stay as they are")
    freeze_through: str = option(
        "", "stage such as stage2 that stays as it is, with everything before it"
    )
    train_only: tuple[str, ...] = option(
        (), "patterns of the only paths that train; all others stay as they are"
    )
    unfreeze: tuple[str, ...] = option(
        (), "pattern:epoch: frozen paths that train from that epoch on (counted from 0)"
    )
    freeze_statistics: bool = option(
        False,
        "keep the running statistics of all batch normalisations and normalise by "
        "them in training too; those of frozen ones always stay",
    )
    layer_decay: float = option(
        0.0,
        "what the learning rate is multiplied by with every layer down from the last "
        "one; 0: the same rate for all",
        kind="traced_unless_zero",
        within="[0, 1]",
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
        within="[0, inf)",
    )
    whitening_images: int = option(
        0,
        "training images from whose patches the first convolution's kernel is "
        "computed, such that its outputs are uncorrelated and of variance 1; 0: drawn",
        within="[0, inf)",
    )
    whitening_epsilon: float = option(
        5e-4,
        "added to the variance of patches, in units of scaled pixels, before whitening "
        "divides by its root",
        within="(0, inf)",
    )
    cache_features: str = option(
        "auto",
        "compute once what the head sees, while the head alone trains: auto (when that "
        "gives the same result and fits in memory), always (or refuse), never",
        choices=("auto", "always", "never"),
    )
    cached_views: int = option(
        0,
        "randomly varied views of each training image that are computed and used in "
        "turn, one an epoch; 0: images that vary are not cached",
        within="[0, inf)",
    )
