"""A trained model of any source: a run of ours, a checkpoint, or weights of others."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnn.config import make_config
from cnn.errors import UserError
from cnn.training.trained import Trained, load_trained, make_trained
from cnn.weights import convert, hub, recognise


def is_ours(source: str | Path, flag: str) -> bool:
    """Return whether a source is a run of ours or one of its checkpoints.

    Args:
        source: whatever `--init_from` takes.
        flag: that named it, for messages.

    Raises:
        UserError: there is nothing, or nothing that holds weights.
    """
    if hub.is_name(str(source)):
        return False
    kind = recognise.recognise(Path(source), flag)
    return kind in (recognise.RUN, recognise.CHECKPOINT)


def load_run(source: str | Path, which: str = "latest") -> Trained:
    """Load a run of ours, or one of its checkpoints.

    Args:
        which: of the run: `latest`, `best` or a step.

    Raises:
        UserError: there is no such checkpoint, or it is damaged.
    """
    return load_trained(*locate(source, which))


def locate(source: str | Path, which: str = "latest") -> tuple[Path, str]:
    """Return the run's directory of a run or of a checkpoint of it, and which one.

    Raises:
        UserError: a checkpoint lies in no run.
    """
    path = Path(source)
    if recognise.recognise(path, "source") == recognise.RUN:
        return path, which
    path = path.resolve()
    if path.parent.name != "checkpoints":
        raise UserError(f"{path} is a checkpoint of no run; give DIR/checkpoints/STEP")
    return path.parent.parent, path.name


def load_theirs(source: str | Path, which: str = "latest", **options: Any) -> Trained:
    """Load weights of others, as `--mode=convert` would.

    Args:
        which: `latest`, `best` or a step, where the source holds several.
        **options: what `--mode=convert` takes, by flag name.

    Raises:
        UserError: there are no such weights, or they do not fit.
    """
    config = make_config(options | {"source": str(source), "checkpoint": which})
    config.check_read(options, "convert")
    taken = convert.take(config)
    return make_trained(taken.description, jax.tree.map(jnp.asarray, taken.variables))
