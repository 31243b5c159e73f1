"""What a run's numbers depend on besides its options: devices, versions, the compiler.

Recorded in checkpoints and results. A run may be resumed under others, and says so.
"""

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from cnn import place
from cnn.runtime import devices

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
# Of the compiler and the libraries below it; jax's own are pinned by settings.py.
_VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")
_CPU_INFO = Path("/proc/cpuinfo")


def describe(mesh: Mesh) -> dict[str, Any]:
    """Return `device`, `processor`, `versions`, `environment_variables`: JSON."""
    variables = {n: os.environ[n] for n in _VARIABLES if os.environ.get(n)}
    return {
        "device": devices.describe_device(mesh),
        "processor": _describe_processor(),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in _PACKAGES},
        "environment_variables": variables,
    }


def format_versions() -> str:
    """Write the versions of the program, Python and jax, on one line."""
    python, jax = platform.python_version(), importlib.metadata.version("jax")
    return f"cnn {place.VERSION}, Python {python}, jax {jax}"


def list_changes(stored: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List what differs between two environments, as `jax 0.11.2 (now 0.12.0)`.

    Args:
        stored: of `describe`, of a checkpoint; empty in those of earlier versions.
        here: of `describe`.
    """
    before, now = (_flatten(x) if stored else {} for x in (stored, here))
    return [
        f"{name} {before.get(name, 'none')} (now {now.get(name, 'none')})"
        for name in before | now
        if before.get(name) != now.get(name)
    ]


def _flatten(environment: Mapping[str, Any]) -> dict[str, Any]:
    flat = {n: x for n, x in environment.items() if not isinstance(x, Mapping)}
    for name in ("versions", "environment_variables"):
        flat |= environment.get(name, {})
    return flat


def _describe_processor() -> str:
    """Return the model of the CPU, whose instructions decide the order of sums."""
    try:
        text = _CPU_INFO.read_text(errors="replace")
    except OSError:  # other systems than Linux
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
