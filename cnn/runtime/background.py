"""Threads in the background, waited for so that none can hold up the process.

They are daemons: one that hangs for ever is left behind. Whoever waits for one looks
five times a second whether a signal has arrived, whether it has shown a sign of life
(`note`), and whether another thread has died: a wait ends with a result, or with an
error that has its cause. Silence is counted in looks, not by a clock, so that a process
that was stopped (SIGSTOP) and continues has not been silent.
"""

import contextlib
import gc
import math
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

from cnn.errors import UserError
from cnn.runtime import interrupt
from cnn.runtime.options import DeviceOptions
from cnn.text import show_line

# Without a sign of life of the thread that is waited for; see `allow_silence`.
SILENT_SECONDS = 600.0
# The same once a signal has arrived, where the weights cannot be saved without it.
STOPPING_SECONDS = 20.0
LOOK_SECONDS = 0.2
_END_SECONDS = 1.0

_here = threading.local()
_deaths: list[str] = []


class Failed(UserError):
    """A background thread has died, or been silent for too long."""


class Job:
    """A call in a background thread."""

    def __init__(self, role: str, call: Callable[[], Any]) -> None:
        """Remember the call.

        Args:
            role: what the thread does, as `reads images`.
            call: without arguments.
        """
        self._role, self._call = role, call
        self._doing, self._signs = "", 0
        self._ended = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        self._given_up: Exception | None = None
        self._threads: list[threading.Thread] = []

    @property
    def has_ended(self) -> bool:
        """Return whether there is a result or an error."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for a while; returns whether there is a result or an error."""
        return self._ended.wait(seconds)

    def run(self) -> None:
        """Call it in this thread; what it raises is kept for whoever waits."""
        _here.job = self
        try:
            self._result = self._call()
        except BaseException as error:  # SystemExit would end a thread in silence
            self._error = error
        finally:
            _here.job = None
            self._ended.set()

    def note(self, doing: str) -> None:
        """Give a sign of life; see `note`."""
        self._doing = doing or self._doing
        self._signs += 1

    def result(self, patient: bool = False) -> Any:
        """Wait for the call and return what it returned.

        Args:
            patient: whether to wait after a signal too, as long as the thread goes on.

        Raises:
            UserError: the call raised it.
            OSError: likewise.
            Failed: it raised something else, or the thread has died or is silent.
            Interrupted: a signal arrived, and this is the main thread.
        """
        if self._given_up is not None:
            raise self._given_up
        waited, signs, signalled = 0.0, self._signs, 0
        while not self._ended.wait(LOOK_SECONDS):
            waited += LOOK_SECONDS
            if self._signs != signs:
                waited, signs = 0.0, self._signs
                note(self._doing)
            number = interrupt.find_request()
            if number and not signalled:
                waited, signalled = 0.0, number
            try:
                self._look(waited, number, patient)
            except Exception as error:
                self._given_up = error
                raise
        if self._error is None:
            return self._result
        if isinstance(self._error, UserError | OSError):
            raise self._error
        raise Failed(
            f"{self._describe()} has failed: {describe_error(self._error)}"
        ) from self._error

    def _look(self, waited: float, number: int, patient: bool) -> None:
        """Raise what ends a wait without a result, if anything does."""
        if not patient:
            check_others()
            if number and _is_alone():
                raise interrupt.Interrupted(number)
        if not all(thread.is_alive() for thread in self._threads):
            if not self.has_ended:
                raise Failed(f"{self._describe()} has ended without a result")
            return
        limit = SILENT_SECONDS
        if number or has_deaths():
            limit = min(limit, STOPPING_SECONDS)
        if waited < limit:
            return
        long = f"{limit / 60:g} minutes" if limit >= 60 else f"{limit:g} seconds"
        text = (
            f"{self._describe()} has shown no sign of life for {long}; see whether the "
            "disk or the network that it waits for answers"
        )
        if number and _is_alone():
            raise interrupt.Interrupted(number, text)
        raise Failed(f"{text}, or wait longer with --stall_minutes")

    def _describe(self) -> str:
        at = f", at {show_line(self._doing)}," if self._doing else ""
        return f"the thread that {self._role}{at}"


class Pool:
    """Some daemon threads that make calls in the order in which these are given."""

    def __init__(self, role: str, count: int = 1) -> None:
        """Start the threads.

        Args:
            role: as of `Job`.
            count: of threads.

        Raises:
            UserError: the system lets this process start no more threads.
        """
        self._role = role
        self._waiting: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._threads = [_Worker(self._take, role) for _ in range(count)]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self.close()
            raise UserError(
                f"the system starts no thread that {role} ({error}); let this user "
                "have more of them (ulimit -u, or the limit of the container)"
            ) from None

    def __enter__(self) -> "Pool":
        """Return itself; calls that have not begun when leaving are dropped."""
        return self

    def __exit__(self, *error: object) -> None:
        """Let the threads end after the calls that they are in."""
        self.close()

    def start(self, function: Callable[..., Any], *arguments: Any) -> Job:
        """Make a call as soon as a thread is free."""
        job = Job(self._role, lambda: function(*arguments))
        job._threads = self._threads
        self._waiting.put(job)
        return job

    def close(self) -> None:
        """Let the threads end after the calls that they are in; drop the others."""
        self._is_closed = True
        self.finish()

    def finish(self) -> None:
        """Let the threads end after the calls given so far."""
        for _ in self._threads:
            self._waiting.put(None)

    def _take(self, thread: "_Worker") -> None:
        while (job := self._waiting.get()) is not None and not self._is_closed:
            thread.is_busy = True
            job.run()
            thread.is_busy = False


class _Worker(threading.Thread):
    def __init__(self, take: Callable[["_Worker"], None], role: str) -> None:
        super().__init__(name=role, daemon=True)
        self._take, self.is_busy = take, False

    def run(self) -> None:
        self._take(self)


def start(role: str, function: Callable[..., Any], *arguments: Any) -> Job:
    """Make a call in a thread of its own, which ends with it; `role` as of `Job`."""
    pool = Pool(role)
    job = pool.start(function, *arguments)
    pool.finish()
    return job


def allow_silence(options: DeviceOptions) -> None:
    """Set how long a thread may show no sign of life in this process."""
    global SILENT_SECONDS
    minutes = options.stall_minutes
    SILENT_SECONDS = 60 * minutes if minutes else math.inf


def note(doing: str = "") -> None:
    """Give a sign of life of this thread, and say at what it is, as at which file.

    Where no one waits for this thread, nothing is done.
    """
    job = getattr(_here, "job", None)
    if job is not None:
        job.note(doing)


def watch_others() -> None:
    """Let threads of libraries that die do so in one line, and be found dead."""

    def note_cause(death: threading.ExceptHookArgs) -> None:
        name = show_line(death.thread.name if death.thread else "of a library")
        cause = describe_error(death.exc_value)
        _deaths.append(f"the thread {name} has died: {cause}")

    threading.excepthook = note_cause


def has_deaths() -> bool:
    """Return whether `check_others` would raise."""
    return bool(_deaths)


def check_others() -> None:
    """Raise Failed, once, if a thread of a library has died."""
    if _deaths:
        raise Failed(_deaths.pop(0))


def describe_error(error: BaseException | None) -> str:
    """Say in one line what an error is and where it was raised."""
    if error is None:
        return "no cause is known"
    found = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(found[-1].filename)}:{found[-1].lineno})"
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}{f': {text[:300]}' if text else ''}" + (
        where if found else ""
    )


def end(code: int) -> int:
    """Return an exit code; where a thread would hold up the end, end with it at once.

    Threads of ours that are about to end are waited for: what computes on a device
    must not be cut off by the interpreter's own end. Objects are left to the system:
    the interpreter would look through all of them for cycles, for 0.6 s.
    """
    gc.freeze()
    for thread in _list_busy():
        thread.join(_END_SECONDS)
    if _list_busy():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    return code


def _is_alone() -> bool:
    from cnn.runtime import processes  # which imports jax: seconds, where only data are

    return not processes.are_several()


def _list_busy() -> list[_Worker]:
    return [x for x in threading.enumerate() if isinstance(x, _Worker) and x.is_busy]
