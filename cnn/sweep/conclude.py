"""What a sweep came to, written and told when its trials have ended."""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn import report
from cnn.progress import Terminal
from cnn.sweep import keep, live, plots, statistics, table
from cnn.sweep.table import Record
from cnn.sweep.trials import make_trial

if TYPE_CHECKING:
    from cnn.config import Config


def conclude(
    config: "Config",
    home: Path,
    records: Mapping[Path, Sequence[Record]],
    terminal: Terminal,
    started: float,
) -> int:
    """Write tables, best trial and pictures, and say what they are.

    Args:
        config: the options that all trials share.
        home: where to.
        records: of all trials, by the directory that keeps their states.
        terminal: where to print.
        started: when this process began with its data, by `time.perf_counter`.

    Returns:
        How many trials failed.
    """
    select_by, say = config.train.select_by, terminal.say
    everything = [record for own in records.values() for record in own]
    table.write_csv(home / "trials.csv", everything)
    failed = [r for r in everything if r["status"] == "failed"]
    for record in failed[: live.ROWS]:
        say(f"trial {record['trial']} failed: {record['reason']}")
    rows = statistics.rank_settings(everything, select_by)
    if not rows:
        say("no trial has finished")
        return len(failed)
    write_settings(home / "settings.csv", rows)
    best = statistics.find_best_trial(everything, select_by)
    source = next(path for path, own in records.items() if best in own)
    trial = make_trial(best["trial"], best["options"], config)
    if not keep.publish_best(home, source, best, rows, trial):
        say(f"the best trial's state is not in {source}; --from_trial repeats it")
    terminal.console.print(live.make_settings_table(rows, select_by))
    test = ", ".join(f"{n} {best[f'test_{n}']:.4f}" for n in report.TEST_METRICS[:2])
    say(f"best: trial {best['trial']}, test {test}; {len(failed)} trials failed")
    plots.draw_plots(everything, select_by, home / "plots")
    say(f"in {home}: trials.csv, settings.csv, best.json, best.py, best/, plots/")
    seconds = time.perf_counter() - started
    say(f"{len(everything)} trials; this process took {seconds:.1f} s from its data on")
    run = shlex.quote(str(home / "best"))
    say(f"next: python main.py --mode=evaluate --workdir={run}")
    return len(failed)


def write_settings(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the settings, as `statistics.rank_settings` has them, as CSV."""
    names = list(rows[0]["options"])
    others = [name for name in rows[0] if name != "options"]
    table.write_rows(path, [*names, *others], [row | row["options"] for row in rows])
