"""SIGTERM and Ctrl-C: noted at once, acted upon between chunks of steps.

Before there is something to save, they end the process at once.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(Exception):
    """The run was asked to stop and has saved what it had.

    Attributes:
        exit_code: 128 plus the signal's number, as shells have it: 143 or 130.
    """

    def __init__(self, number: int) -> None:
        """Remember the signal."""
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Stop:
    """Whether, and by which signal, the process was asked to stop."""

    def __init__(self) -> None:
        """Start without a request."""
        self.signal: int | None = None

    def check(self) -> None:
        """Leave if a signal has arrived.

        Raises:
            Interrupted: it has.
        """
        if self.signal is not None:
            raise Interrupted(self.signal)


def leave_on_signals() -> None:
    """Let SIGTERM and SIGINT end the process at once, with 143 and 130, silently.

    An exception would not do: what is being imported may swallow it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)


@contextmanager
def catch_signals(stop: Stop) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into a request; a second Ctrl-C ends at once."""

    def note(number: int, frame: object) -> None:
        del frame
        if stop.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.signal = number

    before = {
        number: signal.signal(number, note)
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: object) -> None:
    del frame
    os._exit(128 + number)
