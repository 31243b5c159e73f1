"""Two groups of runs, paired by their seeds: differences, and how many seeds decide.

The test is Student's paired one, two-sided, at 5 %; how many seeds it needs follows
from its power at the mean and the spread that the pairs so far have.

Source: Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, chapter 2
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn.errors import UserError
from cnn.ledger.find import RUN, Place
from cnn.ledger.read import Entry, read_entries
from cnn.sweep import table
from cnn.training import tasks

POWER, LEVEL = 0.8, 0.05
MOST = 10_000  # seeds beyond which nobody would train


def compare_groups(one: Sequence[Path], other: Sequence[Path]) -> list[dict[str, Any]]:
    """Compare the metrics of two groups of runs over the seeds that both have.

    Returns:
        A row for each metric: `metric`, `n` (pairs), `first` and `second` (means),
        `difference` (of the second minus the first), `low` and `high` (its 95 %
        t-interval), and `needed`: the seeds with which the test would find a
        difference of that size in 80 % of cases; None where nothing says that.

    Raises:
        UserError: a group has two runs of a seed, or the groups have none in common.
    """
    here, there = _by_seed(one), _by_seed(other)
    seeds = [seed for seed in here if seed in there]
    if not seeds:
        raise UserError(
            f"the groups of --workdir have no seed in common that has ended: "
            f"{sorted(here)} and {sorted(there)}; train both with the same --seed"
        )
    rows = []
    for name in _list_metrics([here[seed] for seed in seeds]):
        pairs = [(here[s].found.get(name), there[s].found.get(name)) for s in seeds]
        pairs = [pair for pair in pairs if all(map(_is_finite, pair))]
        if not pairs:
            continue
        first, second = (table.compute_interval(x)[0] for x in zip(*pairs, strict=True))
        found = table.compute_interval([y - x for x, y in pairs])
        row = {"metric": name, "n": len(pairs), "first": first, "second": second}
        row |= dict(zip(("difference", "sd", "low", "high"), found, strict=True))
        rows.append(row | {"needed": find_needed(row["difference"], row["sd"])})
    return rows


def _by_seed(runs: Sequence[Path]) -> dict[Any, Entry]:
    """Read the runs of a group that have ended, by seed."""
    found: dict[Any, Entry] = {}
    for run in runs:
        (entry,) = read_entries(Place(run, run, RUN))
        seed = entry.options.get("seed")
        if entry.state != "ended":
            continue
        if seed in found:
            raise UserError(
                f"{found[seed].name} and {run} are both of --seed={seed}; give a "
                "pattern whose runs differ in their seeds alone"
            )
        found[seed] = entry
    return found


def _list_metrics(entries: Sequence[Entry]) -> list[str]:
    splits = ("test", "validation")
    names = [
        f"{x}_{y}"
        for x in splits
        for task in tasks.TASKS.values()
        for y in task.compared
    ]
    return [n for n in dict.fromkeys(names) if any(n in x.found for x in entries)]


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def compute_power(count: int, effect: float) -> float:
    """Compute the power of the paired t-test, two-sided at 5 %.

    Args:
        count: of pairs, at least 2.
        effect: the mean of the differences over their standard deviation.
    """
    from scipy import special

    freedom, shift = count - 1, abs(effect) * math.sqrt(count)
    limit = float(special.stdtrit(freedom, 1 - LEVEL / 2))
    lower = float(special.nctdtr(freedom, shift, -limit))
    if math.isnan(lower):  # scipy's answer where it is below 1e-16
        lower = 0.0
    return float(1 - special.nctdtr(freedom, shift, limit) + lower)


def find_needed(mean: float | None, spread: float | None) -> int | None:
    """Find how many pairs give the test a power of 80 %.

    Args:
        mean: of the differences.
        spread: their standard deviation; None with fewer than two.

    Returns:
        None where no number up to `MOST` does, or there is no spread to go by.
    """
    if not mean or not spread:
        return None
    low, high = 1, 2  # `low` is too few
    while compute_power(high, mean / spread) < POWER:
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        is_enough = compute_power(middle, mean / spread) >= POWER
        low, high = (low, middle) if is_enough else (middle, high)
    return high


def describe(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Write what `compare_groups` found, a line for each metric."""
    lines = [_describe(row) for row in rows]
    test = f"paired t-test, two-sided, alpha {LEVEL:.0%}, power {POWER:.0%}"
    return [*lines, f"differences are of the second minus the first; {test}"]


def _describe(row: dict[str, Any]) -> str:
    text = f"{row['metric']:30}{row['first']:.4f}, {row['second']:.4f}: "
    text += f"{row['difference']:+.4f}"
    if row["low"] is None:
        return f"{text} (n=1; two seeds are the least that tell anything)"
    text += f" [{row['low']:+.4f}, {row['high']:+.4f}], n={row['n']}; "
    if row["low"] == row["high"] == 0:
        return f"{text}alike in every pair"
    if row["low"] > 0 or row["high"] < 0:
        return f"{text}the interval leaves 0 out: decided"
    needed = row["needed"]
    if needed is None:
        return f"{text}not decided, nor by {MOST:,} seeds if it stays so"
    more = max(needed - row["n"], 0)
    seeds = f"{more} more seed{'' if more == 1 else 's'} would"
    return f"{text}not decided; {seeds}, if it stays so ({needed} in all)"
