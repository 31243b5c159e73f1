"""What command lines of benchmarks share: types of flags, errors and progress.

Import it before `cnn`, whose directory it makes known.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from cnn.errors import UserError  # noqa: E402


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1 on")
    return int(text)


def positives(text: str) -> list[int]:
    """Read whole numbers of at least 1 with commas between them."""
    return [positive(part) for part in text.split(",")]


def new_file(text: str) -> Path:
    """Read the path of a file to write, in a directory that exists."""
    path = Path(text).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: give a file in an existing folder")
    return path


def python_with_torch(text: str) -> str:
    """Read the path of a Python that imports PyTorch and torchvision."""
    try:
        call = [text, "-c", "import torch, torchvision"]
        done = subprocess.run(call, capture_output=True, text=True)
    except OSError as error:
        message = f"{text}: {error.strerror}; give a Python that has PyTorch"
        raise argparse.ArgumentTypeError(message) from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        message = f"{text} has no PyTorch and torchvision: {''.join(last)}"
        raise argparse.ArgumentTypeError(message)
    return text


def report(text: str) -> None:
    """Print to standard error what is being done."""
    print(text, file=sys.stderr, flush=True)


def write_json(path: Path | None, found: Any) -> None:
    """Write what was found, where a file was asked for."""
    if path:
        path.write_text(json.dumps(found, indent=1) + "\n")


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; a mistake of the user is one line and exit code 2."""
    try:
        main()
    except UserError as error:
        report(f"error: {error}")
        raise SystemExit(2) from None
