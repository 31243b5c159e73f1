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
    path = _find(name, facts)
    if path is None:
        return
    new = None
    try:
        number, new = tempfile.mkstemp(prefix=f".{name}-", dir=path.parent)
        with open(number, "w", encoding="utf-8") as file:
            json.dump(facts, file)
        os.replace(new, path)
    except OSError:
        if new is not None:
            Path(new).unlink(missing_ok=True)


def _find(name: str, facts: Mapping[str, Any]) -> Path | None:
    directory = jax.config.jax_compilation_cache_dir
    if not directory or not jax.config.jax_enable_compilation_cache:
        return None
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return Path(directory) / f"{name}-{digest[:32]}.json"
