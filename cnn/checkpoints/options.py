"""CheckpointOptions: when checkpoints are written, and which one is read."""

import dataclasses

from cnn.option import option


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written, how many are kept, which one is read."""

    checkpoint_every_epochs: float = option(
        1.0,
        "epochs between checkpoints; 0.25 writes four an epoch",
        within="(0, inf)",
        changes_run=False,
    )
    keep_checkpoints: int = option(
        2,
        "newest checkpoints kept, in addition to the best",
        within="[1, inf)",
        changes_run=False,
    )
    checkpoint: str = option(
        "latest",
        "weights that evaluate, predict, visualize and export take: latest, best "
        "(by validation metric) or a step",
        changes_run=False,
    )
