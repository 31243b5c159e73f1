"""Settings compared: mean, spread and interval over seeds, paired with the best."""

import math
from collections.abc import Sequence
from typing import Any

from cnn.sweep.table import Record
from cnn.sweep.trials import make_setting

CONFIDENCE = 0.95


def rank_settings(records: Sequence[Record], select_by: str) -> list[dict[str, Any]]:
    """Rank the settings of a sweep by the mean of a validation metric over seeds.

    Args:
        records: of trials; those that did not finish count nowhere.
        select_by: `accuracy`, `balanced_accuracy` or `loss`.

    Returns:
        A row for each setting, the best first; a setting of which a trial failed
        comes after all whose trials finished. `options` (without seed), `trials`
        (their numbers), `failed`, `n`; `mean`, `sd`, `low` and `high` of the
        validation metric (95 % t-interval); the same of the test metric behind
        `test_`; `difference`, `difference_low`, `difference_high`: this setting minus
        the best over the seeds that both have. What needs two seeds is None of one.
    """
    settings: dict[tuple, list[Record]] = {}
    for record in records:
        settings.setdefault(make_setting(record["options"]), []).append(record)
    rows = [_summarise(group, select_by) for group in settings.values()]
    sign = 1 if select_by == "loss" else -1
    rows = [row for row in rows if row["n"]]
    rows.sort(key=lambda row: (row["failed"], sign * row["mean"], row["trials"][0]))
    for row in rows:
        differences = _pair(row["by_seed"], rows[0]["by_seed"])
        names = ("difference", "_", "difference_low", "difference_high")
        row |= dict(zip(names, compute_interval(differences), strict=True))
    return [{k: v for k, v in row.items() if k not in ("_", "by_seed")} for row in rows]


def find_best_trial(records: Sequence[Record], select_by: str) -> Record | None:
    """Find the best trial of the best setting; None when none has finished."""
    rows = rank_settings(records, select_by)
    if not rows:
        return None
    sign = 1 if select_by == "loss" else -1
    own = [r for r in records if r["trial"] in rows[0]["trials"]]
    finished = [record for record in own if record["status"] == "finished"]

    def place(record: Record) -> tuple:
        metric = sign * record[f"validation_{select_by}"]
        return metric, record["validation_loss"], record["trial"]

    return min(finished, key=place)


def compute_interval(
    values: Sequence[float],
) -> tuple[float | None, float | None, float | None, float | None]:
    """Compute mean, standard deviation and the ends of the mean's 95 % t-interval.

    Returns:
        Four numbers; all None of no value, the last three None of one.
    """
    if not values:
        return None, None, None, None
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return mean, None, None, None
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    # Student's quantile; scipy.stats has it too, and takes seconds to import.
    from scipy import special

    quantile = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    half = quantile * spread / math.sqrt(count)
    return mean, spread, mean - half, mean + half


def _summarise(group: Sequence[Record], select_by: str) -> dict[str, Any]:
    finished = [record for record in group if record["status"] == "finished"]
    options = {n: v for n, v in group[0]["options"].items() if n != "seed"}
    row: dict[str, Any] = {
        "options": options,
        "trials": [record["trial"] for record in finished],
        "failed": sum(record["status"] == "failed" for record in group),
        "n": len(finished),
    }
    for split, prefix in (("validation", ""), ("test", "test_")):
        values = [record[f"{split}_{select_by}"] for record in finished]
        names = [f"{prefix}{name}" for name in ("mean", "sd", "low", "high")]
        row |= dict(zip(names, compute_interval(values), strict=True))
    row["by_seed"] = {
        record["options"].get("seed"): record[f"validation_{select_by}"]
        for record in finished
    }
    return row


def _pair(own: dict[Any, float], best: dict[Any, float]) -> list[float]:
    return [own[seed] - best[seed] for seed in own if seed in best]
