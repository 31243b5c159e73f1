"""Mode compare: where two runs part, or by how much two groups of them differ.

Of two runs what they were given is compared first, then what they did, step by step,
and their weights by layer; numbers are compared to the last bit. Nothing is written.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn.checkpoints import checkpoint, manifest, workdir
from cnn.checkpoints.workdir import METRICS_FILE
from cnn.config import Config, list_fields
from cnn.data import identity
from cnn.errors import UserError, explain
from cnn.ledger import paired
from cnn.models.variables import flatten_paths
from cnn.option import format_value
from cnn.runtime import devices, environment, own_files
from cnn.runtime.terminal import Terminal
from cnn.text import show_line
from cnn.training import same_data

_TIMED = ("seconds", "images_per_second")  # no two runs have these alike
_ORDER = "example_ids_hash"
_SHOWN = 5


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a comparison says of one aspect.

    Attributes:
        aspect: options, data, versions, order, numbers, weights or result.
        difference: the first one; empty where there is none, None where it cannot be
            told.
        note: what was compared, or why it cannot be told.
    """

    aspect: str
    difference: str | None
    note: str = ""

    def __str__(self) -> str:
        said = "cannot be told" if self.difference is None else self.difference
        said = show_line(said or "alike")
        return f"{self.aspect:10}{said}" + (f" ({self.note})" if self.note else "")


def compare(text: str, terminal: Terminal) -> list[Finding] | list[dict[str, Any]]:
    """Compare two runs, or two groups of runs that are paired by their seeds.

    Args:
        text: two directories or patterns of directories, separated by a comma.

    Returns:
        What was printed.

    Raises:
        UserError: these are not two, one is no run, or no seed is in both groups.
    """
    groups = workdir.split_groups(text)
    if len(groups) != 2:
        raise UserError(
            f"--mode=compare takes two runs, or two patterns of runs, as --workdir=A,B;"
            f" {show_line(text) or 'none'} names {len(groups)}"
        )
    if any(len(group) > 1 for group in groups):
        rows = paired.compare_groups(*groups)
        for line in paired.describe(rows):
            terminal.say(line)
        return rows
    findings = compare_runs(groups[0][0], groups[1][0])
    for finding in findings:
        terminal.say(str(finding))
    different = [one.aspect for one in findings if one.difference]
    first = f"they part in: {', '.join(different)}" if different else "they do not part"
    terminal.say(first)
    return findings


def compare_runs(one: Path, other: Path) -> list[Finding]:
    """Compare two runs in what they were given, what they did, and their weights.

    Raises:
        UserError: one is no run, or a checkpoint that both have is damaged.
    """
    options = [Config().to_flat() | workdir.read_options(x) for x in (one, other)]
    lines = [_read_lines(x / METRICS_FILE) for x in (one, other)]
    results = [_read_result(x) for x in (one, other)]
    return [
        Finding("options", _compare_options(*options)),
        _compare_data(one, other),
        _compare_versions(one, other),
        _compare_order(*lines),
        _compare_numbers(*lines),
        _compare_weights(one, other),
        _compare_results(*results),
    ]


def _compare_options(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """Say which options that make another run differ, in the order of `--help`."""
    fields = list_fields()
    names = [name for name, field in fields.items() if field.metadata["changes_run"]]
    names += sorted({*here, *there} - {*fields})
    return "; ".join(
        f"--{name}={format_value(here.get(name))}, {format_value(there.get(name))}"
        for name in names
        if here.get(name) != there.get(name)
    )


def _compare_data(one: Path, other: Path) -> Finding:
    records = [same_data.read_records(x) for x in (one, other)]
    if not all(records):
        return Finding("data", None, "dataset.json of one is missing or damaged")
    lines = identity.list_changes(records[0][0], records[1][0])
    return Finding("data", "; ".join(lines), "now: the second's" if lines else "")


def _compare_versions(one: Path, other: Path) -> Finding:
    found = [_read_environment(x) for x in (one, other)]
    if not all(found):
        return Finding("versions", None, "one has neither result nor checkpoint")
    changes = environment.list_changes(*found)
    return Finding(
        "versions", "; ".join(changes), "now: the second's" if changes else ""
    )


def _read_environment(run: Path) -> dict[str, Any]:
    """Read in which environment the newest checkpoint of a run was written."""
    steps = manifest.list_steps(run / "checkpoints")
    if not steps:
        return {}
    path = run / "checkpoints" / str(steps[-1])
    return manifest.read_description(path).get("environment", {})


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a metrics.jsonl that are whole."""
    try:
        texts = own_files.read(path).splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({explain(error)})") from None
    lines = []
    for text in texts:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and type(line.get("step")) is int:
            lines.append(line)
    return lines


def _pair(
    here: list[dict[str, Any]], there: list[dict[str, Any]]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pair lines of the same step, those of steps and those of epochs apart."""
    found = {(line["step"], "epoch" in line): line for line in there}
    keys = [(line["step"], "epoch" in line) for line in here]
    return [
        (line, found[key]) for line, key in zip(here, keys, strict=True) if key in found
    ]


def _compare_order(here: list[dict[str, Any]], there: list[dict[str, Any]]) -> Finding:
    pairs = [pair for pair in _pair(here, there) if all(_ORDER in x for x in pair)]
    if not pairs:
        return Finding("order", None, "no common step is logged: --log_every_steps=1")
    note = f"{len(pairs)} steps logged"
    for x, y in pairs:
        if x[_ORDER] != y[_ORDER]:
            said = f"step {x['step']} saw other examples, or in another order"
            return Finding("order", said, note)
    return Finding("order", "", note)


def _compare_numbers(
    here: list[dict[str, Any]], there: list[dict[str, Any]]
) -> Finding:
    pairs = _pair(here, there)
    if not pairs:
        return Finding("numbers", None, "metrics.jsonl have no step in common")
    note = f"{len(pairs)} lines of metrics.jsonl"
    for x, y in pairs:
        for name in x:
            is_compared = name in y and name not in (*_TIMED, _ORDER)
            if is_compared and repr(x[name]) != repr(y[name]):
                said = f"step {x['step']}: {name} {x[name]!r}, {y[name]!r}"
                return Finding("numbers", said + _subtract(x[name], y[name]), note)
    return Finding("numbers", "", note)


def _subtract(here: Any, there: Any) -> str:
    is_number = all(type(x) in (int, float) for x in (here, there))
    return f", by {abs(there - here):.3g}" if is_number else ""


def _compare_weights(one: Path, other: Path) -> Finding:
    """Compare the weights at the steps of which both have a checkpoint."""
    steps = [manifest.list_steps(x / "checkpoints") for x in (one, other)]
    common = sorted({*steps[0]} & {*steps[1]})
    if not common:
        return Finding("weights", None, "no checkpoint of the same step")
    note = f"checkpoints {', '.join(map(str, common))}"
    for step in common:
        here, there = (
            _read_weights(x / "checkpoints" / str(step)) for x in (one, other)
        )
        if said := _find_layer(here, there):
            return Finding("weights", f"step {step}: {said}", note)
    return Finding("weights", "", note)


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    sharding = devices.replicated(devices.make_mesh())
    tree = checkpoint.read_variables(path, False, sharding)
    return flatten_paths(jax.tree.map(np.asarray, tree))


def _find_layer(here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> str:
    """Say which layer, from the input on, is the first to differ, and by how much.

    Args:
        here: arrays by path.
        there: likewise.
    """
    paths = sorted({*here, *there}, key=_place)
    different = [x for x in paths if not _is_same(here.get(x), there.get(x))]
    if not different:
        return ""
    first, more = different[0], f"; {len(different)} of {len(paths)} arrays differ"
    x, y = here.get(first), there.get(first)
    if x is None or y is None or (x.shape, x.dtype) != (y.shape, y.dtype):
        shapes = ["none" if z is None else f"{z.dtype}{[*z.shape]}" for z in (x, y)]
        return f"{first} {', '.join(shapes)}{more}"
    places = np.argwhere(_to_bits(x) != _to_bits(y))
    place = tuple(map(int, places[0]))
    with np.errstate(invalid="ignore"):
        most = np.max(np.abs(x.astype(np.float64) - y.astype(np.float64)))
    return (
        f"{first}: {len(places)} of {x.size} values differ, by {most:.3g} at most, "
        f"first at {[*place]}: {x[place].item()!r}, {y[place].item()!r}{more}"
    )


def _is_same(here: np.ndarray | None, there: np.ndarray | None) -> bool:
    if here is None or there is None:
        return False
    is_alike = (here.shape, here.dtype) == (there.shape, there.dtype)
    return is_alike and here.tobytes() == there.tobytes()


def _to_bits(array: np.ndarray) -> np.ndarray:
    """View numbers as whole ones of their bits."""
    return (
        np.ascontiguousarray(array)
        .view(f"u{array.dtype.itemsize}")
        .reshape(array.shape)
    )


def _place(path: str) -> tuple:
    """Return what paths are sorted by from the input on: stem, stages, head."""
    collection, _, inner = path.partition("/")
    ranks: Mapping[str, int] = {"stem": 0, "stage": 1, "head": 3}
    rank = next((n for word, n in ranks.items() if inner.startswith(word)), 2)
    parts = re.split(r"(\d+)", inner)
    natural = [(int(x), "") if x.isdecimal() else (-1, x) for x in parts]
    return rank, natural, collection != "params"


def _read_result(run: Path) -> dict[str, Any]:
    try:
        result = workdir.read_json(run / "result.json")
    except UserError:
        return {}
    return result if isinstance(result, dict) else {}


def _compare_results(here: Mapping[str, Any], there: Mapping[str, Any]) -> Finding:
    if not here or not there:
        return Finding("result", None, "one of them has not ended")
    names = ["steps", "state_sha256"]
    names += [n for n in here if n.startswith(("test_", "best_"))]
    said = [
        f"{name} {here.get(name)!r}, {there.get(name)!r}"
        + _subtract(here.get(name), there.get(name))
        for name in names
        if here.get(name) != there.get(name)
    ]
    return Finding("result", "; ".join(said[:_SHOWN]))
