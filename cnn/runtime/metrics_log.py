"""What a run writes while it trains: metrics.jsonl, and TensorBoard's files."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError


class MetricsLog:
    """Appends lines to metrics.jsonl; a resumed run cuts it back to its checkpoint."""

    def __init__(self, workdir: Path, length: int, tensorboard: bool) -> None:
        """Open the log.

        Args:
            length: bytes to keep, as the checkpoint says.
            tensorboard: whether to write scalars to `tensorboard/` too.

        Raises:
            UserError: the file lost lines, or tensorboardX is not installed.
        """
        path = workdir / "metrics.jsonl"
        self._file = open(path, "ab")  # noqa: SIM115
        if self._file.tell() < length:
            self._file.close()
            raise UserError(
                f"{path} is shorter than when the checkpoint was written; put the "
                "lines back, or start from scratch in another --workdir"
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
        """Write options and the numbers of result.json for TensorBoard's HParams."""
        if self._writer is not None:
            shown = {
                name: value if isinstance(value, int | float) else str(value)
                for name, value in options.items()
            }
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
    """Write images for TensorBoard, uint8 [H, W, 3] by name.

    Raises:
        UserError: tensorboardX is not installed.
    """
    writer = _open_tensorboard(workdir)
    for name, image in images.items():
        writer.add_image(name, image, 0, dataformats="HWC")
    writer.close()


class NoLog(MetricsLog):
    """The log of processes other than the first: it writes nothing."""

    def __init__(self) -> None:
        """Open the null device."""
        self._file, self._writer = open(os.devnull, "ab"), None  # noqa: SIM115

    def sync(self) -> int:
        """Return that there are no bytes; the null device cannot be synced."""
        return 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _open_tensorboard(workdir: Path) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs tensorboardX: pip install tensorboardX"
        ) from None
    return SummaryWriter(str(workdir / "tensorboard"))
