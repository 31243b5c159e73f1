"""NamingOptions: what a run is called. CheckpointOptions: what is kept of it."""

import dataclasses
from typing import ClassVar

from cnn.option import free_option


@dataclasses.dataclass(frozen=True)
class NamingOptions:
    """What the run is called."""

    modes: ClassVar[str] = "train sweep describe"

    name: str = free_option(
        "",
        "what tables and pictures call the run, whose directory is runs/NAME unless "
        "--workdir says another; empty: the preset and what differs from it",
    )


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written, how many are kept, which one is read."""

    modes: ClassVar[str] = "train describe"

    checkpoint_every_epochs: float = free_option(
        1.0,
        "epochs between checkpoints; 0.25 writes four an epoch",
        within="(0, epochs]",
    )
    keep_checkpoints: int = free_option(
        2,
        "newest checkpoints kept, in addition to the best and what --extend takes",
        within="[1, checkpoints]",
    )
    checkpoint: str = free_option(
        "latest",
        "weights that evaluate, predict, visualize, export, average, --init_from and "
        "--source take: latest, best (by validation metric) or a step",
        only_for="mode=evaluate|predict|export|average or init_from or source or "
        "mode=visualize and pictures=all|architecture|mistakes|fine_tuning|kernels|"
        "features|patches|maximisation|saliency|invariance|playground",
        modes="train sweep describe convert evaluate predict visualize export average",
    )
