"""What happens to the output never ends the program; signals of a terminal stop it."""

import io
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from fixtures_runs import ROOT, start_main

from cnn.models import summary
from cnn.runtime import streams
from cnn.runtime.interrupt import Interrupted, Stop, catch_signals, leave_on_signals
from cnn.runtime.terminal import Terminal

START = "from cnn.runtime import streams; streams.keep_open(); import sys; "
SAYS = "print('ä' * 99999, flush=True); print('b', file=sys.stderr); "
ENDS = "open(sys.argv[1], 'w').write('ended')"


def make_lenient(number, encoding="utf-8", **options):
    """Make a lenient stream that writes into a file descriptor."""
    raw = io.FileIO(number, "w", closefd=False)
    return streams._make(io.TextIOWrapper(io.BufferedWriter(raw), encoding, **options))


@pytest.mark.parametrize("tail", ["| true", ">&-", ">&- 2>&- <&-", "> /dev/full"])
def test_a_program_outlives_its_output(tmp_path, tail):
    script = START + SAYS + ENDS
    ended = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "$2" {tail}', sys.executable, script, "ended"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "ended").read_text() == "ended", "a closed number was reused"
    assert ended.stderr == ("b\n" if "2>" not in tail else "")


def test_a_reader_that_leaves_is_no_error():
    reader, writer = os.pipe()
    stream = make_lenient(writer)
    print("first", file=stream, flush=True)
    assert os.read(reader, 99) == b"first\n"
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        os.write(writer, b"as any other")
    print("second", file=stream, flush=True)
    os.close(writer)
    print("third", file=stream, flush=True)


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_everything():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found = []

    def read():
        time.sleep(0.1)
        while content := os.read(reader, 1 << 16):
            found.append(content)

    thread = threading.Thread(target=read)
    thread.start()
    print("x" * 300_000, file=make_lenient(writer), flush=True)
    os.close(writer)
    thread.join()
    os.close(reader)
    assert b"".join(found) == b"x" * 300_000 + b"\n"


@pytest.mark.parametrize(
    "encoding, expected", [("ascii", b"? ? m"), ("latin-1", b"\xb1 ? m")]
)
def test_characters_that_the_encoding_lacks_are_replaced(encoding, expected):
    reader, writer = os.pipe()
    print("± — m", end="", file=make_lenient(writer, encoding), flush=True)
    os.close(writer)
    assert os.read(reader, 99) == expected
    os.close(reader)


def test_no_number_is_cut_on_a_narrow_terminal(monkeypatch, capsys):
    layers = [
        {"path": f"layer{i}", "type": "Dense", "output_shape": (1234, 5678)}
        | {"parameters": 123_456_789, "macs": 987_654_321}
        for i in range(2)
    ]
    monkeypatch.setenv("COLUMNS", "20")
    found = {"layers": layers, "num_parameters": 246_913_578, "macs": 1_975_308_642}
    Terminal().show(summary.make_table(found))
    printed = capsys.readouterr().out
    assert "123,456,789" in printed and "987,654,321" in printed


@pytest.fixture
def hangup():
    """Put SIGHUP back as it was."""
    before = {n: signal.getsignal(n) for n in (signal.SIGHUP, signal.SIGTERM)}
    before[signal.SIGINT] = signal.getsignal(signal.SIGINT)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_terminal_that_closes_stops_a_run_with_129(hangup):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stop = Stop()
    with catch_signals(stop):
        signal.raise_signal(signal.SIGHUP)
        with pytest.raises(Interrupted) as stopped:
            stop.check()
    assert stopped.value.exit_code == 129
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_it_is_ignored(hangup):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = Stop()
    leave_on_signals()
    with catch_signals(stop):
        signal.raise_signal(signal.SIGHUP)
        stop.check()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_the_manual_is_printed_whatever_reads_it():
    process = start_main("--help")
    process.stdout.close()
    process.stdout = None
    assert process.communicate(timeout=60)[1] == "" and process.returncode == 0


def test_a_signal_ends_the_wait_for_who_does_not_read():
    reader, writer = os.pipe()
    stream = make_lenient(writer)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM])
    with catch_signals(Stop()):
        timer.start()
        print("x" * 200_000, file=stream, flush=True)
        print("more", file=stream, flush=True)
    print("and more, once no one catches signals", file=stream, flush=True)
    os.close(writer)
    with open(reader, "rb") as file:
        found = file.read()
    assert found and set(found) == {ord("x")} and len(found) < 200_000
