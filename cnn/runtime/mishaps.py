"""What the machine may lack, told in one line as a user's mistake is.

A package that is broken, memory, threads: no option and no file is at fault, and a
traceback would not help.
"""

import math
import os
import sys
import time
import traceback
from types import TracebackType

try:
    import resource
except ImportError:  # Windows
    resource = None

MISTAKEN = 2
# Bytes of addresses: a tiny run ended in a signal or a traceback with 1.6e9 and less.
LEAST_SPACE = 2_000_000_000
_LAST_TIME = 2**63 / 1e9  # seconds since 1970: 64 bits of nanoseconds, until 2262


def describe(error: BaseException) -> str:
    """Return what is missing and how to get it; empty of any other error."""
    # In the last line of it: an error while another one was handled.
    text = " ".join(str(error).split())[:300]
    if isinstance(error, ImportError):
        frames = traceback.extract_tb(error.__traceback__)
        where = f" in {frames[-1].filename}" if frames else ""
        return (
            f"a package cannot be imported ({text}{where}); install again with "
            "pip install -r requirements.txt, in an environment of its own"
        )
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return (
            f"out of memory ({text or 'of this machine'}); give a smaller --batch_size "
            "or --accumulate_steps, or allow more (ulimit -v, the job's limit). "
            "Checkpoints are whole; the same command resumes"
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in text:
        return (
            "the system starts no further thread; allow more of them or more memory "
            "(ulimit -u, ulimit -v, the container's limit). Checkpoints are whole; the "
            "same command resumes"
        )
    return ""


def check_clock() -> None:
    """Leave with one line under a time that libraries cannot tell or write."""
    try:
        now = time.time()
    except OverflowError:
        now = math.inf
    if not 0 <= now < _LAST_TIME:
        print(
            "error: this machine's clock is set to before 1970 or after 2261, when "
            "checkpoints cannot be dated; set it right",
            file=sys.stderr,
        )
        raise SystemExit(MISTAKEN)


def check_space() -> None:
    """Leave with one line where libraries would end in a signal: with few addresses."""
    allowed = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else -1
    if 0 <= allowed < LEAST_SPACE:
        print(
            f"error: a limit of {allowed / 1e9:.2f} GB is set on addresses (ulimit -v) "
            f"and the program alone takes {LEAST_SPACE / 1e9:.0f}; raise it: ulimit -v "
            "unlimited",
            file=sys.stderr,
        )
        raise SystemExit(MISTAKEN)


def report_uncaught() -> None:
    """Let errors that nothing catches, as of imports, be told by `describe`."""
    shown = sys.excepthook

    def report(
        kind: type[BaseException], error: BaseException, trace: TracebackType | None
    ) -> None:
        text = describe(error)
        if not text:
            shown(kind, error, trace)
            return
        print(f"error: {text}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(MISTAKEN)

    sys.excepthook = report
