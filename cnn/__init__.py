"""Convolutional-network experiments in JAX: pure functions below, modes above.

`cnn.load("runs/digits")` returns a trained model for use from Python (`cnn.loaded`).
"""

from typing import TYPE_CHECKING, Any

from cnn.place import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:  # `load` is imported when it is first asked for
    from cnn.loaded import load as load


def __getattr__(name: str) -> Any:
    """Import what is used from Python when it is first asked for."""
    if name == "load":
        from cnn.loaded import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
