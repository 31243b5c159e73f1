"""Memory that was freed, which the C library keeps for what comes next.

glibc returns a freed page only from the end of its heap. Compilation leaves its own
scattered over it: of resnet20's program 226 MB, which the process held all its life.
"""

import ctypes
import functools
from collections.abc import Callable


def give_back() -> None:
    """Give the system the pages that are free; without glibc nothing is done."""
    _find_trim()(0)


@functools.cache
def _find_trim() -> Callable[[int], int]:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # macOS, musl; Windows
        return lambda kept: 0
