"""How long the compiler takes for a training step: what it took the last time.

It is kept beside the compiled programs, by all that makes the program another one.
"""

import hashlib
from typing import Any

import jax

from cnn.runtime import kept
from cnn.training.setup import PhaseSetup, Setup

_NAME = "compile-seconds"
_SHORT = 1.0  # seconds that nobody asks about


def note(setup: Setup, phase: PhaseSetup, seconds: float) -> None:
    """Keep how long a phase's training program took to be compiled."""
    kept.keep_number(_NAME, _describe(setup, phase), round(seconds, 2))


def announce(setup: Setup, phase: PhaseSetup) -> str:
    """Write what is waited for: empty where the last time took no second."""
    seconds = kept.find_number(_NAME, _describe(setup, phase))
    if seconds is None:
        return "compiling the training step, for the first time on this machine"
    if seconds < _SHORT:
        return ""
    return f"compiling the training step, which took {seconds:.0f} s the last time"


def _describe(setup: Setup, phase: PhaseSetup) -> dict[str, Any]:
    """Describe a phase's program, so far as a person would call it the same."""
    key = f"{setup.config.make_program_key()} {phase.structure.rule.phase}"
    devices = setup.mesh.devices
    return {
        "program": hashlib.sha256(key.encode()).hexdigest()[:32],
        "image_shape": list(setup.image_shape),
        "devices": f"{devices.size} x {devices.flat[0].device_kind}",
        "jax": jax.__version__,
    }
