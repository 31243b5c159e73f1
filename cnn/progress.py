"""What a run tells while it goes on: the terminal, metrics.jsonl, TensorBoard."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from cnn.errors import UserError
from cnn.options import option


@dataclasses.dataclass(frozen=True)
class ProgressOptions:
    """What is recorded besides one line an epoch."""

    log_every_steps: int = option(
        0,
        "steps between lines of metrics.jsonl with a step's loss, learning rate, "
        "gradient norm and hash of example ids; 0 for none",
        within="[0, inf)",
    )
    tensorboard: bool = option(
        False,
        "write scalars, options with the result (HParams), and the pictures of "
        "visualize for TensorBoard too (needs the extra: pip install tensorboardX)",
        changes_run=False,
    )


class Terminal:
    """Prints: a live bar where there is a terminal, else one line an epoch."""

    def __init__(self) -> None:
        """Print to standard output."""
        self.console = Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: Any = None

    def say(self, text: str = "") -> None:
        """Print one line, above the bar if there is one."""
        self.console.print(text, markup=False)

    def start_bar(self, total_steps: int, step: int) -> None:
        """Show the bar of a run, if the output is a terminal."""
        if not self.console.is_terminal or self.console.quiet:
            return
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:.0f}%  {task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._bar.start()
        self._task = self._bar.add_task(
            "", total=total_steps, completed=step, epoch=0, numbers="compiling"
        )

    def update_bar(
        self, step: int, epoch: int, loss: float, accuracy: float, speed: float
    ) -> None:
        """Move the bar: steps done, epoch, the epoch's loss and accuracy, images/s."""
        if self._bar is not None:
            numbers = f"loss {loss:.4f}  accuracy {accuracy:.2%}  {speed:,.0f} images/s"
            self._bar.update(self._task, completed=step, epoch=epoch, numbers=numbers)

    def stop_bar(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class MetricsLog:
    """Appends lines to metrics.jsonl; a resumed run cuts it back to its checkpoint."""

    def __init__(self, workdir: Path, length: int, tensorboard: bool) -> None:
        """Open the log.

        Args:
            workdir: the run's directory.
            length: bytes to keep, those that the checkpoint knows of.
            tensorboard: whether scalars go to `tensorboard/` too.

        Raises:
            UserError: the file lost lines, or tensorboardX is not installed.
        """
        path = workdir / "metrics.jsonl"
        self._file = open(path, "ab")  # noqa: SIM115
        if self._file.tell() < length:
            self._file.close()
            raise UserError(
                f"{path} is shorter than when the checkpoint was written; put the "
                "lines back, or start anew in another --workdir"
            )
        self._file.truncate(length)
        self._file.seek(length)
        self._writer = _open_tensorboard(workdir) if tensorboard else None

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one object, `step` first."""
        line = json.dumps({"step": step, **values}) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        if self._writer is not None:
            for name, value in values.items():
                if _is_number(value):
                    self._writer.add_scalar(name, value, step)

    def write_result(
        self, options: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Show TensorBoard's HParams the options with the numbers of the result.

        Args:
            options: of the run, by flag name, as JSON has them.
            result: as in `result.json`; what is no number is left out.
        """
        if self._writer is not None:
            shown = {name: _show_option(value) for name, value in options.items()}
            numbers = {n: float(v) for n, v in result.items() if _is_number(v)}
            self._writer.add_hparams(shown, numbers, name="result")

    def sync(self) -> int:
        """Put all lines on disk and return their bytes."""
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._writer is not None:
            self._writer.close()


def write_images(workdir: Path, images: Mapping[str, np.ndarray]) -> None:
    """Write images for TensorBoard.

    Args:
        workdir: whose `tensorboard/` they go to.
        images: uint8 [H, W, 3] by name.

    Raises:
        UserError: tensorboardX is not installed.
    """
    writer = _open_tensorboard(workdir)
    for name, image in images.items():
        writer.add_image(name, image, 0, dataformats="HWC")
    writer.close()


class NoLog(MetricsLog):
    """What other processes than the first write: nothing."""

    def __init__(self) -> None:
        """Open nothing."""

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def write_result(
        self, options: Mapping[str, Any], result: Mapping[str, Any]
    ) -> None:
        """Show nothing."""

    def sync(self) -> int:
        """Return that there are no bytes."""
        return 0

    def close(self) -> None:
        """Close nothing."""


class Pace:
    """Chooses how many steps to run in one call, so that a call takes two seconds."""

    SECONDS = 2.0

    def __init__(self) -> None:
        """Start with one step."""
        self._seconds_per_step = self.SECONDS

    def choose_steps(self, available: int) -> int:
        """Choose how many of the available steps to run."""
        return max(1, min(available, int(self.SECONDS / self._seconds_per_step)))

    def note(self, seconds_per_step: float) -> None:
        """Remember how long a step took."""
        self._seconds_per_step = max(seconds_per_step, 1e-9)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _show_option(value: Any) -> Any:
    """Return a number or truth as it is, and anything else as text."""
    return value if isinstance(value, int | float) else str(value)


def _open_tensorboard(workdir: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs tensorboardX: pip install tensorboardX"
        ) from None
    return SummaryWriter(str(workdir / "tensorboard"))
