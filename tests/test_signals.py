"""Real processes, killed or asked to stop at any moment, end and go on as they should.

A process that is asked to stop ends with 143, 130 or 129 and no traceback; it says so
in a line where it has nothing to save. What it left goes on to the bits of a run that
was never stopped.
"""

import json
import random
import signal
import subprocess
import time

import pytest
from fixtures_runs import AMID, TINY, make_flags, read_lines, start_main

from cnn.runtime.interrupt import describe_end

LONG = TINY | {"epochs": 40, "checkpoint_every_epochs": 2.6, "log_every_steps": 3}
KILLS = 10


def finish(process):
    """Wait for a process; return its exit code, a shell's, and what it printed."""
    printed, told = process.communicate(timeout=300)
    code = process.returncode
    return (code if code >= 0 else 128 - code), printed, told


def read_run(directory):
    result = json.loads((directory / "result.json").read_text())
    return result["state_sha256"], result["steps"], read_lines(directory)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """Return hash, steps and lines of the long run, trained by one process."""
    directory = tmp_path_factory.mktemp("long") / "run"
    code, _, told = finish(start_main(f"--workdir={directory}", *make_flags(LONG)))
    assert code == 0, told
    return read_run(directory)


def wait_for(process, directory, moment):
    """Wait until a process has come to a moment of its life."""
    if moment == "import":
        time.sleep(0.7)
        return
    while process.poll() is None:
        if moment == "loading" and (directory / ".lock").exists():
            return
        if moment == "compilation" and (directory / "metrics.jsonl").exists():
            return
        if moment == "training" and _count_lines(directory) > 5:
            return
        if moment == "writing" and list(directory.glob("checkpoints/*.new*")):
            return
        time.sleep(0.005)
    raise AssertionError(f"it ended before {moment}: {finish(process)}")


def _count_lines(directory):
    path = directory / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def stop_and_finish(directory, number, moment):
    command = [f"--workdir={directory}", *make_flags(LONG)]
    process = start_main(*command)
    wait_for(process, directory, moment)
    process.send_signal(number)
    code, printed, told = finish(process)
    assert code == 128 + number, told
    if "stopped at step" in printed:
        assert told == ""
    else:
        assert told == f"{describe_end(number)}\n"
    return command


def check_goes_on(directory, command, never_stopped):
    code, _, told = finish(start_main(*command))
    assert code == 0, told
    assert read_run(directory) == never_stopped


def test_sigterm_in_training_and_kill_while_writing(tmp_path, never_stopped):
    command = stop_and_finish(tmp_path / "run", signal.SIGTERM, "training")
    process = start_main(*command)
    time.sleep(0.2)
    wait_for(process, tmp_path / "run", "writing")
    process.kill()
    process.communicate()
    check_goes_on(tmp_path / "run", command, never_stopped)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_asked_to_stop_during_import(tmp_path, number):
    stop_and_finish(tmp_path / "run", number, "import")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("moment", ["loading", "compilation", "training", "writing"])
def test_asked_to_stop_at_any_moment(tmp_path, never_stopped, number, moment):
    command = stop_and_finish(tmp_path / "run", number, moment)
    check_goes_on(tmp_path / "run", command, never_stopped)


@pytest.mark.slow
@pytest.mark.parametrize("resident", ["auto", "never"])
def test_killed_at_ten_random_moments(tmp_path, never_stopped, resident):
    directory, chance = tmp_path / "run", random.Random(resident)
    command = [f"--workdir={directory}", *make_flags(LONG)]
    command.append(f"--resident={resident}")
    started = time.perf_counter()
    check_goes_on(
        tmp_path / "first", [f"--workdir={tmp_path}/first", *command[1:]], never_stopped
    )
    seconds = time.perf_counter() - started
    kills = starts = 0
    while kills < KILLS:
        starts += 1
        assert starts < 5 * KILLS
        process = start_main(*command)
        try:
            told = process.communicate(timeout=chance.uniform(0.2, 0.9) * seconds)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, told
        assert read_run(directory) == never_stopped
        directory.rename(tmp_path / f"ended{starts}")
    check_goes_on(directory, command, never_stopped)


@pytest.mark.slow
def test_one_device_then_two_then_one(tmp_path):
    """The same examples in the same order, and the same losses within 1e-5."""
    options = TINY | AMID | {"epochs": 4, "dropout_rate": 0.3}
    lines = {}
    for name, devices in (("one", [1]), ("two", [2]), ("changing", [1, 2, 1])):
        command = [f"--workdir={tmp_path / name}", *make_flags(options)]
        for position, count in enumerate(devices):
            process = start_main(*command, devices=count)
            if position < len(devices) - 1:
                wait_for_step(process, tmp_path / name, 6 * (position + 1))
                process.send_signal(signal.SIGTERM)
                finish(process)
                continue
            code, _, told = finish(process)
            assert code == 0, told
        lines[name] = [x for x in read_lines(tmp_path / name) if "gradient_norm" in x]
    for name in ("two", "changing"):
        hashes = [[x["example_ids_hash"] for x in lines[n]] for n in ("one", name)]
        assert hashes[0] == hashes[1] and len(hashes[0]) == 20
        losses = [[x["loss"] for x in lines[n]] for n in ("one", name)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-5)


def wait_for_step(process, directory, step):
    while process.poll() is None and _count_lines(directory) < step:
        time.sleep(0.005)
