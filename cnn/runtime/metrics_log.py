"""What a run writes while it trains: metrics.jsonl, which its tracker gets too."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cnn.errors import UserError, explain
from cnn.runtime import own_files
from cnn.runtime.tracking import Tracking


class MetricsLog:
    """Appends lines to metrics.jsonl; a resumed run cuts it back to its checkpoint."""

    def __init__(
        self,
        workdir: Path,
        length: int,
        step: int,
        track: str = "none",
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Open the log; of one that has lost something, the whole lines are kept.

        Args:
            length: bytes to keep, as the checkpoint says.
            step: the checkpoint's; where lines are lost, later ones are not kept.
            track: the tracker that gets the lines too, or none.
            options: of the run, for the tracker.

        Raises:
            UserError: the file is a link, or as of `Tracking`.
        """
        own_files.unshare(workdir / "metrics.jsonl")
        self._file = own_files.open_own(workdir / "metrics.jsonl", "a+b")
        self._file.seek(0)
        there = os.fstat(self._file.fileno()).st_size  # the checkpoint may say anything
        content = self._file.read(min(length, there))
        found, self._lost = _read_lines(content), ""
        lines = {text: x for text, x in found.items() if x["step"] <= step}
        kept = b"".join(lines)
        if kept != content or len(content) < length:
            self._lost = f"{length - len(kept)} of {length} bytes"
            self._file.truncate(0)
            self._file.write(kept)
            self._file.flush()
        else:
            self._file.truncate(length)
        self._epochs = [line.get("epoch") for line in lines.values()]
        self._file.seek(0, os.SEEK_END)
        self._tracking = Tracking(track, workdir, options, step)
        for line in lines.values():
            if line["step"] == step:  # of which the checkpoint has a part
                self._tracking.add(step, line)

    def describe_loss(self, epochs: int) -> str:
        """Say what of the file was lost since the checkpoint; empty when nothing was.

        Args:
            epochs: of how many epochs, and of the start, it should have lines.
        """
        if not self._lost:
            return ""
        missing = [str(n) for n in range(epochs + 1) if n not in self._epochs]
        shown = ", ".join([*missing[:9], *(["…"] if missing[9:] else [])])
        return (
            f"metrics.jsonl has lost {self._lost} since the checkpoint was written: it "
            f"has no lines of the epochs {shown or 'between'}; the weights are whole, "
            "the run resumes without them"
        )

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Append one object, `step` first."""
        line = json.dumps({"step": step, **values}) + "\n"
        with self._explain_errors():
            self._file.write(line.encode())
            self._file.flush()
        self._tracking.add(step, values)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Give the tracker the numbers of result.json."""
        self._tracking.add_result(result)

    def sync(self) -> int:
        """Put all lines on disk and return their bytes."""
        with self._explain_errors():
            os.fsync(self._file.fileno())
        return self._file.tell()

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._file.name} cannot be written ({explain(error)}); the same "
                "command resumes from the last checkpoint"
            ) from None

    def close(self) -> None:
        """Close the files."""
        with contextlib.suppress(OSError):  # of a line that could not be written
            self._file.close()
        self._tracking.close()


class NoLog(MetricsLog):
    """The log of processes other than the first: it writes nothing."""

    def __init__(self) -> None:
        """Open the null device."""
        self._file = open(os.devnull, "ab")  # noqa: SIM115
        self._tracking = Tracking("none", Path(), {})

    def sync(self) -> int:
        """Return that there are no bytes; the null device cannot be synced."""
        return 0


def _read_lines(content: bytes) -> dict[bytes, dict[str, Any]]:
    """Read the whole lines of a log: what each says, by its text."""
    lines = {}
    for line in content.splitlines(keepends=True):
        try:
            found = json.loads(line) if line.endswith(b"\n") else None
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict) and isinstance(found.get("step"), int):
            lines[line] = found
    return lines
