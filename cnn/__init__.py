"""Convolutional-network experiments in JAX: pure functions below, modes above.

`cnn.load("runs/digits")` returns a trained model for use from Python (`cnn.loaded`);
`cnn.train_run`, `cnn.run_sweep` and `cnn.list_runs` do what the command line does
(`cnn.from_python`).
"""

from typing import TYPE_CHECKING, Any

from cnn.place import VERSION as __version__  # noqa: F401

if TYPE_CHECKING:  # they are imported when they are first asked for
    from cnn.from_python import list_runs as list_runs
    from cnn.from_python import run_sweep as run_sweep
    from cnn.from_python import train_run as train_run
    from cnn.loaded import load as load


def __getattr__(name: str) -> Any:
    """Import what is used from Python when it is first asked for."""
    if name == "load":
        from cnn.loaded import load

        return load
    if name in ("list_runs", "run_sweep", "train_run"):
        from cnn import from_python

        return getattr(from_python, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
