"""Seconds that `--mode=list` takes of N runs, which are made of one tiny trained run.

Each copy has a learning rate and a seed of its own. CPU seconds (user and system) are
of the whole command, its imports included; the fewest of --rounds count, since others
may use the machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from flags import ROOT, positive


def make_runs(home: Path, count: int) -> None:
    """Train one run and make copies of it."""
    first = home / "0"
    command = [sys.executable, str(ROOT / "main.py"), f"--workdir={first}"]
    subprocess.run([*command, "--model=mlp", "--epochs=2"], check=True)
    options = json.loads((first / "config.json").read_text())
    for number in range(1, count):
        copy = shutil.copytree(first, home / str(number))
        changed = {"learning_rate": 0.01 * (number % 10 + 1), "seed": number}
        (copy / "config.json").write_text(json.dumps(options | changed, indent=2))


def measure(home: Path, flags: list[str]) -> tuple[float, float]:
    """Return CPU and wall seconds of listing once."""
    command = [sys.executable, str(ROOT / "main.py"), "--mode=list"]
    before, wall = os.times(), os.times().elapsed
    subprocess.run(
        [*command, f"--workdir={home}", *flags], check=True, stdout=subprocess.DEVNULL
    )
    after = os.times()
    user = after.children_user - before.children_user
    system = after.children_system - before.children_system
    return user + system, after.elapsed - wall


def main() -> None:
    """Print a line for each way of listing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=positive, default=1000)
    parser.add_argument("--rounds", type=positive, default=5)
    given = parser.parse_args()
    ways = {
        "no run": None,
        "all": [],
        "--where": ["--where=learning_rate<0.05 test_accuracy>0.5"],
        "--group_by": ["--group_by=learning_rate"],
        "--prune": ["--prune"],
    }
    with tempfile.TemporaryDirectory() as directory:
        home, empty = Path(directory) / "runs", Path(directory) / "empty"
        empty.mkdir()
        make_runs(home, given.runs)
        for name, flags in ways.items():
            where = empty if flags is None else home
            found = [measure(where, flags or []) for _ in range(given.rounds)]
            cpu, wall = (min(x[i] for x in found) for i in (0, 1))
            print(f"{name:12} {cpu:6.2f} CPU s, {wall:6.2f} s")


if __name__ == "__main__":
    main()
