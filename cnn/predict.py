"""From trained weights to predictions: of image files by flags, of arrays in Python.

from cnn import predict
classify = predict.load_classifier("runs/digits")
probabilities = classify(images)  # uint8 [N, H, W, C] -> float32 [N, K]
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from cnn.augment import pipeline
from cnn.augment.options import AugmentOptions
from cnn.checkpoints import rows
from cnn.config import Config
from cnn.data import labels as labelled
from cnn.data.files import describe_bad
from cnn.data.images import BadFile
from cnn.data.named_files import find_files
from cnn.errors import UserError
from cnn.runtime.interrupt import Stop, catch_signals
from cnn.runtime.terminal import Terminal
from cnn.text import show_line
from cnn.training import multilabel, same_data, tasks, temperature
from cnn.training.classify_files import (
    Classified,
    Intake,
    choose_intake,
    classify_files,
)
from cnn.training.image_arrays import make_checked_classifier
from cnn.training.trained import Trained, load_trained, set_threshold

_COLUMNS = ("class", "probability")
_MOST_PIXELS = 64 * 256 * 256  # of a batch, unless --predict_batch_size says how many
_NAMED = 3  # bad files in a message


def load_classifier(
    directory: str | Path, which: str = "latest", calibration: str = "auto"
) -> Callable[[np.ndarray], np.ndarray]:
    """Load a trained run as a function from images to probabilities.

    Args:
        which: `latest`, `best` or a step.
        calibration: of `--calibration`.

    Returns:
        A function of uint8 images [N, H, W, C] that returns float32 [N, K]. It raises
        ValueError for anything else, and says what to give.

    Raises:
        UserError: as `load_trained`.
    """
    trained = load_trained(directory, which)
    trained, _ = temperature.apply(trained, Path(directory), calibration)
    return make_checked_classifier(trained)


def predict(config: Config, directory: Path, terminal: Terminal) -> Path:
    """Classify image files and write `predictions.csv` into the run's directory.

    Args:
        config: the run's options, those of the command line over them;
            `predict_images` says which files.

    Returns:
        The file, a row for each image: `path`, where it may have several labels
        `labels`, those above their thresholds as `a|b`; the most probable `class` with
        its `probability`, the next as `class2`, `probability2`, …, and `error`, what is
        wrong with a file that cannot be read. With `--bad_images=skip` such files have
        no row; `bad_images.txt` lists them.

    Raises:
        UserError: no file matches, none can be read, or some cannot and are not to be
            skipped; the file is written all the same.
        Interrupted: a signal arrived; what was computed stays in the file of
            `rows.name_partial`, as after any error.
    """
    text = config.predict.predict_images
    if not text:
        raise UserError("--mode=predict needs --predict_images='FILES, DIRECTORY, …'")
    config = dataclasses.replace(config, data=config.data.for_evaluation())
    paths, notes = find_files("predict_images", text)
    for note in notes:
        terminal.say(note)
    trained = load_trained(directory, config.checkpoint.checkpoint)
    trained = set_threshold(trained, config.evaluate.threshold)
    intake = choose_intake(trained, config.data)
    trained = _set_views(config, trained, intake)
    trained, line = temperature.apply(trained, directory, config.evaluate.calibration)
    if line:
        terminal.say(line)
    target, problems = directory / "predictions.csv", {}
    shown = min(config.predict.predict_top, trained.structure.num_classes)
    is_skipping, kept = config.data.bad_images == "skip", False
    try:
        classified = _classify(config, trained, intake, paths, terminal)
        with (
            rows.open_rows(target, _name_columns(trained, shown)) as write,
            contextlib.closing(classified),
        ):
            for some in classified:
                problems |= some.problems
                write(_format(some, paths, trained, shown, is_skipping))
                kept = True
            if is_skipping and len(problems) == len(paths):
                raise UserError(_describe(paths, problems))
    except BaseException:
        if kept and (partial := rows.name_partial(target)).exists():
            terminal.say(f"what was computed is in {show_line(str(partial))}")
        raise
    terminal.say(f"{len(paths) - len(problems)} of {len(paths)} files classified")
    terminal.say_written(target)
    if problems and not is_skipping:
        raise UserError(
            f"{_describe(paths, problems)}; their rows in {target} say why. Mend or "
            "delete them, or leave them out with --bad_images=skip"
        )
    _list_bad(directory, paths, problems, terminal)
    return target


def _list_bad(
    directory: Path,
    paths: Sequence[str],
    problems: Mapping[int, str],
    terminal: Terminal,
) -> None:
    """Print and write which files were left out."""
    bad = [BadFile(paths[i], paths[i], "", problems[i]) for i in sorted(problems)]
    same_data.write_bad(directory, "--predict_images", bad)
    for note in describe_bad(bad):
        terminal.say(
            f"{note}; all are in {show_line(str(directory / same_data.BAD_FILE))}"
        )


def _set_views(config: Config, trained: Trained, intake: Intake) -> Trained:
    """Return the model with the views that `--tta` has it see of each image."""
    views = AugmentOptions(tta=config.augment.tta)
    size = config.data.image_size
    pipeline.check_views(views.tta, intake.shape or trained.image_shape, size)
    structure = dataclasses.replace(trained.structure, image_size=size, augment=views)
    return dataclasses.replace(trained, structure=structure)


def _classify(
    config: Config,
    trained: Trained,
    intake: Intake,
    paths: Sequence[str],
    terminal: Terminal,
) -> Iterator[Classified]:
    """Classify files until a signal arrives."""
    given, stop = config.predict.predict_batch_size, Stop()
    batch_size = given or config.step.batch_size
    most_pixels = math.inf if given else _MOST_PIXELS
    with catch_signals(stop):
        yield from classify_files(
            trained, intake, paths, batch_size, most_pixels, terminal, stop
        )


def _name_columns(trained: Trained, shown: int) -> list[str]:
    first = ["path"]
    if trained.structure.task is tasks.MULTILABEL:
        first.append("labels")
    ranks = ["", *range(2, shown + 1)]
    names = [f"{name}{rank}" for rank in ranks for name in _COLUMNS]
    return [*first, *names, "error"]


def _format(
    some: Classified,
    paths: Sequence[str],
    trained: Trained,
    shown: int,
    is_skipping: bool,
) -> list[tuple[int, list[str]]]:
    """Return the position and the cells of each file that gets a row."""
    found, class_names = [], trained.class_names
    several = trained.structure.task is tasks.MULTILABEL
    chosen = multilabel.choose_labels(some.probabilities, trained.thresholds)
    labels = labelled.to_lists(chosen) if several else [[]] * len(chosen)
    for position, own, probabilities in zip(
        some.positions.tolist(), labels, some.probabilities, strict=True
    ):
        problem, cells = some.problems.get(position, ""), []
        if problem and is_skipping:
            continue
        if not problem:
            for k in np.argsort(-probabilities, kind="stable")[:shown]:
                cells += [rows.escape_text(class_names[k]), f"{probabilities[k]:.6f}"]
        cells += [""] * (2 * shown - len(cells))
        path = rows.escape_path(paths[position])
        if several:
            written = "" if problem else labelled.write(own, class_names)
            cells.insert(0, rows.escape_text(written))
        found.append((position, [path, *cells, problem]))
    return found


def _describe(paths: Sequence[str], problems: Mapping[int, str]) -> str:
    """Say how many files cannot be read, and what is wrong with the first."""
    shown = [f"{show_line(paths[i])}: {problems[i]}" for i in sorted(problems)[:_NAMED]]
    more = "; …" if len(problems) > _NAMED else ""
    return (
        f"{len(problems)} of {len(paths)} files cannot be read: "
        f"{'; '.join(shown)}{more}"
    )
