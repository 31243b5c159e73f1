"""Pictures of what the code does and of what a run has learnt: `--mode=visualize`.

What a picture shows is computed by pure functions that return arrays, in `compute`; the
module of the same name in `draw` draws it. The lecture's slides are in `lecture`, and
have a page of their own.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from cnn import models
from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.errors import UserError, suggest
from cnn.runtime import own_files, tracking
from cnn.runtime.terminal import Terminal
from cnn.training import same_data
from cnn.training.suspects import EXAMPLES_FILE
from cnn.visualize import architecture
from cnn.visualize.draw import (
    augmentation,
    coordinate_check,
    curves,
    features,
    fine_tuning,
    invariance,
    kernels,
    maximisation,
    mistakes,
    patches,
    picture,
    playground,
    saliency,
    suspects,
    transformations,
)
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.lecture import slides
from cnn.visualize.page import kept, report
from cnn.visualize.subject import Subject

# In the order of the report; what such a module has is said in `draw`.
PICTURES: dict[str, ModuleType] = {
    "curves": curves,
    "mistakes": mistakes,
    "suspects": suspects,
    "fine_tuning": fine_tuning,
    "architecture": architecture,
    "kernels": kernels,
    "features": features,
    "patches": patches,
    "maximisation": maximisation,
    "saliency": saliency,
    "invariance": invariance,
    "augmentation": augmentation,
    "transformations": transformations,
    "lecture": slides,
    "playground": playground,
}
# What is drawn of a run that is described, the latter of nothing else.
OF_DESCRIBED = ("architecture", "coordinate_check")
NEED_NO_RUN = ("augmentation", "transformations", "lecture")
# They show what the code can do, not what a run did, or are large: not among `all`.
ON_REQUEST = ("transformations", "lecture", "playground")
LECTURE_FILE = "lecture.html"


def needs_run(pictures: tuple[str, ...]) -> bool:
    """Return whether any of these names of `--pictures` is of a trained run."""
    return not set(pictures) <= set(NEED_NO_RUN)


def visualize(
    config: Config,
    directories: list[Path],
    terminal: Terminal,
    tables: Mapping[str, report.Table] | None = None,
) -> list[Section]:
    """Draw pictures and the report of them.

    What cannot be drawn is said, and everything else is drawn and reported, also where
    it is a fault of the program. The report keeps what was drawn of the same runs
    before.

    Args:
        config: the options of the first run, those of the command line over them.
        directories: of the runs; of one that need not exist when no picture needs it.
        tables: of several runs, by heading; see `report.write_report`.

    Returns:
        What was drawn.

    Raises:
        UserError: there is no such picture, or none could be drawn.
        ExceptionGroup: at the end, of the program's own faults.
    """
    names = _choose_names(config.visualize.pictures, directories)
    several = Path("runs") / "compare"
    default = directories[0] if len(directories) == 1 else several
    directory = Path(config.visualize.output or default)
    folder = directory / "pictures"
    own_files.check_no_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    subject, drawn = Subject(config, directories), {}
    with picture.use_style(), terminal.name_each("drawing", len(names)) as begin:
        for name in names:
            begin(name)
            drawn[name] = _draw(name, subject, folder)
            for section in drawn[name]:
                for one in section.pictures:
                    terminal.say_written(one.path)
                for note in section.notes:
                    terminal.say(f"{name}: {note}")
    sections = [section for several in drawn.values() for section in several]
    if not any(section.pictures for section in sections):
        with contextlib.suppress(OSError):  # what was made in vain
            folder.rmdir()
            directory.rmdir()
        _raise_faults(subject)
        notes = [note for section in sections for note in section.notes]
        raise UserError("Nothing could be drawn: " + "; ".join(dict.fromkeys(notes)))
    runs = [x for x in directories if needs_run(names) or workdir.holds_run(x)]
    how = config.checkpoint.checkpoint, config.evaluate.split
    origin = kept.find_origin(directory, runs, *how)
    for path in _write_pages(directory, runs, drawn, origin, tables):
        terminal.say_written(path)
    same_data.write_bad(directory, config.data.dataset, list(subject.excluded.values()))
    if config.progress.track != "none":
        options = config.select_run_options()
        tracked = tracking.Tracking(config.progress.track, directory, options)
        tracked.add_images(picture.read_pictures(sections))
        tracked.close()
    _raise_faults(subject)
    return sections


def _write_pages(
    directory: Path,
    runs: Sequence[Path],
    drawn: Mapping[str, list[Section]],
    origin: kept.Origin,
    tables: Mapping[str, report.Table] | None,
) -> list[Path]:
    """Write the lecture's page and the report of everything else; what there is."""
    pages = []
    if "lecture" in drawn:
        of_lecture = drawn["lecture"]
        pages.append(write_lecture(directory, of_lecture))
    rest = [x for name, several in drawn.items() if name != "lecture" for x in several]
    if rest:
        sections = kept.renew(directory / "pictures", origin, rest, [*PICTURES])
        pages.append(report.write_report(directory, runs, sections, tables))
    return pages


def write_lecture(directory: Path, sections: Sequence[Section]) -> Path:
    """Write `lecture.html`, as of `slides.draw_sections`."""
    return report.write_tables(
        directory, "The lecture", slides.NOTES, {}, sections, LECTURE_FILE
    )


def check_described(pictures: tuple[str, ...]) -> None:
    """Refuse names of `--pictures` that `--mode=describe` cannot draw.

    Raises:
        UserError: there is one, or none at all.
    """
    of_runs = tuple(name for name in pictures if name not in OF_DESCRIBED)
    for name in _choose_names(of_runs, ()) if of_runs or not pictures else ():
        if name not in OF_DESCRIBED and "all" not in pictures:
            raise UserError(
                f"--pictures={name}: --mode=describe draws "
                f"{', '.join(OF_DESCRIBED)}; --mode=visualize draws {name}"
            )


def draw_described(
    config: Config, found: Mapping[str, Any], directory: Path, terminal: Terminal
) -> list[Picture]:
    """Draw what `--pictures` names of the run that would be trained.

    `all` is the architecture of its model: `architecture.svg`.

    Args:
        found: as `describe.describe` returns it.
        directory: of the run, where `describe.json` lies.
    """
    names, drawn = config.visualize.pictures, []
    if {"all", "architecture"} & set(names):
        model = models.create_model(config.model, found["num_classes"])
        path, shape = directory / "architecture.svg", tuple(found["input_shape"])
        drawn.append(architecture.draw_model(config.model, model, shape, path))
    if "coordinate_check" in names:
        path = directory / "coordinate_check.png"
        drawn.append(coordinate_check.draw_described(config, path, terminal))
    terminal.say_written(*(one.path for one in drawn))
    return drawn


def _raise_faults(subject: Subject) -> None:
    """Raise what kept pictures from being drawn, if it was the program's fault."""
    if subject.faults:
        raise ExceptionGroup("pictures that were not drawn", subject.faults)


def _choose_names(
    names: tuple[str, ...], directories: Sequence[Path]
) -> tuple[str, ...]:
    """Return the names of pictures in the order given, those of the runs for `all`."""
    for name in names:
        if name in OF_DESCRIBED and name not in PICTURES:
            raise UserError(
                f"--pictures={name} is of a run before it is trained: give its options "
                "with --mode=describe"
            )
        if name != "all" and name not in PICTURES:
            known = ["all", *PICTURES]
            raise UserError(f"--pictures={name} is unknown{suggest(name, known)}")
    if not names:
        raise UserError(f"--pictures= names none; known: all, {', '.join(PICTURES)}")
    left_out = set(ON_REQUEST)
    if "all" in names and not any(map(_is_fine_tuned, directories)):
        left_out.add("fine_tuning")
    if not any((path / EXAMPLES_FILE).exists() for path in directories):
        left_out.add("suspects")
    of_run = tuple(name for name in PICTURES if name not in left_out)
    chosen = [one for name in names for one in (of_run if name == "all" else (name,))]
    return tuple(dict.fromkeys(chosen))


def _is_fine_tuned(directory: Path) -> bool:
    """Return whether a run was started from other weights."""
    try:
        return bool(workdir.read_config(directory).get("init_from"))
    except UserError:
        return False  # what is wrong with it is said where it is drawn


def _draw(name: str, subject: Subject, folder: Path) -> list[Section]:
    """Draw the pictures of one name; what prevents it becomes a note."""
    module = PICTURES[name]
    if hasattr(module, "draw_sections"):
        return module.draw_sections(folder)

    def draw_runs(subject: Subject, folder: Path) -> list[Picture]:
        return subject.draw_runs(
            lambda run: module.draw_run(subject, run, folder), subject.fitting_runs
        )

    draw = getattr(module, "draw", draw_runs)
    pictures = subject.attempt("not drawn", draw, subject, folder)
    title = (module.__doc__ or module.__name__).split("\n")[0].rstrip(".")
    return [Section(name, title, tuple(pictures), subject.take_notes())]
