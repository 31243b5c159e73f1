"""Standard output and standard error that never end the program.

Whoever reads them may leave, their disk may be full, their encoding may lack a
character: what cannot be written is dropped, and the program goes on to its files.
Where they are waited for (a terminal that was stopped, a pipe nobody reads), a signal
ends the wait.
"""

import io
import os
import select
import sys

from cnn.runtime import interrupt

_LOOK_SECONDS = 0.2
_SHARE = 512  # bytes that a pipe takes whole when it takes any (POSIX)


class _Lenient(io.RawIOBase):
    """The bytes of a stream; those that cannot be written are dropped."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream  # kept: it closes its file when it is collected
        self._raw = getattr(stream.buffer, "raw", stream.buffer)  # as of python -u
        self._is_left = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: memoryview) -> int:
        count = None
        try:
            while count is None:
                if not self._is_ready():
                    return len(data)
                count = self._raw.write(data[:_SHARE])
        except OSError:  # EPIPE, EIO, ENOSPC: there is no better place to report it
            count = len(data)
        return count

    def _is_ready(self) -> bool:
        """Wait until something can be written; False where a signal ends that."""
        if os.name != "posix":  # select is for sockets
            return True
        while not select.select([], [self._raw], [], _LOOK_SECONDS)[1]:
            self._is_left = self._is_left or bool(interrupt.find_request())
            if self._is_left:
                return False
        return True


def keep_open() -> None:
    """Make standard output and error lenient; comes before anything is imported.

    Closed ones become the null device: the next file that is opened would otherwise
    take their number, and what libraries print would be written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = _make(sys.stdout), _make(sys.stderr)


def _make(stream: io.TextIOWrapper | None) -> io.TextIOBase:
    if stream is None:
        return open(os.devnull, "w", encoding="utf-8", errors="replace")
    if not hasattr(stream, "buffer"):  # of a notebook
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(_Lenient(stream)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=stream.line_buffering or stream.write_through,
    )
