"""Pictures of what the code does: `--mode=visualize --pictures=NAME,…`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cnn.errors import UserError, suggest
from cnn.options import option
from cnn.visualize import augmentation

if TYPE_CHECKING:
    from cnn.config import Config
    from cnn.progress import Terminal

PICTURES: dict[str, Callable[["Config", Path], Path]] = {
    "augmentation": augmentation.draw,
}


@dataclasses.dataclass(frozen=True)
class VisualizeOptions:
    """Which pictures are drawn."""

    pictures: tuple[str, ...] = option(
        ("augmentation",),
        "pictures to draw: augmentation (training images, varied)",
        changes_run=False,
    )


def visualize(config: "Config", directory: Path, terminal: "Terminal") -> list[Path]:
    """Draw pictures into `pictures/` of a directory.

    Args:
        config: the options.
        directory: the run's directory; made if need be, no checkpoint is needed.
        terminal: where to print.

    Returns:
        The files.

    Raises:
        UserError: there is no such picture, or it cannot be drawn of these images.
    """
    for name in config.visualize.pictures:
        if name not in PICTURES:
            raise UserError(f"--pictures={name} is unknown{suggest(name, PICTURES)}")
    (directory / "pictures").mkdir(parents=True, exist_ok=True)
    paths = []
    for name in config.visualize.pictures:
        paths.append(PICTURES[name](config, directory / "pictures"))
        terminal.say(f"written to {paths[-1]}")
    return paths
