"""TensorBoard's event files: whole events, in the order in which a run wrote them.

Every start of a run adds a file. Its first event names a step: what earlier files have
from that step on, TensorBoard forgets, as metrics.jsonl is cut back. TensorBoard reads
the files in the order of their names, which have a time: it never goes back, whatever
the clock does. A run goes on without them where its disk is full.
"""

import math
import platform
import re
import struct
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError, explain
from cnn.runtime import own_files
from cnn.text import show_line

_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")


class EventWriter:
    """Writes one event file; what is added is in the file when the call returns."""

    def __init__(self, directory: Path, step: int | None = None) -> None:
        """Start a file.

        Args:
            directory: made if need be.
            step: from which on earlier events are repeated; None: none are.

        Raises:
            UserError: tensorboardX cannot be imported, nothing can be written, or the
                directory is a link.
        """
        try:
            from tensorboardX import summary
            from tensorboardX.proto import event_pb2
            from tensorboardX.record_writer import masked_crc32c
        except Exception as error:  # an old protobuf raises TypeError
            reason = show_line(str(error) or type(error).__name__)
            raise UserError(
                f"--tensorboard needs tensorboardX, which cannot be imported "
                f"({reason}): pip install -U tensorboardX, or leave it out"
            ) from None
        self._summary, self._proto, self._check = summary, event_pb2, masked_crc32c
        self._directory = directory
        own_files.check_no_link(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / _choose_name(directory)
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"{directory} cannot be written ({explain(error)}); or leave "
                "--tensorboard out: the same command resumes"
            ) from None
        events = [event_pb2.Event(file_version="brain.Event:2")]
        if step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            events.append(event_pb2.Event(step=step, session_log=start))
        self._write(events)

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers of a step, by name."""
        made = [self._summary.scalar(name, x) for name, x in values.items()]
        self._write([self._proto.Event(step=step, summary=x) for x in made])

    def add_image(self, name: str, image: np.ndarray) -> None:
        """Add an image, uint8 [H, W, 3]."""
        made = self._summary.image(name, image, dataformats="HWC")
        self._write([self._proto.Event(summary=made)])

    def add_result(
        self, options: Mapping[str, Any], numbers: Mapping[str, float]
    ) -> None:
        """Write options and a run's numbers for HParams, in place of earlier ones."""
        made = self._summary.hparams(options, numbers)
        writer = EventWriter(self._directory / "result", 0)
        writer._write([self._proto.Event(summary=x) for x in made])
        writer.add_scalars(0, numbers)
        writer.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, events: list[Any]) -> None:
        parts = []
        for event in events:
            event.wall_time = time.time()
            content = event.SerializeToString()
            for part in (struct.pack("<Q", len(content)), content):
                parts += [part, struct.pack("<I", self._check(part))]
        whole = b"".join(parts)
        try:
            while whole and not self._file.closed:
                whole = whole[self._file.write(whole) :]  # a full disk takes a part
        except OSError as error:
            self._file.close()
            print(
                f"note: {self._directory} is written no further ({explain(error)}); "
                "the run goes on without it",
                file=sys.stderr,
            )


def _choose_name(directory: Path) -> str:
    """Return a name behind those of the files that are there."""
    found = (_NAME.match(path.name) for path in directory.iterdir())
    latest = max((int(match[1]) for match in found if match), default=0)
    seconds = max(math.floor(time.time()), latest + 1)
    return f"events.out.tfevents.{seconds:010d}.{platform.node()}"
