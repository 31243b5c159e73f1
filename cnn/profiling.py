"""A trace of chosen training steps, for TensorBoard and Perfetto."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import jax

from cnn.devices import processes
from cnn.errors import UserError
from cnn.options import option


@dataclasses.dataclass(frozen=True)
class ProfileOptions:
    """Which steps are traced."""

    profile: str = option(
        "",
        "directory to which a trace of --profile_steps is written, for TensorBoard "
        "and Perfetto (docs/performance.md); empty: none",
        changes_run=False,
    )
    profile_steps: str = option(
        "11:20",
        "first:last, both included, counted from 1 over the whole run; compilation is "
        "never traced",
        changes_run=False,
    )


class Profiler:
    """Traces the steps first … last of a run, once."""

    def __init__(self, options: ProfileOptions, total_steps: int) -> None:
        """Check the steps and that the directory can be written.

        Args:
            options: which steps, and where to.
            total_steps: of the whole run.

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
        if processes.is_first():
            _check_directory(self._directory)

    def __enter__(self) -> "Profiler":
        """Return itself; a trace still open when leaving is written."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write a trace that is still open."""
        self._stop()

    def check_ahead(self, step: int) -> None:
        """Refuse a run that has already taken the steps.

        Args:
            step: the number of steps taken.

        Raises:
            UserError: the first step to trace is among them.
        """
        if self._directory is not None and self._first <= step:
            raise UserError(
                f"--profile_steps={self._first}:{self._last}: the run goes on after "
                f"step {step}; give later steps, or leave --profile out"
            )

    @property
    def is_missing(self) -> bool:
        """Return whether a trace is wanted of which no step was taken so far."""
        return self._directory is not None and not self._was_opened

    def cut(self, step: int, count: int) -> int:
        """Cut a number of steps so that they are traced all or none.

        Args:
            step: the number of steps taken.
            count: how many are to be taken next, at least 1.
        """
        for edge in (self._first - 1, self._last):
            if step < edge < step + count:
                count = edge - step
        return count

    @contextlib.contextmanager
    def watch(self, step: int, count: int) -> Iterator[None]:
        """Trace what is called inside, if it is to be traced.

        Args:
            step: the number of steps taken.
            count: how many are taken inside.
        """
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
    """Make the directory.

    Raises:
        UserError: it cannot be made or written.
    """
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
