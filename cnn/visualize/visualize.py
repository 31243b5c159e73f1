"""Pictures of what the code does and of what a run has learnt: `--mode=visualize`.

What a picture shows is computed by pure functions that return arrays, in `compute`; the
module of the same name in `draw` draws it. The lecture's slides are in `lecture`.
"""

import contextlib
from pathlib import Path
from types import ModuleType

from cnn.config import Config
from cnn.errors import UserError, suggest
from cnn.runtime import metrics_log, own_files
from cnn.runtime.terminal import Terminal
from cnn.training import same_data
from cnn.visualize.draw import (
    augmentation,
    curves,
    features,
    invariance,
    kernels,
    maximisation,
    mistakes,
    patches,
    picture,
    saliency,
    transformations,
)
from cnn.visualize.draw.picture import Section
from cnn.visualize.lecture import demonstrations
from cnn.visualize.page import report
from cnn.visualize.subject import Subject

# In the order of the report; what such a module has is said in `draw`.
PICTURES: dict[str, ModuleType] = {
    "curves": curves,
    "mistakes": mistakes,
    "kernels": kernels,
    "features": features,
    "patches": patches,
    "maximisation": maximisation,
    "saliency": saliency,
    "invariance": invariance,
    "augmentation": augmentation,
    "transformations": transformations,
    "demonstrations": demonstrations,
}
NEED_NO_RUN = ("augmentation", "transformations", "demonstrations")
# They show what the code can do, not what a run did: `all` leaves them out.
ON_REQUEST = ("transformations", "demonstrations")


def needs_run(pictures: tuple[str, ...]) -> bool:
    """Return whether any of these names of `--pictures` is of a trained run."""
    return not set(pictures) <= set(NEED_NO_RUN)


def visualize(
    config: Config, directories: list[Path], terminal: Terminal
) -> list[Section]:
    """Draw pictures and the report of them.

    What cannot be drawn is said, and everything else is drawn.

    Args:
        config: the options of the first run, those of the command line over them.
        directories: of the runs; of one that need not exist when no picture needs it.

    Returns:
        What was drawn.

    Raises:
        UserError: there is no such picture, or none could be drawn.
    """
    names = _choose_names(config.visualize.pictures)
    several = Path("runs") / "compare"
    default = directories[0] if len(directories) == 1 else several
    directory = Path(config.visualize.output or default)
    folder = directory / "pictures"
    own_files.check_no_link(folder)
    folder.mkdir(parents=True, exist_ok=True)
    subject, sections = Subject(config, directories), []
    with picture.use_style(), terminal.name_each("drawing", len(names)) as begin:
        for name in names:
            begin(name)
            section = _draw(name, subject, folder)
            for drawn in section.pictures:
                terminal.say_written(drawn.path)
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
    terminal.say_written(path)
    same_data.write_bad(directory, config.data.dataset, list(subject.excluded.values()))
    if config.progress.tensorboard:
        metrics_log.write_images(directory, picture.read_pictures(sections))
    return sections


def _choose_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of pictures in the order given, those of a run for `all`."""
    for name in names:
        if name != "all" and name not in PICTURES:
            known = ["all", *PICTURES]
            raise UserError(f"--pictures={name} is unknown{suggest(name, known)}")
    if not names:
        raise UserError(f"--pictures= names none; known: all, {', '.join(PICTURES)}")
    of_run = tuple(name for name in PICTURES if name not in ON_REQUEST)
    chosen = [one for name in names for one in (of_run if name == "all" else (name,))]
    return tuple(dict.fromkeys(chosen))


def _draw(name: str, subject: Subject, folder: Path) -> Section:
    """Draw the pictures of one name; what prevents it becomes a note."""
    module = PICTURES[name]
    try:
        if hasattr(module, "draw"):
            pictures = module.draw(subject, folder)
        else:
            pictures = subject.draw_runs(
                lambda run: module.draw_run(subject, run, folder), subject.fitting_runs
            )
    except UserError as error:
        pictures = []
        subject.note(f"not drawn: {error}")
    title = (module.__doc__ or module.__name__).split("\n")[0].rstrip(".")
    return Section(name, title, tuple(pictures), subject.take_notes())
