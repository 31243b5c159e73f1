"""Loads files under a limit of memory and time, each in a process of its own.

`python planted.py FILE …` prints a line for each: what loading it raised.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from cnn.weights import leaf, torch_file

MEGABYTES, SECONDS = 200, 10


def load_torch_file(path):
    """Return every tensor of the set that is taken, read."""
    leaves = torch_file.take_set(Path(path), "", str(path))[0]
    return {name: leaf.read(x) for name, x in leaves.items()}


def load(path):
    """Load a file; returns what came of it."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (MEGABYTES << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    signal.alarm(SECONDS)
    try:
        load_torch_file(Path(path))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    return "loaded"


if __name__ == "__main__":
    for path in sys.argv[1:]:
        child = os.fork()
        if not child:
            print(path, load(path), flush=True)
            os._exit(0)
        if number := os.waitpid(child, 0)[1]:
            print(path, f"ended by signal {number & 127}", flush=True)
