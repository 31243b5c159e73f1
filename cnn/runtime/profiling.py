"""A trace of chosen training steps, for TensorBoard and Perfetto."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from cnn.errors import UserError
from cnn.runtime import processes
from cnn.runtime.options import ProfileOptions


class Profiler:
    """Traces the steps first … last of a run, once."""

    def __init__(
        self, options: ProfileOptions, total_steps: int, writes: bool = True
    ) -> None:
        """Check the steps and, if it `writes`, that the directory can be written.

        Raises:
            UserError: the steps are not of the form first:last or lie outside the
                run, or the directory cannot be written.
        """
        self._directory = (
            Path(options.profile).expanduser() if options.profile else None
        )
        self._first = self._last = 0
        self._is_open = self._was_opened = False
        if self._directory is None:
            return
        self._first, self._last = _read_steps(options.profile_steps)
        if self._last > total_steps:
            raise UserError(
                f"--profile_steps={options.profile_steps} lie outside the run, which "
                f"has {total_steps} steps; give first:last within 1:{total_steps}"
            )
        if writes and processes.is_first():
            _check_directory(self._directory)

    def __enter__(self) -> "Profiler":
        """Return itself; a trace still open when leaving is written."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write a trace that is still open."""
        self._stop()

    def check_ahead(self, step: int) -> None:
        """Refuse to trace steps of which the first `step` ones are already taken."""
        if self._directory is not None and self._first <= step:
            raise UserError(
                f"--profile_steps={self._first}:{self._last}: the run resumes after "
                f"step {step}; give later steps, or leave --profile out"
            )

    @property
    def is_missing(self) -> bool:
        """Return whether a wanted trace has not begun."""
        return self._directory is not None and not self._was_opened

    def cut(self, step: int, count: int) -> int:
        """Cut the `count` steps after `step` so that all or none are traced."""
        for edge in (self._first - 1, self._last):
            if step < edge < step + count:
                count = edge - step
        return count

    @contextlib.contextmanager
    def watch(self, step: int, count: int) -> Iterator[None]:
        """Trace the `count` steps after `step`, taken inside, if they are wanted."""
        if self._directory is not None and step + 1 == self._first:
            self._start()
        yield
        if step + count == self._last:
            self._stop()

    def _start(self) -> None:
        """Open the trace; of several processes, in the first, which alone writes."""
        self._was_opened = True
        if not processes.is_first():
            return
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # it would drown the operations
        jax.profiler.start_trace(
            self._directory, create_perfetto_trace=True, profiler_options=options
        )
        self._is_open = True

    def _stop(self) -> None:
        if self._is_open:
            jax.profiler.stop_trace()
            self._is_open = False


def _read_steps(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise UserError(
            f"--profile_steps={text}: write first:last, both included and counted "
            "from 1, as 11:20"
        )
    return int(first), int(last)


def _check_directory(directory: Path) -> None:
    """Make the directory, refusing one that cannot be written."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        is_writable = os.access(directory, os.W_OK | os.X_OK)
        reason = "it cannot be written"
    except OSError as error:
        is_writable, reason = False, error.strerror
    if not is_writable:
        raise UserError(
            f"--profile={directory}: {reason}; give a directory that can be written"
        )
