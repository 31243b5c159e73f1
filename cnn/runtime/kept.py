"""What was found good on this machine, kept beside the compiled programs.

A file says of what it holds; one that is damaged or of other facts is as if absent, and
one that cannot be written only means that the same is found out again.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from cnn.runtime import own_files


def is_kept(name: str, facts: Mapping[str, Any]) -> bool:
    """Return whether these facts, JSON, were kept by this name."""
    path = _find(name, facts)
    try:
        return path is not None and json.loads(own_files.read(path)) == facts
    except (OSError, ValueError, RecursionError):
        return False


def keep(name: str, facts: Mapping[str, Any]) -> None:
    """Keep facts, as far as the disk lets; without a compilation cache, nothing."""
    _write(name, _find(name, facts), facts)


def _write(name: str, path: Path | None, content: Mapping[str, Any]) -> None:
    if path is None:
        return
    new = None
    try:
        number, new = tempfile.mkstemp(prefix=f".{name}-", dir=path.parent)
        with open(number, "w", encoding="utf-8") as file:
            json.dump(content, file)
        os.replace(new, path)
    except OSError:
        if new is not None:
            Path(new).unlink(missing_ok=True)


def find_number(name: str, facts: Mapping[str, Any]) -> float | None:
    """Return the number that was kept of these facts by this name; None without one."""
    path = _find(name, facts)
    try:
        found = None if path is None else json.loads(own_files.read(path))
    except (OSError, ValueError, RecursionError):
        return None
    is_own = isinstance(found, dict) and found.get("facts") == facts
    number = found.get("number") if is_own else None
    return number if type(number) in (int, float) else None


def keep_number(name: str, facts: Mapping[str, Any], number: float) -> None:
    """Keep a number of some facts, in place of the one before; else as `keep`."""
    _write(name, _find(name, facts), {"facts": facts, "number": number})


def _find(name: str, facts: Mapping[str, Any]) -> Path | None:
    directory = jax.config.jax_compilation_cache_dir
    if not directory or not jax.config.jax_enable_compilation_cache:
        return None
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Path(directory) / f"{name}-{digest[:32]}.json"
