"""What identifies data: names, stamps and labels of the examples, classes in order.

A record is JSON: `fingerprint`, `dataset` (where the data lay; no part of the
fingerprint), `class_names` and, for each part, its `count` and `fingerprint` and the
lists `names`, `stamps` and `labels` (each a number, or a list of them where an image
may have several), in the order of the examples; of files also `taken`, what of them was
taken and left out, which is no part of the fingerprint. A summary of it has neither
lists nor `taken`. Fingerprints are SHA-256 and are equal where the lists are.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from cnn.data import labels
from cnn.data.images import Dataset, Images
from cnn.text import show_line

PARTS = ("train", "validation", "test")
_SHOWN = 3

Record = Mapping[str, Any]


def make_record(dataset: Dataset) -> dict[str, Any]:
    """Make the record of a loaded dataset."""
    found = {name: getattr(dataset, name) for name in PARTS}
    parts = {name: describe(part) for name, part in found.items() if part is not None}
    class_names = list(dataset.class_names)
    prints = {name: part["fingerprint"] for name, part in parts.items()}
    record = {
        "fingerprint": _hash([class_names, prints]),
        "dataset": dataset.name,
        "class_names": class_names,
        "parts": parts,
    }
    if dataset.taken:
        unread = [bad.name for bad in dataset.excluded]
        record["taken"] = {**dataset.taken, "unreadable": unread}
    return record


def is_whole(record: Any) -> bool:
    """Return whether JSON is a record with its lists, as its fingerprints say."""
    try:
        parts = {
            name: {x: part[x] for x in ("names", "stamps", "labels")}
            for name, part in record["parts"].items()
        }
        prints = {name: _hash(part) for name, part in parts.items()}
        counts = [{len(x) for x in part.values()} for part in parts.values()]
        kept = [{part["count"]} for part in record["parts"].values()]
        said = {name: part["fingerprint"] for name, part in record["parts"].items()}
        whole = _hash([record["class_names"], prints])
        return (said, record["fingerprint"], counts) == (prints, whole, kept)
    except (TypeError, LookupError, AttributeError):
        return False


def describe(images: Images) -> dict[str, Any]:
    """Return what a record says of a part."""
    lists = {
        "names": list(images.names),
        "stamps": list(images.stamps),
        "labels": labels.to_lists(images.labels),
    }
    return {"count": len(images), "fingerprint": _hash(lists), **lists}


def make_part_record(
    class_names: Sequence[str], name: str, images: Images
) -> dict[str, Any]:
    """Make the record of a part alone, or of `all` parts together, without `dataset`.

    Args:
        class_names: of the labels.
        name: of the part.
    """
    part = describe(images)
    return {
        "fingerprint": _hash([list(class_names), part["fingerprint"]]),
        "class_names": list(class_names),
        "parts": {name: part},
    }


def summarise(record: Record) -> dict[str, Any]:
    """Return a record without its lists and without what was taken."""
    parts = {
        name: {"count": part["count"], "fingerprint": part["fingerprint"]}
        for name, part in record["parts"].items()
    }
    kept = {name: value for name, value in record.items() if name != "taken"}
    return {**kept, "parts": parts}


def select(record: Record, name: str) -> dict[str, Any]:
    """Return what a record, or its summary, says of one part alone."""
    part, class_names = record["parts"].get(name), record["class_names"]
    return {
        "fingerprint": _hash([class_names, part["fingerprint"]]) if part else "",
        "class_names": class_names,
        "parts": {name: part} if part else {},
    }


def join(record: Record) -> dict[str, Any]:
    """Return a record, with its lists, with its parts joined to one, `all`, by name."""
    examples = sorted(
        example
        for part in record["parts"].values()
        for example in zip(part["names"], part["stamps"], part["labels"], strict=True)
    )
    names, stamps, labels = map(list, zip(*examples, strict=True))
    lists = {"names": names, "stamps": stamps, "labels": labels}
    return {
        "fingerprint": _hash([record["class_names"], lists]),
        "class_names": record["class_names"],
        "parts": {"all": {"count": len(names), "fingerprint": _hash(lists), **lists}},
    }


def list_changes(old: Record, new: Record) -> list[str]:
    """Say what differs between two data sets, a line for each kind of change.

    Args:
        old: the record, or its summary, of what was seen.
        new: the record of what is there.

    Returns:
        No line exactly when the fingerprints are equal.
    """
    if old["fingerprint"] == new["fingerprint"]:
        return []
    if not all("names" in part for part in old["parts"].values()):
        lines = _compare_classes(old, new, {})
        return lines + _compare_summaries(old["parts"], new["parts"])
    before, after = _index(old), _index(new)
    pairs = _pair(before, after)
    renamed = _find_renamed_classes(old, new, [(before[a], after[b]) for a, b in pairs])
    lines = _compare_classes(old, new, renamed)
    lines += _compare_examples(before, after, pairs, renamed)
    return lines or ["the order of the examples has changed"]


def keep_numbers(old: Record, new: Record) -> bool:
    """Return whether every class has the number that it had, under whatever name."""
    there, here = old["class_names"], new["class_names"]
    parts = old.get("parts", {}).values()
    if there == here or not all("names" in part for part in parts) or not parts:
        return there == here
    before, after = _index(old), _index(new)
    pairs = [(before[a], after[b]) for a, b in _pair(before, after)]
    renamed = _find_renamed_classes(old, new, pairs)
    return [renamed.get(name, name) for name in there] == here


def find_trained(part: Mapping[str, Any], records: Iterable[Record]) -> list[str]:
    """Find images that runs of these records were trained on, whatever their names.

    Args:
        part: of a record, with its lists.
        records: likewise.

    Returns:
        The names of those in `part`.
    """
    known = {
        stamp for record in records for stamp in record["parts"]["train"]["stamps"]
    }
    pairs = zip(part["names"], part["stamps"], strict=True)
    return [name for name, stamp in pairs if stamp in known]


def show(names: Sequence[str]) -> str:
    """Write the first few of some names."""
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(map(show_line, names[:_SHOWN])) + more


class _Example(NamedTuple):
    part: str
    stamp: str
    label: str


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _index(record: Record) -> dict[str, _Example]:
    """Map each example's name to what is known of it; repeated names are numbered."""
    found: dict[str, _Example] = {}
    class_names = record["class_names"]
    for part_name, part in record["parts"].items():
        lists = part["names"], part["stamps"], part["labels"]
        for name, stamp, label in zip(*lists, strict=True):
            key, number = name, 1
            while key in found:
                number += 1
                key = f"{name} ({number})"
            written = labels.write(label, class_names) or labels.NONE
            found[key] = _Example(part_name, stamp, written)
    return found


def _pair(
    before: Mapping[str, _Example], after: Mapping[str, _Example]
) -> list[tuple[str, str]]:
    """Pair the examples of two records by name, what is left by contents."""
    pairs = [(name, name) for name in before if name in after]
    left: dict[str, list[str]] = {}
    for name in after:
        if name not in before:
            left.setdefault(after[name].stamp, []).append(name)
    for name in before:
        if name not in after and left.get(before[name].stamp):
            pairs.append((name, left[before[name].stamp].pop(0)))
    return pairs


def _find_renamed_classes(
    old: Record, new: Record, pairs: Sequence[tuple[_Example, _Example]]
) -> dict[str, str]:
    """Map each class that has gone to the new one that most of its examples are in."""
    counts: dict[str, dict[str, int]] = {}
    for a, b in pairs:
        is_named = a.label in old["class_names"] and b.label in new["class_names"]
        is_new = a.label not in new["class_names"] and b.label not in old["class_names"]
        if is_named and is_new:  # of several labels it is not known which became which
            votes = counts.setdefault(a.label, {})
            votes[b.label] = votes.get(b.label, 0) + 1
    return {name: max(votes, key=votes.__getitem__) for name, votes in counts.items()}


def _compare_classes(old: Record, new: Record, renamed: Mapping[str, str]) -> list[str]:
    there, here = old["class_names"], new["class_names"]
    lines = [f"class {a} renamed to {b}" for a, b in renamed.items()]
    gone = [name for name in there if name not in here and name not in renamed]
    come = [name for name in here if name not in there + list(renamed.values())]
    lines += [f"{len(gone)} classes removed ({show(gone)})"] if gone else []
    lines += [f"{len(come)} classes added ({show(come)})"] if come else []
    if [renamed.get(name, name) for name in there] != here and not gone + come:
        lines.append(f"the order of the classes is now {show(here)}")
    return lines


def _compare_summaries(old: Record, new: Record) -> list[str]:
    """Compare parts of which no lists are known."""
    lines = []
    for name in PARTS:
        there, here = old.get(name), new.get(name)
        if there is None or here is None:
            if there != here:
                lines.append(f"the {name} set has {'come' if here else 'gone'}")
        elif there["count"] != here["count"]:
            lines.append(
                f"the {name} set had {there['count']} examples and has {here['count']}"
            )
        elif there["fingerprint"] != here["fingerprint"]:
            lines.append(
                f"the {name} set has other names, contents or labels "
                f"({here['count']} examples as before)"
            )
    return lines


def _compare_examples(
    before: Mapping[str, _Example],
    after: Mapping[str, _Example],
    pairs: Sequence[tuple[str, str]],
    renamed: Mapping[str, str],
) -> list[str]:
    """Say what came, went, and what is otherwise with those of both records."""
    kinds: dict[str, list[str]] = {}
    there, here = (
        (set(names) for names in zip(*pairs, strict=True)) if pairs else ({}, {})
    )
    kinds["added"] = [name for name in after if name not in here]
    kinds["removed"] = [name for name in before if name not in there]
    for old_name, name in pairs:
        a, b = before[old_name], after[name]
        is_relabelled = renamed.get(a.label, a.label) != b.label
        if is_relabelled:
            kinds.setdefault("relabelled", []).append(
                f"{name}: {a.label}, now {b.label}"
            )
        if a.stamp != b.stamp:
            kinds.setdefault("of other contents", []).append(name)
        if old_name != name and not is_relabelled and a.label not in renamed:
            kinds.setdefault("renamed", []).append(f"{old_name} to {name}")
        if a.part != b.part:
            kinds.setdefault(f"moved from {a.part} to {b.part}", []).append(name)
    return [f"{len(x)} {kind} ({show(x)})" for kind, x in kinds.items() if x]
