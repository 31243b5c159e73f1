"""TransferOptions: which weights a run starts from."""

import dataclasses
from typing import ClassVar

from cnn.option import option


@dataclasses.dataclass(frozen=True)
class TransferOptions:
    """What training starts from."""

    modes: ClassVar[str] = "train sweep describe"

    init_from: str = option(
        "",
        "weights to start from: a run's directory (its --checkpoint), one of its "
        "checkpoints DIR/checkpoints/STEP, a file of PyTorch's or Flax's weights, a "
        "directory of orbax, or hf:OWNER/NAME[/FILE][@REVISION] of the Hugging Face "
        "Hub (needs huggingface_hub); empty: drawn at random",
        is_path=True,
    )
    init_reset: tuple[str, ...] = option(
        (),
        "patterns of our paths whose weights are drawn at random; empty: the head when "
        "the classes are others than the source's; none: nothing",
        only_for="init_from",
    )
    init_skip: tuple[str, ...] = option(
        (),
        "patterns of the source's names that are left out",
        only_for="init_from",
    )
    init_rename: tuple[str, ...] = option(
        (),
        "pattern->new: the beginning of a name in the source that matches the pattern "
        "becomes new (a group is \\1); of several, the first that matches",
        only_for="init_from or source",
        modes="train sweep describe convert",
    )
    whitening_images: int = option(
        0,
        "training images from whose patches the first convolution's kernel is "
        "computed, such that its outputs are uncorrelated and of variance 1; 0: drawn",
        within="[0, images]",
    )
    whitening_epsilon: float = option(
        5e-4,
        "added to the variance of patches, in units of scaled pixels, before whitening "
        "divides by its root",
        within="(0, inf)",
        only_for="whitening_images",
    )
    cache_features: str = option(
        "auto",
        "compute once what the head sees, while the head alone trains: auto (when that "
        "gives the same result and fits in memory), always (or refuse), never",
        choices=("auto", "always", "never"),
        only_for="train_only or freeze or freeze_through",
    )
    cached_views: int = option(
        0,
        "randomly varied views of each training image that are computed and used in "
        "turn, one an epoch; 0: images that vary are not cached",
        within="[0, epochs]",
        only_for="cache_features=auto|always",
    )
    keep_optimizer: bool = option(
        False,
        "take the optimizer's state of --init_from too, a run of the same optimizer "
        "and trained leaves, to train it for longer: momentum, moments, averages; "
        "steps and schedule start again",
        only_for="init_from",
    )
    extend: str = option(
        "",
        "train: directory of a run to go on with: its options, and the --epochs that "
        "the new run has in all; under stable_then_decay from the last state before "
        "its decay, to the bit as if it had been given them from the start",
        modes="train describe",
        is_path=True,
    )
    init_key: str = option(
        "",
        "which of several sets of weights in a file or checkpoint: its place there, "
        "such as model_ema; empty: the weights themselves, not their average",
        only_for="init_from or source",
        modes="train sweep describe convert",
    )
