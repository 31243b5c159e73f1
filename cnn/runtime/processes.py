"""Several processes that train one run: how they connect, agree, and end together.

Only the first process writes and prints. A process that fails ends at once, without
waiting for the others; these then fail in their next common computation, or jax's own
watch over its processes ends them.
"""

import contextlib
import os
import re
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np

from cnn.errors import UserError
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.options import ProcessOptions
from cnn.text import show

FAILED = 1
MISTAKEN = 2
# Messages of jax, gloo and NCCL on a lost process; the type of error differs.
_LOST = "(?i)gloo|nccl|coordination service|UNAVAILABLE:|DEADLINE_EXCEEDED"
_LAST_WORDS_SECONDS = 1.0
_NO_JOB = (
    "no Slurm, Open MPI, Kubernetes or TPU pod started this process; give "
    "HOST:PORT,PROCESSES,ID"
)


@contextlib.contextmanager
def join(options: ProcessOptions) -> Iterator[None]:
    """Connect to the other processes, and end with them.

    A process that fails prints why and ends with an exit code other than 0; without
    other processes, exceptions pass. If the others do not connect in time, it prints so
    and ends.

    Raises:
        UserError: --distributed is malformed, or no job started this process.
    """
    if not options.distributed:
        yield
        return
    _meet(options)
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        leave(error)


@contextlib.contextmanager
def leave_when_failed() -> Iterator[None]:
    """Of several processes, end this one at once when it fails.

    The others may be inside a computation that waits for this one.
    """
    try:
        yield
    except Interrupted:
        raise
    except Exception as error:
        if jax.process_count() > 1:
            leave(error)
        raise


def leave(error: Exception) -> NoReturn:
    """Print why this process ends, and end it without waiting for the others."""
    who = f"process {jax.process_index()} of {jax.process_count()}"
    is_mistake = isinstance(error, UserError | OSError)
    if is_mistake:
        print(f"error: {who}: {show(str(error))}", file=sys.stderr)
    elif re.search(_LOST, str(error)):
        print(
            f"error: {who}: another process of the run has ended or cannot be reached "
            f"({str(error).splitlines()[0][:200]}); its own message says why. "
            "Checkpoints are whole; the same command resumes from the newest",
            file=sys.stderr,
        )
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    if is_first():
        # jax ends the others when this process ends: they print their errors first.
        time.sleep(_LAST_WORDS_SECONDS)
    os._exit(MISTAKEN if is_mistake else FAILED)


def is_first() -> bool:
    """Return whether this process is the one that writes and prints."""
    return jax.process_index() == 0


def are_several() -> bool:
    """Return whether other processes train the same run."""
    return jax.process_count() > 1


def find_most(value: float) -> float:
    """Return the largest of the processes' values; all of them must ask."""
    if jax.process_count() == 1:
        return value
    return float(_gather(np.float32(value)).max())


def check_equal(name: str, text: str) -> None:
    """Wait for the other processes, and refuse a text that is not the same in all."""
    if jax.process_count() == 1:
        return
    digests = _gather(np.uint32(zlib.crc32(text.encode())))
    if (digests != digests[0]).any():
        raise UserError(
            f"The processes of this run do not have the same {name}; start all of "
            "them by the same command, on the same files"
        )


def enter(directory: Path, options: str) -> None:
    """Refuse processes whose options differ or that do not share the directory."""
    if jax.process_count() == 1:
        return
    check_equal("options", f"{directory} {options}")
    if not directory.is_dir():
        raise UserError(
            f"--workdir={directory} is not there; several processes need a directory "
            "on a file system that all of them share"
        )


def _gather(value: Any) -> np.ndarray:
    from jax.experimental import multihost_utils

    return np.asarray(multihost_utils.process_allgather(value))


def _meet(options: ProcessOptions) -> None:
    """Initialise jax's processes; in a thread, for signals and the time limit."""
    arguments = _read_address(options.distributed)
    failed: list[Exception] = []

    def initialize() -> None:
        try:
            jax.distributed.initialize(
                **arguments,
                # Longer than ours: past its own limit jax aborts the process.
                initialization_timeout=options.distributed_seconds + 60,
            )
            jax.devices()  # here too each waits for the others
        except Exception as error:
            failed.append(error)

    meeting = threading.Thread(target=initialize, daemon=True)
    meeting.start()
    meeting.join(options.distributed_seconds)
    if meeting.is_alive():
        # Not by an exception: the thread would hold up the end of the process.
        print(
            f"error: --distributed={options.distributed}: the processes have not come "
            f"together within {options.distributed_seconds} s. Is process 0 running "
            "and its address right, is its port open, were all of them started? "
            "--distributed_seconds waits longer",
            file=sys.stderr,
            flush=True,
        )
        os._exit(MISTAKEN)
    if not failed:
        return
    hint = "" if arguments else f": {_NO_JOB}"
    raise UserError(f"--distributed={options.distributed}: {failed[0]}{hint}")


def _read_address(text: str) -> dict[str, Any]:
    if text == "auto":
        return {}
    found = re.fullmatch(r"([^,]+:\d+),(\d+),(\d+)", text)
    if not found or int(found[3]) >= int(found[2]):
        raise UserError(
            f"--distributed={text}: write auto, or HOST:PORT,PROCESSES,ID with ID from "
            "0 to PROCESSES - 1, as 10.0.0.1:1234,2,0"
        )
    return {
        "coordinator_address": found[1],
        "num_processes": int(found[2]),
        "process_id": int(found[3]),
        "cluster_detection_method": "deactivate",
    }
