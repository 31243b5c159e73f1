"""What a process has in memory, as Linux counts it; imports Python alone."""

from pathlib import Path

_SELF = Path("/proc/self")


def read_now() -> int:
    """Return the bytes of this process that are in memory."""
    return _read("VmRSS")


def read_most() -> int:
    """Return the most that there have been since `forget_most`, or the start."""
    return _read("VmHWM")


def forget_most() -> None:
    """Count the most from here on."""
    (_SELF / "clear_refs").write_text("5")


def _read(name: str) -> int:
    lines = (_SELF / "status").read_text().splitlines()
    return next(1024 * int(x.split()[1]) for x in lines if x.startswith(f"{name}:"))
