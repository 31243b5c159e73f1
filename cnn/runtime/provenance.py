"""Where a result comes from: the command, the code's commit and the machine."""

import functools
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from cnn import place

ROOT = place.TOP
_SECRET_FLAGS = ("storage",)  # an address that may hold a password
_GIT_SECONDS = 5


def describe() -> dict[str, Any]:
    """Return `command`, `commit`, `dirty` and `host`, as JSON.

    `dirty` is whether files under version control differ from the commit; both are
    None where the code lies in no repository of its own, or git does not answer.
    """
    commit, dirty = read_commit(ROOT)
    return {
        "command": format_command(sys.argv),
        "commit": commit,
        "dirty": dirty,
        "host": platform.node(),
    }


def format_command(arguments: list[str]) -> str:
    """Write a command line that a shell takes, without flags that hold secrets.

    Args:
        arguments: of `sys.argv`: the program first.
    """
    program = ["cnn"] if place.IS_INSTALLED else ["python", *arguments[:1]]
    kept, is_value = program, False
    for argument in arguments[1:]:
        name, sign, _ = argument.lstrip("-").partition("=")
        is_secret = argument.startswith("-") and name in _SECRET_FLAGS
        if not is_secret and not is_value:
            kept.append(argument)
        is_value = is_secret and not sign  # `--storage URL`, in two words
    return shlex.join(kept)


@functools.cache
def read_commit(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the code, and whether its files differ from it.

    Asked once a process, so that it is the code that was imported.

    Args:
        root: the directory that holds `main.py`; a repository that does not hold that
            file is another one, in which the code merely lies.
    """
    known = _ask_git(root, "ls-files", "--error-unmatch", "main.py")
    commit = _ask_git(root, "rev-parse", "HEAD") if known else None
    if not commit:
        return None, None
    changed = _ask_git(root, "status", "--porcelain", "--untracked-files=no", "--", ".")
    return commit, None if changed is None else bool(changed)


def _ask_git(root: Path, *arguments: str) -> str | None:
    """Return what git prints; None if it fails, is not there or takes too long."""
    # A hook or an editor may have set GIT_DIR to another repository.
    plain = {n: v for n, v in os.environ.items() if not n.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(root), *arguments],
            env=plain,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()
