"""Read TensorBoard's event files as TensorBoard does."""

import struct

import pytest


def read_events(directory):
    """Return the whole events of a directory, file by file in the order of names."""
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    crc = pytest.importorskip("tensorboardX.record_writer").masked_crc32c
    events = []
    for path in sorted(directory.glob("*tfevents*")):
        rest = path.read_bytes()
        while len(rest) >= 12:
            (size,) = struct.unpack("<Q", rest[:8])
            content, rest = rest[12 : 12 + size], rest[12 + size :]
            if len(content) < size or len(rest) < 4:
                break  # a file that was cut off ends here
            assert struct.unpack("<I", rest[:4]) == (crc(content),)
            events.append(proto.Event.FromString(content))
            rest = rest[4:]
    return events


def read_scalars(directory):
    """Return the numbers of a run, as `read_tags`, by the names of metrics.jsonl."""
    found = read_tags(directory)
    for split in ("train", "validation", "test"):
        inside = read_tags(directory / split)
        found |= {f"{split}_{tag}": values for tag, values in inside.items()}
    return found


def read_tags(directory):
    """Return what TensorBoard shows of a folder: by tag the steps and values, in order.

    As its EventAccumulator of files of version 2: a start of a session removes what
    has been read from its step on.
    """
    proto = pytest.importorskip("tensorboardX.proto.event_pb2")
    shown = []
    for event in read_events(directory):
        if event.session_log.status == proto.SessionLog.START:
            shown = [x for x in shown if x[1] < event.step]
        for value in event.summary.value:
            if value.HasField("simple_value"):
                shown.append((value.tag, event.step, value.simple_value))
    by_tag = {}
    for tag, step, value in shown:
        by_tag.setdefault(tag, []).append((step, value))
    return by_tag
