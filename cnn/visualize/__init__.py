"""Pictures of what the code does and of what a run has learnt: `--mode=visualize`.

What a picture shows is computed by pure functions that return arrays, in the modules
named after it (`kernels`, `saliency`, …); the modules `draw_…` draw it.
"""

import contextlib
import dataclasses
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from cnn import progress
from cnn.errors import UserError, suggest
from cnn.options import option
from cnn.visualize import (
    augmentation,
    draw_curves,
    draw_demonstrations,
    draw_features,
    draw_invariance,
    draw_kernels,
    draw_maximisation,
    draw_mistakes,
    draw_patches,
    draw_saliency,
    picture,
    report,
)
from cnn.visualize.picture import Section
from cnn.visualize.subject import Subject

if TYPE_CHECKING:
    from cnn.config import Config
    from cnn.progress import Terminal

# Each has `draw(subject, folder) -> list[Picture]`; its docstring's first line is the
# section's title. They stand in the order of the report.
PICTURES: dict[str, ModuleType] = {
    "curves": draw_curves,
    "mistakes": draw_mistakes,
    "kernels": draw_kernels,
    "features": draw_features,
    "patches": draw_patches,
    "maximisation": draw_maximisation,
    "saliency": draw_saliency,
    "invariance": draw_invariance,
    "augmentation": augmentation,
    "demonstrations": draw_demonstrations,
}
NEED_NO_RUN = ("augmentation", "demonstrations")


@dataclasses.dataclass(frozen=True)
class VisualizeOptions:
    """Which pictures are drawn, and of what."""

    pictures: tuple[str, ...] = option(
        ("all",),
        f"pictures to draw: all, or some of {', '.join(PICTURES)}",
        changes_run=False,
    )
    output: str = option(
        "",
        "directory of pictures/ and report.html; empty: the run's own, or runs/compare "
        "for several runs",
        changes_run=False,
    )
    picture_examples: tuple[int, ...] = option(
        (),
        "positions in --split of the images to look into; empty: the first of each "
        "class, ten at most",
        within="[0, inf)",
        changes_run=False,
    )
    picture_files: str = option(
        "",
        "pattern of image files to look into instead, such as 'photos/*.jpg'",
        changes_run=False,
    )
    picture_layers: tuple[str, ...] = option(
        (),
        "stages and layers to look into, such as stage2 or stage2_conv; empty: every "
        "stage, and kernels of some layers",
        changes_run=False,
    )
    picture_classes: tuple[str, ...] = option(
        (),
        "classes whose logit saliency explains; empty: the predicted one of each image",
        changes_run=False,
    )
    picture_channels: int = option(
        8,
        "channels of each stage that are shown, evenly spread over all",
        within="[1, 64]",
        changes_run=False,
    )
    picture_sample: int = option(
        2000,
        "images of --split, evenly spread, that top patches are searched in, and "
        "channels that never fire",
        within="[1, inf)",
        changes_run=False,
    )
    invariance_images: int = option(
        500,
        "images of --split, evenly spread, that invariance is measured on, about fifty "
        "times",
        within="[1, inf)",
        changes_run=False,
    )


def needs_run(pictures: tuple[str, ...]) -> bool:
    """Return whether any of these names of `--pictures` is of a trained run."""
    return not set(pictures) <= set(NEED_NO_RUN)


def visualize(
    config: "Config", directories: list[Path], terminal: "Terminal"
) -> list[Section]:
    """Draw pictures and the report of them.

    What cannot be drawn is said, and everything else is drawn.

    Args:
        config: the options of the first run, those of the command line over them.
        directories: of the runs; of one that need not exist when no picture needs it.
        terminal: where to print.

    Returns:
        What was drawn.

    Raises:
        UserError: there is no such picture, or none could be drawn.
    """
    names = _choose_names(config.visualize.pictures)
    directory = Path(config.visualize.output or _choose_output(directories))
    folder = directory / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    subject, sections = Subject(config, directories), []
    with picture.use_style():
        for name in names:
            section = _draw(name, subject, folder)
            for drawn in section.pictures:
                terminal.say(f"written to {drawn.path}")
            for note in section.notes:
                terminal.say(f"{name}: {note}")
            sections.append(section)
    if not any(section.pictures for section in sections):
        with contextlib.suppress(OSError):  # what was made in vain
            folder.rmdir()
            directory.rmdir()
        notes = [note for section in sections for note in section.notes]
        raise UserError("Nothing could be drawn: " + "; ".join(dict.fromkeys(notes)))
    runs = directories if needs_run(names) else []
    options = config.select_run_options()
    path = report.write_report(directory, runs, sections, options)
    terminal.say(f"written to {path}")
    if config.progress.tensorboard:
        progress.write_images(directory, picture.read_pictures(sections))
    return sections


def _choose_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of pictures in the order given, all for `all`."""
    for name in names:
        if name != "all" and name not in PICTURES:
            known = ["all", *PICTURES]
            raise UserError(f"--pictures={name} is unknown{suggest(name, known)}")
    if not names:
        raise UserError(f"--pictures= names none; known: all, {', '.join(PICTURES)}")
    return tuple(PICTURES) if "all" in names else tuple(dict.fromkeys(names))


def _choose_output(directories: list[Path]) -> Path:
    return directories[0] if len(directories) == 1 else Path("runs") / "compare"


def _draw(name: str, subject: Subject, folder: Path) -> Section:
    """Draw the pictures of one name; what prevents it becomes a note."""
    module = PICTURES[name]
    try:
        pictures = module.draw(subject, folder)
    except UserError as error:
        pictures = []
        subject.note(f"not drawn: {error}")
    title = module.__doc__.split("\n")[0].rstrip(".")
    return Section(name, title, tuple(pictures), subject.take_notes())
