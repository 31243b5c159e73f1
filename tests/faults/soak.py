"""Train under random faults for minutes: `python tests/faults/soak.py --minutes=10`.

Runs are trained one after another, some resident, some streamed, each in processes that
one fault after another befalls until it has ended: then it has the bits of a run that
was left alone. Every fault of `EVENTS` comes once before any comes again.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(x) for x in Path(__file__).resolve().parents[:3]]

import jax  # noqa: E402
import pytest  # noqa: E402
from faulty import Ended, Room, finish, read_run  # noqa: E402
from fixtures_runs import ROOT, TINY, make_flags  # noqa: E402

SHARED = TINY | {"epochs": 40, "checkpoint_every_epochs": 0.6}
RUNS = {
    "resident": SHARED | {"accumulate_steps": 2, "mixup_alpha": 0.2},
    "streamed": SHARED | {"resident": "never", "crop_padding": 1, "seed": 1},
}
DISK_BYTES = 2**23
SECONDS = 600  # after which a process hangs
# Hours by which the clock is wrong, then right again after some seconds.
CLOCK = """
import os, time
real, start, hours = time.time, time.monotonic(), float(os.environ["SOAK_HOURS"])
def shifted():
    return real() + 3600 * hours * (time.monotonic() - start < 4)
time.time, time.time_ns = shifted, lambda: int(shifted() * 1e9)
"""


@dataclasses.dataclass
class Run:
    """A run that is trained under faults.

    Attributes:
        room: where its processes are started.
        directory: its own.
        options: its flags.
        keeps_lines: whether its metrics.jsonl has lost nothing that was synced.
    """

    room: Room
    directory: Path
    options: dict
    keeps_lines: bool = True

    def start(self, **env: str):
        """Start or resume it."""
        return self.room.start(
            f"--workdir={self.directory}", *make_flags(self.options), env=env
        )

    @property
    def has_ended(self) -> bool:
        """Whether it has a result."""
        return (self.directory / "result.json").exists()


Event = Callable[[Run, random.Random], Ended]


def wait_in(process, directory: Path, chance: random.Random) -> None:
    """Wait for a random moment: of the start, or some time after a run has begun."""
    if chance.random() < 0.3:
        with contextlib.suppress(Exception):
            process.wait(chance.uniform(0, 3))
        return
    before = _measure(directory)
    limit = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < limit:
        if _measure(directory) != before:
            break
        time.sleep(0.01)
    with contextlib.suppress(Exception):
        process.wait(chance.uniform(0, 1.5))


def _measure(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    return path.stat().st_size if path.exists() else 0


def _send(number: int) -> Event:
    def event(run: Run, chance: random.Random) -> Ended:
        process = run.start()
        wait_in(process, run.directory, chance)
        process.send_signal(number)
        ended = finish(process, SECONDS)
        assert ended.code in (0, 128 + number), ended
        return ended

    return event


def _pause(run: Run, chance: random.Random) -> Ended:
    process = run.start()
    wait_in(process, run.directory, chance)
    process.send_signal(signal.SIGSTOP)
    time.sleep(chance.uniform(0.5, 2))
    process.send_signal(signal.SIGCONT)
    wait_in(process, run.directory, chance)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, SECONDS)
    assert ended.code in (0, 143), ended
    return ended


def _fill_disk(run: Run, chance: random.Random) -> Ended:
    process, filler = run.start(), run.room.path / "disk" / "filler"
    wait_in(process, run.directory, chance)
    fill(filler)
    with contextlib.suppress(Exception):
        process.wait(chance.uniform(1, 3))
    process.send_signal(signal.SIGTERM)
    ended = finish(process, SECONDS)
    filler.unlink()
    assert ended.code in (0, 2, 143), ended
    return ended


def fill(filler: Path) -> None:
    """Take all that is left of the disk."""
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    with contextlib.suppress(OSError), open(filler, "ab", buffering=0) as file:
        while True:
            file.write(b"x")


def _shift_clock(run: Run, chance: random.Random) -> Ended:
    site = run.room.path / "site"
    site.mkdir(exist_ok=True)
    (site / "sitecustomize.py").write_text(CLOCK)
    hours = str(chance.choice([-1, 1]) * chance.uniform(1, 10**5))
    process = run.start(PYTHONPATH=f"{site}{os.pathsep}{ROOT}", SOAK_HOURS=hours)
    wait_in(process, run.directory, chance)
    process.send_signal(signal.SIGTERM)
    ended = finish(process, SECONDS)
    assert ended.code in (0, 143), ended
    return ended


def _date_files(run: Run, chance: random.Random) -> Ended:
    for path in run.directory.rglob("*"):
        when = chance.uniform(0, 4e9)
        os.utime(path, (when, when), follow_symlinks=False)
    return _send(signal.SIGTERM)(run, chance)


def _damage_newest(run: Run, chance: random.Random) -> Ended:
    names = [x for x in run.directory.glob("checkpoints/*") if x.name.isdecimal()]
    if len(names) > 1 and not run.has_ended:
        newest = max(names, key=lambda x: int(x.name))
        files = sorted(x for x in newest.rglob("*") if x.is_file())
        file = chance.choice(files)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return _send(signal.SIGKILL)(run, chance)


def _remove_config(run: Run, chance: random.Random) -> Ended:
    (run.directory / "config.json").unlink(missing_ok=True)
    return _send(signal.SIGTERM)(run, chance)


def _half_a_line(run: Run, chance: random.Random) -> Ended:
    path = run.directory / "metrics.jsonl"
    if path.exists() and not run.has_ended:
        with open(path, "ab") as file:
            file.write(b'{"step": 3, "lo')
    return _send(signal.SIGKILL)(run, chance)


def _cut_lines(run: Run, chance: random.Random) -> Ended:
    path = run.directory / "metrics.jsonl"
    if path.exists() and not run.has_ended:
        os.truncate(path, path.stat().st_size // 2)
        run.keeps_lines = False
    return _send(signal.SIGTERM)(run, chance)


EVENTS: dict[str, Event] = {
    "killed (SIGKILL)": _send(signal.SIGKILL),
    "stopped (SIGTERM)": _send(signal.SIGTERM),
    "interrupted (SIGINT)": _send(signal.SIGINT),
    "paused (SIGSTOP, SIGCONT)": _pause,
    "disk full": _fill_disk,
    "clock wrong by years": _shift_clock,
    "files dated anew": _date_files,
    "newest checkpoint cut": _damage_newest,
    "config.json removed": _remove_config,
    "half a line in metrics.jsonl": _half_a_line,
    "metrics.jsonl cut to half": _cut_lines,
}


def draw_events(chance: random.Random, names: list[str]) -> Iterator[str]:
    """Draw events for ever, each once before any again."""
    while True:
        yield from chance.sample(names, len(names))


def soak(room: Room, seconds: float, seed: int, say: Callable[[str], None]) -> dict:
    """Train runs under faults until the seconds are over and the last one has ended.

    Args:
        say: prints a line.

    Returns:
        How often each event came, and `runs`: how many have ended.

    Raises:
        AssertionError: a process printed a traceback or ended as it must not, or a run
            differs from the one that was left alone.
    """
    chance = random.Random(seed)
    counts: collections.Counter = collections.Counter()
    with contextlib.ExitStack() as stack:
        names = list(EVENTS)
        try:
            home = stack.enter_context(room.small_disk(DISK_BYTES))
        except pytest.skip.Exception:
            home = room.path
            names.remove("disk full")
        expected = {n: _train_alone(n, options) for n, options in RUNS.items()}
        events, started = draw_events(chance, names), time.monotonic()
        while time.monotonic() - started < seconds:
            name = list(RUNS)[counts["runs"] % len(RUNS)]
            run = Run(room, home / f"run{counts['runs']}", RUNS[name])
            while not run.has_ended and time.monotonic() - started < seconds:
                _befall(run, next(events), chance, counts, say, started)
            ended = finish(run.start(), SECONDS)
            assert ended.code == 0 and "Traceback" not in ended.err, ended
            found = read_run(run.directory)
            last = 3 if run.keeps_lines else 2
            assert found[:last] == expected[name][:last], f"{name}: not its bits"
            counts["runs"] += 1
            say(f"{time.monotonic() - started:6.0f} s  {name} run ended: its bits")
            for path in sorted(run.directory.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    return dict(counts)


def _train_alone(name: str, options: dict) -> tuple:
    with tempfile.TemporaryDirectory() as directory:
        alone = Room(Path(directory))
        flags = make_flags(options)
        alone.main(f"--workdir={name}", *flags, seconds=SECONDS).check_done()
        return read_run(alone.path / name)


def _befall(
    run: Run,
    event: str,
    chance: random.Random,
    counts: collections.Counter,
    say: Callable[[str], None],
    started: float,
) -> None:
    ended = EVENTS[event](run, chance)
    assert "Traceback" not in ended.out + ended.err, (event, ended)
    counts[event] += 1
    say(
        f"{time.monotonic() - started:6.0f} s  {event}: exit code {ended.code}"
        f"{' · ' + ended.err.strip() if ended.err.strip() else ''}"
    )


def main() -> int:
    """Soak as the command line says; returns 1 where something did not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the small disk goes too
    with tempfile.TemporaryDirectory() as directory:
        jax.config.update("jax_compilation_cache_dir", f"{directory}/cache")
        try:
            counts = soak(
                Room(Path(directory)),
                60 * given.minutes,
                given.seed,
                lambda text: print(text, flush=True),
            )
        except AssertionError as error:
            print(
                f"failed after {time.monotonic() - started:.0f} s: {str(error)[:3000]}"
            )
            return 1
    runs = counts.pop("runs")
    for event, count in sorted(counts.items()):
        print(f"{count:4} {event}")
    print(
        f"{sum(counts.values())} events in {time.monotonic() - started:.0f} s: "
        f"{runs} runs ended, each with the bits of one that was left alone"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
