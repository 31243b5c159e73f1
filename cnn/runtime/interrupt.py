"""SIGTERM, Ctrl-C and their like: noted at once, acted upon between chunks.

Before there is something to save, they end the process at once. Slurm sends SIGUSR1
before a job's time is over; the job is then put into the queue again. Grid Engine sends
SIGUSR2, and the system SIGXCPU where a limit of CPU time is reached. SIGHUP, which a
terminal that closes sends, stays ignored under nohup.
"""

import contextlib
import math
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

_REQUESTS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
_LAST_SECONDS = 5.0  # of the main thread after a second Ctrl-C
_noted: dict[int, float] = {}  # when each signal last became a request
_leaving = threading.Lock()


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had.

    Attributes:
        number: the signal's.
        exit_code: 128 plus the signal's number, as shells have it: 143 of SIGTERM.
    """

    def __init__(self, number: int, lost: str = "") -> None:
        """Remember the signal, and why what it had could not be saved, if so."""
        super().__init__(lost or signal.Signals(number).name)
        self.lost, self.number = lost, int(number)
        self.exit_code = 128 + number


class Stop:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self, agree: Callable[[int], float] | None = None) -> None:
        """Start without a request.

        Args:
            agree: returns the largest of several processes' numbers, so that all of
                them leave together; None: there is one process.
        """
        self.signal: int | None = None
        self._agree = agree

    def note(self, number: int, frame: object) -> None:
        """Handle a signal: the first one counts, Ctrl-C after it ends at once."""
        del frame
        _noted[number] = time.monotonic()
        if self.signal is None:
            self.signal = number
        elif number == signal.SIGINT:
            raise KeyboardInterrupt

    def check(self) -> None:
        """Raise Interrupted if a signal has arrived."""
        number = self.signal or 0
        if self._agree is not None:
            number = int(self._agree(number))
        if number:
            raise Interrupted(number)


def leave_on_signals() -> None:
    """Let SIGTERM, SIGHUP and SIGINT end the process at once, with a line that says so.

    An exception would not do: what is being imported may swallow it. Where the main
    thread is inside a library that does not return, a thread does it.
    """
    reading, writing = socket.socketpair()  # on Windows select waits for these alone
    writing.setblocking(False)
    signal.set_wakeup_fd(writing.detach(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[reading], name="signals", daemon=True).start()
    for number in _list_signals("SIGTERM", "SIGINT", "SIGHUP"):
        signal.signal(number, _leave)


@contextlib.contextmanager
def catch_signals(stop: Stop) -> Iterator[None]:
    """Turn the signals into a request; a second Ctrl-C ends at once.

    Handlers are as before when leaving. In another thread than the main one, which
    cannot have any, and where one is not Python's, nothing is done.
    """
    before = {}
    if threading.current_thread() is threading.main_thread():
        numbers = _list_signals(*_REQUESTS)
        found = {number: signal.getsignal(number) for number in numbers}
        before = {n: handler for n, handler in found.items() if handler is not None}
    for number in before:
        signal.signal(number, stop.note)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def find_request() -> int:
    """Return which signal asks the main thread to stop; 0: none, or another thread."""
    if threading.current_thread() is not threading.main_thread():
        return 0
    stop = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return stop.signal or 0 if isinstance(stop, Stop) else 0


def requeue(stopped: Interrupted) -> None:
    """Ask Slurm to run a job again that SIGUSR1 has stopped, once for all its tasks."""
    job = os.environ.get("SLURM_JOB_ID")
    is_first = os.environ.get("SLURM_PROCID", "0") == "0"
    is_late = stopped.number in _list_signals("SIGUSR1")
    if not job or not is_first or not is_late:
        return
    command = ["scontrol", "requeue", job]
    try:
        subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip()
        print(
            f"error: {' '.join(command)} failed ({reason}); submit the job again, it "
            "resumes from its checkpoint",
            file=sys.stderr,
        )


def _watch(reading: socket.socket) -> None:
    """Do what signals ask for at once, when the main thread does not come to it.

    Args:
        reading: a socket that gets the number of each signal as it arrives.
    """
    asked, left = None, None
    while select.select([reading], [], [], left)[0]:
        number = reading.recv(1)[0]
        handler = signal.getsignal(number)
        if handler is _leave:
            since = time.monotonic() - _noted.get(number, -math.inf)
            if since > _LAST_SECONDS:  # else a request whose block has just ended
                _end(number)
        stop = getattr(handler, "__self__", None)
        if asked is not None and stop is asked and number == signal.SIGINT:
            left = _LAST_SECONDS
        asked = stop
    os._exit(128 + signal.SIGINT)


def _list_signals(*names: str) -> list[signal.Signals]:
    """Return those that the system has, without a SIGHUP that is ignored."""
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [
        number
        for number in numbers
        if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
    ]


def _leave(number: int, frame: object) -> None:
    del frame
    _end(number)


def _end(number: int) -> None:
    """End the process; standard error gets a line if it takes one at once.

    The main thread and the one that watches may both come here: one of them writes.
    """
    if _leaving.acquire(timeout=1.0):
        with contextlib.suppress(OSError, ValueError):  # it is closed
            if os.name != "posix" or select.select([], [2], [], 0)[1]:
                os.write(2, f"{describe_end(number)}\n".encode())
    os._exit(128 + number)


def describe_end(number: int) -> str:
    """Say that a signal has ended the process, and how to go on."""
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    return (
        f"note: stopped by {name}; what is written is whole, and the same command does "
        "the rest"
    )
