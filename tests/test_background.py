"""Threads in the background: results, deaths, silence and signals."""

import gc
import os
import signal
import threading
import time

import pytest

from cnn.data import decode
from cnn.errors import UserError
from cnn.runtime import background
from cnn.runtime.interrupt import Interrupted, Stop, catch_signals
from cnn.training import epoch


@pytest.fixture
def hung():
    """Return what to wait for in a thread; it is let go at the end."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def short(monkeypatch):
    """Let three looks without a sign of life be silence."""
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(background, "SILENT_SECONDS", 0.03)


def test_a_call_returns_its_result():
    assert background.start("adds", lambda a, b: a + b, 1, 2).result() == 3


@pytest.mark.parametrize("error", [UserError("x.png is bad"), OSError(5, "bad disk")])
def test_mistakes_are_raised_as_they_are(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as raised:
        background.start("reads", fail).result()
    assert raised.value is error


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, MemoryError, ValueError])
def test_what_else_is_raised_has_its_cause_and_place(kind):
    def fail():
        background.note("a/b.png")
        raise kind("first line\nsecond line")

    with pytest.raises(background.Failed) as raised:
        background.start("reads images", fail).result()
    message = str(raised.value)
    assert message.startswith("the thread that reads images, at a/b.png, has failed: ")
    assert f"{kind.__name__}: first line (test_background.py:" in message
    assert "second" not in message


def test_a_silent_thread_is_given_up_for_good(hung, short):
    job = background.start("reads images", hung.wait)
    errors = []
    for _ in range(2):
        with pytest.raises(background.Failed) as raised:
            job.result()
        errors.append(raised.value)
    assert "no sign of life for 0.03 seconds" in str(errors[0])
    assert errors[0] is errors[1], "it is not waited for again"


def test_signs_of_life_reach_whoever_waits_for_the_waiter(short, monkeypatch):
    monkeypatch.setattr(background, "SILENT_SECONDS", 0.3)

    def work():
        for i in range(60):
            background.note(f"file {i}")
            time.sleep(0.01)
        return "done"

    def wait():
        return background.start("decodes", work).result()

    assert background.start("reads", wait).result() == "done"


def test_a_signal_ends_a_wait_unless_it_is_patient(hung, monkeypatch):
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(background, "STOPPING_SECONDS", 0.05)
    with catch_signals(Stop()):
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted) as raised:
            background.start("reads", hung.wait).result()
        assert raised.value.exit_code == 143 and not raised.value.lost
        with pytest.raises(Interrupted) as raised:
            background.start("writes", hung.wait).result(patient=True)
        assert "the thread that writes has shown no sign" in raised.value.lost
        slow = background.start("writes", time.sleep, 0.04)
        assert slow.result(patient=True) is None


def test_a_signal_is_not_for_other_threads(monkeypatch):
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)

    def wait():
        return background.start("decodes", time.sleep, 0.05).result()

    with catch_signals(Stop()):
        os.kill(os.getpid(), signal.SIGTERM)
        assert background.start("reads", wait).result(patient=True) is None


def test_the_first_signal_counts_and_ctrl_c_after_it_ends():
    stop = Stop()
    stop.note(signal.SIGUSR1, None)
    stop.note(signal.SIGTERM, None)
    assert stop.signal == signal.SIGUSR1
    with pytest.raises(KeyboardInterrupt):
        stop.note(signal.SIGINT, None)


def test_a_thread_that_dies_between_calls_is_noticed(monkeypatch, short):
    monkeypatch.setattr(background, "SILENT_SECONDS", 100.0)
    pool = background.Pool("decodes images", 2)
    started = threading.Event()
    job = pool.start(started.wait)
    monkeypatch.setattr(background.Job, "has_ended", False)
    pool.close()
    job._ended = threading.Event()  # as of a thread that was cut off
    started.set()
    with pytest.raises(background.Failed, match="has ended without a result"):
        job.result()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_library_thread_that_dies_is_the_error_of_who_looks(monkeypatch):
    monkeypatch.setattr(background, "_deaths", [])
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    background.watch_others()

    def fail():
        raise SystemExit("no more")

    thread = threading.Thread(target=fail, name="events")
    thread.start()
    thread.join()
    assert background.has_deaths()
    with pytest.raises(background.Failed, match="thread events has died: SystemExit"):
        background.check_others()
    background.check_others()


def test_no_thread_can_be_started(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(UserError, match="starts no thread that decodes.*ulimit -u"):
        background.Pool("decodes images", 2)


def test_calls_that_have_not_begun_are_dropped_when_one_fails(hung):
    begun = []

    def call(i):
        begun.append(i)
        if i == 0:
            raise UserError("the first")
        hung.wait(10)

    with pytest.raises(UserError, match="the first"):
        decode.call_all(call, range(1000), 1)
    hung.set()
    assert len(begun) < 1000


def test_no_threads_are_left(monkeypatch):
    before = threading.active_count()
    for _ in range(20):
        decode.call_all(str, range(200), 10)
        background.start("adds", str).result()
    deadline = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_a_pass_that_ends_early_is_refused():
    epoch.check_whole(5, 5)
    with pytest.raises(background.Failed, match="after batch 4 of 5"):
        epoch.check_whole(4, 5)


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_busy_thread_does_not_hold_up_the_end(hung, monkeypatch, is_busy):
    left = []
    monkeypatch.setattr(background, "_END_SECONDS", 0.01)
    monkeypatch.setattr(os, "_exit", left.append)
    if is_busy:
        begun = threading.Event()
        background.start("hangs", lambda: (begun.set(), hung.wait()))
        assert begun.wait(30)
    try:
        assert background.end(7) == 7
        assert gc.get_freeze_count() > 10_000  # which no collection looks at
    finally:
        gc.unfreeze()
    assert left == [7] * is_busy
