"""The table of a sweep: a row for every trial that has ended, safe on disk.

Each row is a line of `trials.jsonl`, on disk before the next batch begins; a line that
was half written when the process died is cut off, and of a trial that was run again the
last line counts. A line that is not what was written is moved to
`trials.jsonl.damaged`, and its trial runs again. `trials.csv` is made from the lines.

Settings are compared by mean, spread and interval over seeds, paired with the best. Of
equal ones the one with the lower validation loss is better, then the earlier one.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic
from cnn.errors import UserError, explain
from cnn.option import format_value
from cnn.runtime import own_files
from cnn.runtime.terminal import Terminal
from cnn.sweep.lines import seal, unseal
from cnn.sweep.trials import make_setting
from cnn.text import format_row
from cnn.training import tasks

Row = dict[str, Any]
FIRST_COLUMNS = ["trial", "status"]  # the options follow
_LAST = ["best_epoch", "stopped_early", "trained_epochs", "steps", "seconds"]
_LAST += ["num_parameters", "executor", "state_sha256", "reason"]
CONFIDENCE = 0.95
_DECIMALS = 12


def list_last_columns(rows: Iterable[Row]) -> list[str]:
    """List the columns behind the options: metrics of the rows' task, and the rest."""
    known = [row for row in rows if "validation_loss" in row]
    metrics = tasks.get_task(known[0] if known else {}).compared
    splits = ("validation", "test")
    return [f"{split}_{name}" for split in splits for name in metrics] + _LAST


class TrialLog:
    """Appends rows to `trials.jsonl`."""

    def __init__(self, path: Path) -> None:
        """Read the rows that are there and open the file to append.

        Raises:
            UserError: the file cannot be read, or a line but the last is damaged.
        """
        self.rows, self._path = read_rows(path), path
        whole = own_files.read(path).rfind(b"\n") + 1 if path.exists() else 0
        own_files.unshare(path)
        self._file = own_files.open_own(path, "ab", buffering=0)
        self._file.truncate(whole)

    def append(self, rows: Sequence[Row]) -> None:
        """Append rows, in the place of others of their trials.

        They are on disk when this returns.

        Raises:
            UserError: the disk does not take them; the file is as it was.
        """
        try:
            atomic.append(self._file, b"".join(map(seal, rows)))
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({explain(error)}); the trials that "
                "have ended before are kept"
            ) from None
        new = {row["trial"] for row in rows}
        self.rows = [row for row in self.rows if row["trial"] not in new] + [*rows]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_rows(path: Path, is_strict: bool = True) -> list[Row]:
    """Read the rows of a file, the last of each trial; none when it is absent.

    Args:
        is_strict: whether to refuse a file with damaged lines, or to leave them out.

    Raises:
        UserError: the file cannot be read, or a line other than the last is damaged.
    """
    rows: dict[int, Row] = {}
    for number, (_, row) in enumerate(_read_lines(path), start=1):
        if row is not None:
            rows[row["trial"]] = row
        elif is_strict:
            raise UserError(
                f"{path}: line {number} is damaged; the sweep's own command leaves it "
                "out, and runs its trial again"
            )
    return list(rows.values())


def mend(path: Path, terminal: Terminal) -> None:
    """Move the damaged lines of a file that this process has locked out of it."""
    lines = _read_lines(path)
    damaged = [line for line, row in lines if row is None]
    if not damaged:
        return
    beside = path.with_name(f"{path.name}.damaged")
    before = own_files.read(beside) if beside.exists() else b""
    atomic.write_bytes(beside, before + b"".join(damaged))
    whole = b"".join(line for line, row in lines if row is not None)
    atomic.write_bytes(path, whole)
    terminal.say(
        f"warning   {path}: {len(damaged)} of {len(lines)} lines are damaged and are "
        f"now in {beside.name}; their trials run again"
    )


def _read_lines(path: Path) -> list[tuple[bytes, Row | None]]:
    """Read the whole lines of a file, and the row of each; None of a damaged one."""
    try:
        content = own_files.read(path) if path.exists() else b""
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    return [(line + b"\n", _read_row(line)) for line in content.split(b"\n")[:-1]]


def _read_row(line: bytes) -> Row | None:
    try:
        row = unseal(line)
    except ValueError:
        return None
    return row if type(row.get("trial")) is int else None


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    """Write the table of trials, in the order of their numbers, whole or not at all."""
    write_rows(path, *flatten(rows))


def flatten(rows: Iterable[Row]) -> tuple[list[str], list[Row]]:
    """Return the columns of a table of trials, and its rows by number, options inside.

    A row may lack columns, and has more than these.
    """
    rows = sorted(rows, key=lambda row: row["trial"])
    names = list(dict.fromkeys(n for row in rows for n in row["options"]))
    columns = FIRST_COLUMNS + names + list_last_columns(rows)
    return columns, [row | row["options"] for row in rows]


def write_rows(
    path: Path, columns: Sequence[str], rows: Iterable[dict[str, Any]]
) -> None:
    """Write a CSV file whole or not at all; missing and None cells stay empty."""
    lines = [format_row(columns)]
    for row in rows:
        cells = [row.get(name) for name in columns]
        lines.append(format_row("" if x is None else format_value(x) for x in cells))
    atomic.write_text(path, "".join(lines))


def write_settings(path: Path, ranking: Sequence[dict[str, Any]]) -> None:
    """Write the table of settings, as `rank_settings` returns them."""
    names = list(dict.fromkeys(n for row in ranking for n in row["options"]))
    names += [name for name in ranking[0] if name != "options"]
    write_rows(path, names, [row | row["options"] for row in ranking])


def make_place(cost: float, loss: float, number: int) -> tuple[float, float, int]:
    """Make what settings and trials are sorted by, the best first.

    Args:
        cost: the metric, negative where more is better; sums of the same numbers in
            another order are equal.
        loss: what decides between equal ones.
        number: what decides last.
    """
    return round(cost, _DECIMALS), round(loss, _DECIMALS), number


def rank_settings(rows: Sequence[Row], select_by: str) -> list[dict[str, Any]]:
    """Rank the settings of a sweep by the mean of a validation metric over seeds.

    Args:
        rows: of trials; only those that finished count, and those whose numbers are
            not finite have failed.
        select_by: a metric of `Task.select_by`.

    Returns:
        A row for each setting, the best first, those with a failed trial last:
        `options` (without seed), `trials` (their numbers), `failed`, `n` (different
        seeds); `mean`, `sd`, `low` and `high` of the validation metric (95 %
        t-interval, within what the metric can be); the same of the test metric with
        the prefix `test_`; `validation_loss`, its mean; `difference`,
        `difference_low`, `difference_high`: this setting minus the best, over the
        seeds that both have. What needs two seeds is None with one.
    """
    settings: dict[tuple, list[Row]] = {}
    for row in rows:
        settings.setdefault(make_setting(row["options"]), []).append(row)
    ranking = [_summarise(group, select_by) for group in settings.values()]
    sign = 1 if select_by == "loss" else -1
    ranking = [row for row in ranking if row["n"]]
    ranking.sort(
        key=lambda row: (
            row["failed"],
            *make_place(sign * row["mean"], row["validation_loss"], row["trials"][0]),
        )
    )
    most = math.inf if select_by == "loss" else 1.0
    for row in ranking:
        own, best = row["by_seed"], ranking[0]["by_seed"]
        differences = [own[seed] - best[seed] for seed in own if seed in best]
        names = ("difference", "_", "difference_low", "difference_high")
        found = compute_interval(differences, -most, most)
        row |= dict(zip(names, found, strict=True))
    return [
        {k: v for k, v in row.items() if k not in ("_", "by_seed")} for row in ranking
    ]


def find_best_trial(rows: Sequence[Row], select_by: str) -> Row | None:
    """Find the best trial of the best setting; None when none has finished."""
    ranking = rank_settings(rows, select_by)
    if not ranking:
        return None
    sign = 1 if select_by == "loss" else -1
    own = [r for r in rows if r["trial"] in ranking[0]["trials"]]
    finished = [row for row in own if is_comparable(row, select_by)]

    def place(row: Row) -> tuple:
        metric = sign * row[f"validation_{select_by}"]
        return make_place(metric, row["validation_loss"], row["trial"])

    return min(finished, key=place)


def describe_ties(
    ranking: Sequence[dict[str, Any]], rows: Sequence[Row], select_by: str
) -> list[str]:
    """Say between which settings, and trials of the best one, the loss decides."""
    if not ranking or select_by == "loss":
        return []
    best, metric = ranking[0], f"validation_{select_by}"
    means = [(row["failed"], round(row["mean"], _DECIMALS)) for row in ranking]
    settings = means.count(means[0])
    own = [row[metric] for row in rows if row["trial"] in best["trials"]]
    trials = own.count(max(own))
    decides = "the lower validation loss decides, then the lower number"
    said = []
    if settings > 1:
        said.append(f"{settings} settings share the best mean {select_by}: {decides}")
    if trials > 1:
        said.append(f"{trials} trials of it share the best {select_by}: {decides}")
    return said


def compute_interval(
    values: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> tuple[float | None, float | None, float | None, float | None]:
    """Compute mean, standard deviation and the ends of the mean's 95 % t-interval.

    Args:
        values: in [least, most], which the interval does not leave either.

    Returns:
        Four numbers; all None without values, the last three None with one value.
    """
    if not values:
        return None, None, None, None
    count = len(values)
    if count == 1:
        return values[0], None, None, None
    if min(values) == max(values):  # whose sum may be rounded
        return values[0], 0.0, values[0], values[0]
    mean = math.fsum(values) / count
    if not math.isfinite(mean):
        return mean, None, None, None
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    # Student's quantile; scipy.stats has it too, and takes seconds to import.
    from scipy import special

    quantile = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    half = quantile * spread / math.sqrt(count)
    return mean, spread, max(mean - half, least), min(mean + half, most)


def is_comparable(row: Row, select_by: str) -> bool:
    """Return whether a trial has finished with numbers that can be ranked."""
    names = f"validation_{select_by}", "validation_loss"
    return row["status"] == "finished" and all(math.isfinite(row[n]) for n in names)


def _has_failed(row: Row, select_by: str) -> bool:
    is_finished = row["status"] == "finished"
    return row["status"] == "failed" or (
        is_finished and not is_comparable(row, select_by)
    )


def _summarise(group: Sequence[Row], select_by: str) -> dict[str, Any]:
    by_seed: dict[int | None, Row] = {}  # the same seed again is no repetition
    for row in sorted(group, key=lambda row: row["trial"]):
        if is_comparable(row, select_by):
            by_seed.setdefault(row["options"].get("seed"), row)
    finished = list(by_seed.values())
    options = {n: v for n, v in group[0]["options"].items() if n != "seed"}
    row: dict[str, Any] = {
        "options": options,
        "trials": [row["trial"] for row in finished],
        "failed": sum(_has_failed(row, select_by) for row in group),
        "n": len(finished),
    }
    for split, prefix in (("validation", ""), ("test", "test_")):
        values = [row[f"{split}_{select_by}"] for row in finished]
        names = [f"{prefix}{name}" for name in ("mean", "sd", "low", "high")]
        found = compute_interval(values, 0.0, math.inf if select_by == "loss" else 1.0)
        row |= dict(zip(names, found, strict=True))
    row["validation_loss"] = compute_interval([r["validation_loss"] for r in finished])[
        0
    ]
    row["by_seed"] = {
        seed: own[f"validation_{select_by}"] for seed, own in by_seed.items()
    }
    return row
