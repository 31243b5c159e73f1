"""Convolutional-network experiments in JAX: pure functions below, modes above.

`cnn.load("runs/digits")` returns a trained model for use from Python (`cnn.loaded`).
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """Import what is used from Python when it is first asked for."""
    if name == "load":
        from cnn.loaded import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
