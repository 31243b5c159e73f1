"""TensorBoard's event files: whole events, in the order in which a run wrote them.

Every start of a run adds a file. Its first event names a step: what earlier files have
from that step on, TensorBoard forgets, as metrics.jsonl is cut back. TensorBoard reads
the files in the order of their names, which have a time: it never goes back, whatever
the clock does.
"""

import math
import platform
import re
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError, explain
from cnn.runtime import own_files
from cnn.runtime.trackers import explain_absence, split_name

_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\.")


class EventFiles:
    """The files of a run, in its `tensorboard/`.

    Those of each split lie in a folder of their own, where its name is left out of the
    tags: TensorBoard draws one tag of several folders in one chart.
    """

    forgets, run = True, ""

    @staticmethod
    def load() -> tuple[Any, Any, Any]:
        """Import what of tensorboardX is needed."""
        try:
            from tensorboardX import summary
            from tensorboardX.proto import event_pb2
            from tensorboardX.record_writer import masked_crc32c
        except Exception as error:  # an old protobuf raises TypeError
            raise explain_absence("tensorboard", "tensorboardX", error) from None
        return summary, event_pb2, masked_crc32c

    def __init__(self, workdir: Path, run: str, options: Mapping[str, Any]) -> None:
        """Remember where they lie; see `cnn.runtime.tracking`."""
        del run
        self._directory, self._options = workdir / "tensorboard", options
        self._step: int | None = None
        self._writers: dict[str, EventWriter] = {}

    def forget(self, step: int | None) -> None:
        """Start a file behind what is there, which counts up to a step alone."""
        self._step = step
        self._open("")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers of a step, by name."""
        by_split: dict[str, dict[str, float]] = {}
        for name, value in values.items():
            split, rest = split_name(name)
            by_split.setdefault(split, {})[rest] = value
        for split, some in by_split.items():
            self._open(split).add_scalars(step, some)

    def add_result(self, step: int, values: Mapping[str, float]) -> None:
        """Write options and a run's numbers for HParams, in place of earlier ones.

        Without a list of all options, TensorBoard makes one of all runs that it shows,
        those that differ first.
        """
        del step
        summary, proto, _ = self.load()
        _, *session = summary.hparams(self._options, values)
        writer = EventWriter(self._directory / "result", 0)
        writer.write([proto.Event(summary=x) for x in session])
        writer.add_scalars(0, values)
        writer.close()

    def add_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add images, uint8 [H, W, 3], by name."""
        del step
        for name, image in images.items():
            self._open("").add_image(name, image)

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()

    def _open(self, split: str) -> "EventWriter":
        if split not in self._writers:
            self._writers[split] = EventWriter(self._directory / split, self._step)
        return self._writers[split]


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
        self._summary, self._proto, self._check = EventFiles.load()
        own_files.check_no_link(directory)
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path = directory / _choose_name(directory)
            self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        except OSError as error:
            raise UserError(
                f"{directory} cannot be written ({explain(error)}); or leave "
                "--track=tensorboard out: the same command resumes"
            ) from None
        events = [self._proto.Event(file_version="brain.Event:2")]
        if step is not None:
            start = self._proto.SessionLog(status=self._proto.SessionLog.START)
            events.append(self._proto.Event(step=step, session_log=start))
        self.write(events)

    def add_scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers of a step, by name."""
        made = [self._summary.scalar(name, x) for name, x in values.items()]
        self.write([self._proto.Event(step=step, summary=x) for x in made])

    def add_image(self, name: str, image: np.ndarray) -> None:
        """Add an image, uint8 [H, W, 3]."""
        made = self._summary.image(name, image, dataformats="HWC")
        self.write([self._proto.Event(summary=made)])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def write(self, events: list[Any]) -> None:
        """Write events, each with the time.

        Raises:
            OSError: the disk does not take them.
        """
        parts = []
        for event in events:
            event.wall_time = time.time()
            content = event.SerializeToString()
            for part in (struct.pack("<Q", len(content)), content):
                parts += [part, struct.pack("<I", self._check(part))]
        whole = b"".join(parts)
        while whole:
            whole = whole[self._file.write(whole) :]  # a full disk takes a part


def _choose_name(directory: Path) -> str:
    """Return a name behind those of the files that are there."""
    found = (_NAME.match(path.name) for path in directory.iterdir())
    latest = max((int(match[1]) for match in found if match), default=0)
    seconds = max(math.floor(time.time()), latest + 1)
    return f"events.out.tfevents.{seconds:010d}.{platform.node()}"
