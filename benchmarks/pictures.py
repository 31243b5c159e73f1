"""CPU seconds of `--mode=visualize` with all pictures of runs, by picture.

    python benchmarks/pictures.py --workdir=runs/digits [--rounds=3]

Each round draws everything that is of the run in a new process, first with an empty
compilation cache (cold), then with the one that the first has left (warm). The medians
of the rounds are printed: seconds of CPU (user and system), of the clock, and programs
that were made. Where the machine is shared, the same work takes more CPU.
"""

import argparse
import contextlib
import io
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import flags

WHOLE = "in all"


def run_child(workdir: str, output: str, cache: str) -> None:
    """Draw the pictures of a run in this process and print what each took."""
    import jax

    import main
    from cnn.visualize import visualize

    found: dict[str, list[float]] = {}
    programs: list[float] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: (
            programs.append(seconds)
            if event.endswith("backend_compile_duration")
            else None
        )
    )
    draw = visualize._draw

    def draw_measured(name: str, *given: Any) -> Any:
        with measure(found, name, lambda: len(programs)):
            return draw(name, *given)

    visualize._draw = draw_measured
    arguments = ["main.py", "--mode=visualize", f"--workdir={workdir}"]
    arguments += [f"--output={output}", f"--compilation_cache={cache}"]
    with contextlib.redirect_stdout(io.StringIO()):
        code = main.main(main.parse_flags(arguments)[:1])
    if code:
        sys.exit(code)
    print(json.dumps(found))


@contextlib.contextmanager
def measure(
    found: dict[str, list[float]], name: str, count: Callable[[], int]
) -> Iterator[None]:
    """Note seconds of CPU and of the clock, and programs, of a piece of work."""
    before = time.process_time(), time.perf_counter(), count()
    yield
    after = time.process_time(), time.perf_counter(), count()
    found[name] = [b - a for a, b in zip(before, after, strict=True)]


def measure_child(*arguments: str) -> dict[str, list[float]]:
    """Return what a new process measured, and the whole process."""
    command = [sys.executable, __file__, "--child", *arguments]
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(output.stdout.splitlines()[-1])
    spent = sum(
        getattr(after, x) - getattr(before, x) for x in ("ru_utime", "ru_stime")
    )
    made = sum(programs for *_, programs in found.values())
    return found | {WHOLE: [spent, time.perf_counter() - begun, made]}


def main() -> None:
    """Measure the run, cold and warm in turns, and print the table."""
    if sys.argv[1:2] == ["--child"]:
        return run_child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--rounds", type=flags.positive, default=3)
    parser.add_argument("--json", type=flags.new_file)
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for number in range(options.rounds):
            for kind in ("cold", "warm"):
                flags.report(f"round {number + 1}: {kind}")
                given = f"{directory}/{kind}", f"{directory}/cache{number}"
                for name, numbers in measure_child(options.workdir, *given).items():
                    found.setdefault(f"{kind}: {name}", []).append(numbers)
    print("| what | CPU seconds | range | seconds | programs |\n|---|---|---|---|---|")
    for name, rows in found.items():
        cpu, wall, programs = (statistics.median(x) for x in zip(*rows, strict=True))
        low, high = min(row[0] for row in rows), max(row[0] for row in rows)
        numbers = f"{cpu:.1f} | {low:.1f}–{high:.1f} | {wall:.1f} | {programs:.0f}"
        print(f"| {name} | {numbers} |")
    flags.write_json(options.json, found)
    return None


if __name__ == "__main__":
    flags.run(main)
