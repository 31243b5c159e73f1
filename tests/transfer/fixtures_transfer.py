"""A tiny source run on digits 0-4, and copies of it with something planted."""

import json

import jax
import numpy as np
from fixtures_runs import train_run

from cnn.checkpoints import atomic, checkpoint, manifest, workdir
from cnn.models.variables import flatten_paths
from cnn.training import steps
from cnn.training.state import TrainState, to_items
from cnn.training.trained import load_trained
from cnn.transfer.merge import nest

# Three stages of one width, so that kernels of two layers have one shape.
SMALL = {
    "widths": (4, 4, 4),
    "classes": (0, 1, 2, 3, 4),
    "train_examples": 100,
    "validation_fraction": 0.0,
    "ema_decay": 0.0,
    "dropout_rate": 0.0,
    "checkpoint_every_epochs": 1.0,
    "log_every_steps": 0,
}


def train_source(directory):
    """Train the source run."""
    return train_run(directory, **SMALL, epochs=1)


def tune(directory, source, terminal=None, **changes):
    """Fine-tune in this process on the digits 5-9; returns the result."""
    options = SMALL | {"classes": (5, 6, 7, 8, 9), "init_from": str(source)} | changes
    return train_run(directory, terminal, **options)


def read_arrays(run):
    """Read a run's newest weights by path."""
    variables = load_trained(run).variables
    return {path: np.array(x) for path, x in flatten_paths(variables).items()}


def plant(source, directory, change=lambda arrays: None, **options):
    """Write the source again with something changed; a whole, valid checkpoint.

    Args:
        source: the run's directory.
        directory: of the new run.
        change: changes the arrays by path, in place.
        **options: options that the new run says it had; `class_names` too.
    """
    arrays = read_arrays(source)
    change(arrays)
    newest, _ = manifest.find_newest(source / "checkpoints")
    description = manifest.read_description(newest)
    if names := options.pop("class_names", None):
        description["class_names"] = names
    description["options"] |= json.loads(json.dumps(options))
    tree = jax.tree.map(jax.numpy.asarray, nest(arrays))
    state = TrainState(
        step=jax.numpy.zeros((), "int32"),
        params=tree["params"],
        batch_stats=tree.get("batch_stats", {}),
        opt_state={},
        ema=None,
    )
    writer = checkpoint.CheckpointWriter(directory / "checkpoints", 1)
    writer.save(to_items(state, steps.create_train_sums()), 0, description)
    writer.wait()
    atomic.write_json(directory / workdir.CONFIG_FILE, description["options"])
    return directory
