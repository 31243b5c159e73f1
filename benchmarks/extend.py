"""What it costs to extend a run, and to sweep its length, against from the start.

`python benchmarks/extend.py` trains in processes of their own, the ways in turn, and
prints CPU seconds (user and system, start-up included): medians of rounds. Programs
are compiled before. It fails where an extended run has not the bits of the whole one.
Flags of all runs come behind `--`, as in `python benchmarks/extend.py -- --seed=1`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LENGTHS = (5, 10, 20, 40)
WARM = (2, 5, 6, 7)


def run(*flags: str) -> float:
    """Call main.py and return its CPU seconds."""
    command = [sys.executable, str(ROOT / "main.py"), *flags]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, flags
    return used.ru_utime + used.ru_stime


def measure_round(
    root: Path, options: list[str], lengths: tuple[int, ...] = LENGTHS
) -> dict[str, float]:
    """Take every way once, into new directories."""
    first, last = f"--epochs={lengths[1]}", f"--epochs={lengths[-1]}"
    decays = [*options, "--schedule=stable_then_decay"]
    short, long, whole = (f"{root / name}" for name in ("short", "long", "whole"))
    space = f"--sweep=epochs={','.join(map(str, lengths))}"
    sweep = ["--mode=sweep", "--executor=loop", space]
    found = {
        "short": run(*decays, first, f"--workdir={short}"),
        "extended": run(f"--extend={short}", last, f"--workdir={long}"),
        "from the start": run(*decays, last, f"--workdir={whole}"),
        "sweep, one trunk": run(*decays, *sweep, f"--workdir={root / 'shared'}"),
        "sweep, cosine": run(*options, *sweep, f"--workdir={root / 'apart'}"),
    }
    hashes = {
        json.loads((Path(name) / "result.json").read_text())["state_sha256"]
        for name in (long, whole)
    }
    assert len(hashes) == 1, "the extended run is another one"
    return found


def main() -> None:
    """Print the medians of all rounds, and the bytes of a checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("options", nargs="*", help="flags of all runs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure_round(Path(name), given.options, WARM)
    found = []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as name:
            found.append(measure_round(Path(name), given.options))
            kept = (Path(name) / "short" / "checkpoints").rglob("*")
            size = sum(path.stat().st_size for path in kept if path.is_file())
        print(f"round {number}: {found[-1]}", flush=True)
    for way in found[0]:
        seconds = [one[way] for one in found]
        shown = f"{min(seconds):.1f} to {max(seconds):.1f}"
        print(f"{way:18} {statistics.median(seconds):6.1f} s ({shown})")
    print(f"checkpoints of the short run: {size:,} bytes")


if __name__ == "__main__":
    main()
