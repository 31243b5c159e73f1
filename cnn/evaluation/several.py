"""Several runs, evaluated one after the other or in one program, and their mean."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.table import Table

from cnn.config import Config
from cnn.data import labels as labelled
from cnn.data import load_evaluated
from cnn.data.images import Evaluated
from cnn.errors import UserError
from cnn.evaluation import evaluate, judge, written
from cnn.evaluation.evaluate import Evaluation
from cnn.evaluation.judge import Subject
from cnn.runtime.terminal import Terminal
from cnn.text import show_line
from cnn.training import ensemble
from cnn.training.ensemble import Ensemble

# Of weights and answers of the runs that one program evaluates.
_STACKED_BYTES = 2**30


def evaluate_runs(
    directories: Sequence[Path],
    make_config: Callable[[Path], Config],
    averages: bool,
    terminal: Terminal,
    place: Path | None = None,
) -> int:
    """Evaluate one run after the other: a line each, and a table at the end.

    Args:
        make_config: from a run's directory to the `config` of `evaluate`.
        averages: whether the mean of their probabilities is evaluated too; runs of one
            structure are then computed in one program.
        place: directory of `ensemble.json`, of a sweep whose trials the runs are; None:
            that of the first run.

    Returns:
        How many could not be evaluated; why is said, and the others are evaluated.

    Raises:
        UserError: probabilities cannot be averaged, or `ensemble.json` is of others.
    """
    rows, failed = [], 0
    mean, members = Ensemble(), {}
    iterate = _evaluate_stacked if averages else _evaluate_each
    for directory, found in iterate(directories, make_config):
        cells = {"run": show_line(str(directory)), "split": "failed"}
        rows.append(cells)
        try:
            if isinstance(found, Exception):
                raise found
            terminal.say(f"{directory}: {written.format_result(found.result)}")
            cells |= written.format_cells(found.result)
            evaluate.write(found.files)
        except (UserError, OSError) as error:
            failed += 1
            terminal.say(f"{directory}: error: {error}")
        if averages and not failed:
            members[directory] = found
            ensemble.check_own(_name_ensemble(members, place), directories, place)
            mean.add(str(directory), found.take_examples())
    if averages and not failed:
        files, result = _evaluate_ensemble(mean, members, place)
        name = {"run": f"ensemble of {len(members)}"}
        rows.append(name | written.format_cells(result))
    terminal.show(_make_table(rows))
    if failed:
        without = ": no ensemble is made of the others" if averages else ""
        terminal.say(f"{failed} of {len(directories)} runs failed{without}")
    elif averages:
        terminal.say(written.format_ensemble(result))
        evaluate.write(files)
        terminal.say_written(*files)
    return failed


def _evaluate_each(
    directories: Sequence[Path], make_config: Callable[[Path], Config]
) -> Iterator[tuple[Path, "Evaluation | Exception"]]:
    """Evaluate runs, each as if it were alone; yields why one could not be."""
    for directory in directories:
        try:
            yield (
                directory,
                evaluate.evaluate_run(make_config(directory), directory, _be_quiet()),
            )
        except (UserError, OSError) as error:
            yield directory, error


@dataclasses.dataclass
class _Stack:
    """Runs that one program evaluates, and their images."""

    subjects: list[Subject]
    images: Evaluated

    def takes(self, subject: Subject) -> bool:
        """Whether a run is another of these, and there is room for it."""
        leaves = jax.tree.leaves(subject.trained.variables)
        answers = len(self.images.images) * (len(subject.trained.class_names) + 1)
        bytes_each = sum(x.nbytes for x in leaves) + 4 * answers
        is_room = (len(self.subjects) + 1) * bytes_each <= _STACKED_BYTES
        return is_room and self.subjects[0].make_key() == subject.make_key()


def _evaluate_stacked(
    directories: Sequence[Path], make_config: Callable[[Path], Config]
) -> Iterator[tuple[Path, "Evaluation | Exception"]]:
    """Evaluate runs, successive ones of one structure and data in one program."""
    load, stack = functools.lru_cache(1)(load_evaluated), None
    for directory in directories:
        try:
            subject = evaluate.prepare(make_config(directory), directory, _be_quiet())
        except (UserError, OSError) as error:
            yield from _compute_stack(stack)
            stack = None
            yield directory, error
            continue
        if stack is not None and not stack.takes(subject):
            yield from _compute_stack(stack)
            stack = None
        if stack is not None:
            stack.subjects.append(subject)
            continue
        try:
            images = judge.load_images(
                subject.config, subject.trained, subject.stored, load
            )
            stack = _Stack([subject], images)
        except (UserError, OSError) as error:
            yield directory, error
    yield from _compute_stack(stack)


def _compute_stack(
    stack: _Stack | None,
) -> Iterator[tuple[Path, Evaluation | Exception]]:
    """Evaluate the runs of a stack, if there is one; nothing is written."""
    subjects = [] if stack is None else stack.subjects
    try:
        if len(subjects) == 1:  # by the program that it was tested with
            found = [judge.compute(subjects[0], stack.images)]
        elif subjects:
            found = judge.compute_together(subjects, stack.images)
    except (UserError, OSError) as error:
        yield from ((subject.directory, error) for subject in subjects)
        return
    for number, subject in enumerate(subjects):
        try:
            own, found[number] = found[number], None
            yield (
                subject.directory,
                evaluate.conclude(subject, stack.images, *own, _be_quiet()),
            )
        except (UserError, OSError) as error:
            yield subject.directory, error


def _be_quiet() -> Terminal:
    quiet = Terminal()
    quiet.console.quiet = True
    return quiet


def _evaluate_ensemble(
    mean: Ensemble, members: Mapping[Path, Evaluation], place: Path | None
) -> tuple[dict[Path, str], dict[str, Any]]:
    """Evaluate the mean of the members' probabilities."""
    results = {
        str(directory): one.result | {"weights_sha256": one.weights_sha256}
        for directory, one in members.items()
    }
    average, files, first = mean.average(), {}, next(iter(results.values()))
    result = ensemble.describe(mean, average, results)
    path = _name_ensemble(members, place)
    if "per_image" in first:
        table, names = path.with_suffix(".csv"), average.class_names
        chosen = labelled.to_lists(average.choose_classes())
        said = average.compute_probabilities(), chosen, average.compute_losses()
        files[table] = written.format_examples(first["dataset"], average, names, *said)
        result["per_image"] = table.name
    files[path] = written.format_json(result)
    return files, result


def _name_ensemble(members: Mapping[Path, Evaluation], place: Path | None) -> Path:
    """Name the file of an ensemble as the evaluation of its first run."""
    first = next(iter(members.values()))
    return (place or first.path.parent) / first.ensemble


def _make_table(rows: Sequence[dict[str, str]]) -> Table:
    """Make a table of cells by column; what a run does not have stays empty."""
    names = [n for n in dict.fromkeys(n for row in rows for n in row) if n != "loss"]
    table = Table()
    for name in [*names, "loss"]:
        justify = "left" if name in ("run", "split") else "right"
        table.add_column(name, justify=justify)
    for row in rows:
        table.add_row(*(row.get(name, "") for name in [*names, "loss"]))
    return table
