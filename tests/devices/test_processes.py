"""Several real processes on one machine train one run, and end together."""

import contextlib
import os
import re
import signal
import socket
import time
from types import SimpleNamespace

import jax
import pytest
from fixtures_runs import AMID, TINY, make_flags, read_lines, run_main, start_main

from cnn.errors import UserError
from cnn.runtime import interrupt, processes
from cnn.runtime.interrupt import Stop
from cnn.training import loop

LONG = TINY | AMID | {"epochs": 4}
SIGUSR1 = 128 + signal.SIGUSR1


def find_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def start_two(directory, options, devices=1):
    """Start two processes of one run."""
    address = f"127.0.0.1:{find_port()}"
    flags = [f"--workdir={directory}", *make_flags(options)]
    return [
        start_main(*flags, f"--distributed={address},2,{i}", devices=devices)
        for i in range(2)
    ]


def finish(started):
    """Wait for processes; return their exit codes, a shell's, and what they told."""
    told = [process.communicate(timeout=500)[1] for process in started]
    codes = [process.returncode for process in started]
    return [code if code >= 0 else 128 - code for code in codes], told


def wait_for_lines(process, directory, count):
    path = directory / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and len(path.read_text().splitlines()) >= count:
            return
        time.sleep(0.01)
    raise AssertionError(finish([process]))


def read_steps(directory):
    lines = [line for line in read_lines(directory) if "gradient_norm" in line]
    losses = [line["loss"] for line in lines]
    return losses, [line["example_ids_hash"] for line in lines]


@pytest.mark.parametrize(
    "text", ["yes", "host,2,0", "host:1234,2", "host:1234,2,2", "host:1234,0,0"]
)
def test_malformed_address_is_refused(tmp_path, capfd, text):
    assert run_main(f"--distributed={text}", f"--workdir={tmp_path}") == 2
    assert f"error: --distributed={text}: write auto, or" in capfd.readouterr().err


def test_other_modes_are_for_one_process(tmp_path, capfd):
    arguments = "--mode=describe", "--distributed=auto", f"--workdir={tmp_path}"
    assert run_main(*arguments) == 2
    told = capfd.readouterr().err
    expected = "--distributed=auto would have no effect: it is only for --mode=train"
    assert expected in told


def test_alone_nothing_is_asked():
    assert not jax.distributed.is_initialized()
    assert processes.is_first() and processes.find_most(2.5) == 2.5
    processes.check_equal("options", "some")


@pytest.mark.parametrize("error", [UserError("full"), OSError("gone"), ValueError()])
def test_process_that_fails_leaves_before_it_waits(tmp_path, monkeypatch, error):
    """To wait for a checkpoint is a collective, and the others are in another one."""
    order = []

    def note(name):
        return lambda *_: order.append(name)

    def fail(*_):
        raise error

    terminal = SimpleNamespace(start_bar=note("start"), stop_bar=note("stop"))
    log, writer = (
        SimpleNamespace(close=note("close")),
        SimpleNamespace(wait=note("wait")),
    )
    others = terminal, log, writer, contextlib.nullcontext()
    outputs = loop.Outputs(tmp_path, *others)
    setup, progress = SimpleNamespace(total_steps=5), SimpleNamespace(step=0)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(processes, "leave", order.append)
    with pytest.raises(type(error)):
        with loop.closing(setup, progress, outputs, Stop()):
            fail()
    assert order == ["start", "stop", "close", error, "wait"]


@pytest.mark.parametrize(
    "text, lost",
    [
        ("gloo/transport/tcp/pair.cc:538] Connection reset by peer", True),
        ("UNAVAILABLE: the coordinator", True),
        ("Connection closed by peer", False),
    ],
)
def test_other_errors_are_not_taken_for_lost_processes(monkeypatch, capfd, text, lost):
    monkeypatch.setattr(os, "_exit", lambda code: None)
    monkeypatch.setattr(processes, "is_first", lambda: False)
    processes.leave(ValueError(text))
    told = capfd.readouterr().err
    assert ("another process of the run has ended" in told) == lost
    assert ("Traceback" in told or "ValueError" in told) != lost


@pytest.mark.parametrize("number", [0, 1])
def test_processes_that_do_not_come(tmp_path, number):
    """Neither the first process nor another waits longer than it is told to."""
    directory, address = tmp_path / "run", f"127.0.0.1:{find_port()}"
    flags = f"--distributed={address},2,{number}", "--distributed_seconds=2"
    process = start_main(*flags, f"--workdir={directory}")
    codes, told = finish([process])
    assert codes == [2]
    assert "not come together within 2 s. Is process 0 running" in told[0]
    assert "Traceback" not in told[0] and not directory.exists()


def test_no_environment_tells_of_processes(tmp_path):
    process = start_main("--distributed=auto", f"--workdir={tmp_path / 'run'}")
    codes, told = finish([process])
    assert codes == [2]
    assert "no Slurm, Open MPI, Kubernetes or TPU pod started this process" in told[0]


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Let job 7 have a scontrol that notes what it is asked; return its notes."""
    notes = tmp_path / "asked"
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {notes}\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return notes


@pytest.mark.parametrize(
    "number, task, asked",
    [
        (signal.SIGUSR1, "0", True),
        (signal.SIGUSR1, "1", False),
        (signal.SIGTERM, "0", False),
    ],
)
def test_job_is_queued_again(scontrol, monkeypatch, number, task, asked):
    monkeypatch.setenv("SLURM_PROCID", task)
    interrupt.requeue(interrupt.Interrupted(number))
    assert scontrol.exists() == asked
    assert not asked or scontrol.read_text() == "requeue 7\n"


def test_job_that_cannot_be_queued_again(monkeypatch, capfd):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("PATH", "")
    interrupt.requeue(interrupt.Interrupted(signal.SIGUSR1))
    assert "error: scontrol requeue 7 failed" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "order, resident", [((2,), "auto"), ((2, 1), "never"), ((1, 2), "auto")]
)
def test_two_processes_and_one_are_the_same_run(tmp_path, order, resident):
    """Over 20 steps; a checkpoint of either is taken up by the other."""
    options = LONG | {"resident": resident}
    alone = start_main(f"--workdir={tmp_path / 'one'}", *make_flags(options), devices=1)
    assert finish([alone])[0] == [0]
    directory = tmp_path / "run"
    for position, count in enumerate(order):
        if count == 2:
            started = start_two(directory, options)
        else:
            flags = make_flags(options)
            started = [start_main(f"--workdir={directory}", *flags, devices=1)]
        if position < len(order) - 1:
            wait_for_lines(started[0], directory, 6)
            started[-1].send_signal(signal.SIGTERM)
        codes, told = finish(started)
        is_last = position == len(order) - 1
        assert codes == [0 if is_last else 143] * count, told
    losses, hashes = read_steps(tmp_path / "one")
    found, same = read_steps(directory)
    assert len(losses) == 20 and hashes == same
    assert losses == pytest.approx(found, abs=1e-5)


@pytest.mark.slow
def test_parameters_split_over_two_processes(tmp_path):
    options = LONG | {"widths": (16, 32), "mesh": "data:2,model:2"}
    codes, told = finish(start_two(tmp_path / "two", options, devices=2))
    assert codes == [0, 0], told
    options |= {"mesh": "data:1"}
    alone = start_main(f"--workdir={tmp_path / 'one'}", *make_flags(options))
    assert finish([alone])[0] == [0]
    losses = read_steps(tmp_path / "one")[0]
    assert losses == pytest.approx(read_steps(tmp_path / "two")[0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_killed_process_ends_the_others(tmp_path, killed):
    directory, options = tmp_path / "run", LONG | {"epochs": 4000}
    started = start_two(directory, options)
    wait_for_lines(started[0], directory, 12)
    started[killed].kill()
    codes, told = finish(started)
    assert codes[killed] == 137 and codes[1 - killed] not in (0, 137)
    # When the first process ends, jax may end the others before they notice.
    assert "another process of the run" in told[1 - killed] or killed == 0, told
    assert "another" in told[1 - killed]
    flags = [f"--workdir={directory}", *make_flags(options)]
    alone = start_main(*flags, devices=1)
    first = alone.stdout.readline()
    assert re.match(r"resumed at step [1-9]\d* of 20000", first), first
    alone.kill()
    finish([alone])


@pytest.mark.slow
def test_signal_to_one_stops_all_and_queues_once(tmp_path, scontrol):
    directory, options = tmp_path / "run", LONG | {"epochs": 4000}
    started = start_two(directory, options)
    wait_for_lines(started[0], directory, 12)
    started[0].send_signal(signal.SIGUSR1)
    codes, told = finish(started)
    assert codes == [SIGUSR1, SIGUSR1], told
    # Neither is told its rank by Slurm here, so each asks for itself.
    assert set(scontrol.read_text().splitlines()) == {"requeue 7"}


@pytest.mark.slow
def test_different_options_are_refused(tmp_path):
    address = f"127.0.0.1:{find_port()}"
    started = [
        start_main(
            *make_flags(LONG | {"seed": i}),
            f"--workdir={tmp_path / 'run'}",
            f"--distributed={address},2,{i}",
        )
        for i in range(2)
    ]
    codes, told = finish(started)
    assert codes == [2, 2], told
    assert all("do not have the same options" in text for text in told)
