"""Whether a run's data are those it saw: compared at each start, and by evaluation.

Each checkpoint says in `data` which data the run has seen (a summary of its record, see
`cnn.data.identity`, and `changes`); the lists are in `dataset.json` in the run's
directory, written before the first step, without which the summary still refuses.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic, workdir
from cnn.data import identity, is_same_source, load_dataset
from cnn.data.files import format_bad
from cnn.data.images import BadFile, Dataset
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.option import read_group
from cnn.runtime.terminal import Terminal

DATASET_FILE = "dataset.json"
BAD_FILE = "bad_images.txt"
_REMEDY = (
    "Put the data back, or resume on them as they are with --allow_changed_data=true "
    "(its result will say so), or start from scratch in another --workdir"
)


@dataclasses.dataclass(frozen=True)
class Seen:
    """The data that a run sees, and those that it saw before they were changed.

    Attributes:
        record: of the data, as of `identity.make_record`.
        changes: what `--allow_changed_data` let pass: `step`, `from` and `to` (two
            fingerprints) and `changes` (texts) of each.
        earlier: the records of the data before, as far as they are known.
    """

    record: Mapping[str, Any]
    changes: tuple[Mapping[str, Any], ...] = ()
    earlier: tuple[Mapping[str, Any], ...] = ()

    def summarise(self) -> dict[str, Any]:
        """Return what a checkpoint says of the data."""
        return identity.summarise(self.record) | {"changes": list(self.changes)}


def compare(
    options: DataOptions,
    dataset: Dataset,
    stored: Mapping[str, Any],
    directory: Path | None,
    terminal: Terminal,
) -> Seen:
    """Compare the data of a start with those that the run has seen.

    Args:
        stored: what the run's newest checkpoint says of itself, with its `step`; empty
            without one: nothing was learned, and only another data set is refused.
        directory: of the run; None where there is none.

    Raises:
        UserError: they differ, and `--allow_changed_data` is not given, or the model
            has another number of classes; it says what has changed.
    """
    if dataset.train.names is None:  # what was published of data that are not here
        return Seen({})
    record = identity.make_record(dataset)
    known = [] if directory is None else read_records(directory)
    where = "the run" if directory is None else str(directory)
    if not stored:
        _check_same_name(where, known, record)
        return Seen(record)
    old = stored.get("data") or _describe_unnoted(stored)
    changes = tuple(old["changes"])
    seen = {old["fingerprint"], *(change["from"] for change in changes)}
    detailed = next((x for x in known if x["fingerprint"] == old["fingerprint"]), old)
    if old["fingerprint"]:
        lines = identity.list_changes(detailed, record)
    else:
        lines = _compare_unnoted(old, dataset)
    if lines:
        what = f"{_name_both(where, old, record)}: {'; '.join(lines)}"
        _check_allowed(options, what, detailed, record)
        terminal.say(f"changed   the data, from here on: {'; '.join(lines)}")
        change = {"step": stored["step"], "from": old["fingerprint"]}
        change |= {"to": record["fingerprint"], "changes": lines}
        changes += (change,)
    earlier = (x for x in known if x["fingerprint"] in seen - {record["fingerprint"]})
    return Seen(record, changes, tuple(earlier))


def check_result_of(result: Mapping[str, Any], seen: Seen, directory: Path) -> None:
    """Refuse to give the result of an ended run for that on other data.

    Raises:
        UserError: its data are others, which no flag can let pass any more.
    """
    if result.get("dataset_fingerprint") != seen.record["fingerprint"]:
        raise UserError(
            f"{directory} has ended on other data than are now in --dataset="
            f"{seen.record['dataset']}: its result is not theirs. Evaluate it on them "
            "by --mode=evaluate, or train in another --workdir"
        )


def write(directory: Path, seen: Seen) -> None:
    """Write `dataset.json`, with every list."""
    about = {"changes": seen.changes, "earlier": seen.earlier}
    atomic.write_text(directory / DATASET_FILE, json.dumps({**seen.record, **about}))


def write_bad(directory: Path, source: str, excluded: Sequence[BadFile]) -> None:
    """Write `bad_images.txt`, the files of a dataset that were left out, if any."""
    if excluded:
        atomic.write_text(directory / BAD_FILE, format_bad(source, excluded))


def read_records(directory: Path) -> list[dict[str, Any]]:
    """Return the records in a run's `dataset.json`, the newest first; none without.

    Those that are not as they were written are left out: what checkpoints say of the
    data still refuses others.
    """
    try:
        stored = workdir.read_json(directory / DATASET_FILE)
        found = [stored, *stored.pop("earlier")]
    except (UserError, AttributeError, KeyError, TypeError):
        return []
    return [x for x in found if identity.is_whole(x) and type(x.get("dataset")) is str]


def find_moved(directory: Path, options: DataOptions) -> dict[str, Any]:
    """Return a run's options, `dataset` as it is spelled now if its data have moved.

    Args:
        directory: of the run.
        options: of the data that are looked at. Those of files elsewhere are the run's
            own where names, contents and labels are, divided as the run divides them.
    """
    stored = workdir.read_config(directory)
    before, now = stored["dataset"], options.dataset
    if is_same_source(before, now) or before.partition(":")[0] != now.partition(":")[0]:
        return stored
    streamed = {"resident": "never", "storage_cache": ""}  # nothing is decoded
    moved = read_group(DataOptions, stored | {"dataset": now} | streamed)
    try:
        record = identity.make_record(load_dataset(moved))
    except UserError:  # they cannot be divided so
        return stored
    known = {x["fingerprint"] for x in read_records(directory)}
    is_own = record["fingerprint"] in known
    return stored | {"dataset": now} if is_own else stored


def describe_evaluated(
    directory: Path,
    stored: Mapping[str, Any],
    record: Mapping[str, Any],
    terminal: Terminal,
) -> dict[str, Any]:
    """Compare evaluated images with the data that the run has seen, and print it.

    Args:
        directory: of the run.
        stored: what its checkpoint says of its data; empty when it does not.
        record: of what is evaluated, as of `identity.make_part_record`.

    Returns:
        Of evaluation.json: `dataset_fingerprint` of what is evaluated,
        `dataset_changed` (None: unknown), whether the run saw other images under that
        name, and `trained_images` (None: unknown), how many of them it was trained on.
    """
    ((split, part),) = record["parts"].items()
    changed = count = None
    if not stored:
        terminal.say(
            "unknown   the run does not say which images it saw: it may have been "
            "trained on some of these"
        )
    else:
        known, is_whole = _find_seen(directory, stored)
        lines = _compare_evaluated(stored, known, record, split)
        changed = None if lines is None else bool(lines)
        if lines:
            shown = "; ".join(lines)
            terminal.say(f"other     images than the run's {split} set: {shown}")
        if is_whole:
            trained = identity.find_trained(part, known)
            count = len(trained)
            if trained and split != "train":
                terminal.say(
                    f"warning   the run was trained on {count} of these "
                    f"{part['count']} images: {identity.show(trained)}"
                )
    return {
        "dataset_fingerprint": record["fingerprint"],
        "dataset_changed": changed,
        "trained_images": count,
    }


def _compare_evaluated(
    stored: Mapping[str, Any],
    known: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    split: str,
) -> list[str] | None:
    """Say what differs from the part of that name which the run saw; None: unknown."""
    old = next((x for x in known if x["fingerprint"] == stored["fingerprint"]), None)
    if split in identity.PARTS:
        return identity.list_changes(identity.select(old or stored, split), record)
    if old is None:
        return None
    return identity.list_changes(identity.join(old), identity.join(record))


def warn_of_trained(
    directory: Path, stored: Mapping[str, Any], dataset: Dataset, terminal: Terminal
) -> None:
    """Print how many images to select on or to test on a source was trained on.

    Args:
        directory: of the run that is started from.
        stored: what its checkpoint says of its data; empty when it does not.
    """
    if not stored:
        return
    known, _ = _find_seen(directory, stored)
    for split in ("validation", "test"):
        images = getattr(dataset, split)
        if images is None:
            continue
        if trained := identity.find_trained(identity.describe(images), known):
            terminal.say(
                f"warning   {directory} was trained on {len(trained)} of the "
                f"{len(images)} {split} images: {identity.show(trained)}"
            )


def _find_seen(
    directory: Path, stored: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], bool]:
    """Return the records of the data that a run has seen, and whether these are all."""
    seen = {stored["fingerprint"], *(change["from"] for change in stored["changes"])}
    known = [x for x in read_records(directory) if x["fingerprint"] in seen]
    return known, len(known) == len(seen)


def _describe_unnoted(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Describe the data of a run whose version of the code did not note them."""
    dataset = stored["options"]["dataset"]
    names = stored["class_names"]
    return {"fingerprint": "", "dataset": dataset, "class_names": names, "changes": []}


def _compare_unnoted(old: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """Say what may have changed under a run that did not note its data."""
    there, here = old["class_names"], list(dataset.class_names)
    lines = []
    if there != here:
        lines.append(
            f"its classes were {identity.show(there)} and are {identity.show(here)}"
        )
    if old["dataset"] != dataset.name:
        lines.append("whether it is the same data set under another name is not known")
    if dataset.is_named:
        lines.append(
            "an earlier version of the code trained it, which did not note its files "
            "and split them otherwise, so that images may change between train and test"
        )
    return lines


def _check_same_name(
    where: str, known: Sequence[Mapping[str, Any]], record: Mapping[str, Any]
) -> None:
    """Refuse another data set for a run that has no checkpoint yet."""
    for old in known[:1]:
        if old["dataset"] != record["dataset"] and identity.list_changes(old, record):
            raise UserError(
                f"{_name_both(where, old, record)}. Give its own to start it again, or "
                "another --workdir"
            )


def _name_both(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name a run's data and those of this start, with their fingerprints."""
    there, here = (
        f"--dataset={x['dataset']} (fingerprint {x['fingerprint'][:12] or 'unknown'})"
        for x in (old, new)
    )
    return f"{where} saw other data, {there}, than are there now, {here}"


def _check_allowed(
    options: DataOptions,
    what: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
) -> None:
    """Refuse changed data, unless `--allow_changed_data` lets them pass."""
    if not identity.keep_numbers(old, new):
        raise UserError(
            f"{what}. What the model knows as class 0, 1, … would mean other classes: "
            "put the data back, or start from scratch in another --workdir"
        )
    if not options.allow_changed_data:
        raise UserError(f"{what}. {_REMEDY}")
