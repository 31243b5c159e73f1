"""What the system says of the machine."""

import ctypes
import os

_UNKNOWN = 2**33  # bytes that are assumed where no system of these answers


def get_memory() -> int:
    """Return the bytes of the machine's memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except AttributeError:  # Windows
        return _ask_windows()


def _ask_windows() -> int:
    """Ask for a MEMORYSTATUSEX: 64 bytes, its size first, total memory at byte 8.

    Source: https://learn.microsoft.com/windows/win32/api/sysinfoapi/
    ns-sysinfoapi-memorystatusex
    """
    status = (ctypes.c_uint64 * 8)(64)
    try:
        ctypes.windll.kernel32.GlobalMemoryStatusEx(status)  # type: ignore[attr-defined]
    except AttributeError:
        return _UNKNOWN
    return status[1]
