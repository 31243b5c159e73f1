"""Trees of weights as other codebases save them, and who hears what reading says."""

import jax
import numpy as np
from flax import serialization
from flax.traverse_util import flatten_dict

from cnn import config as config_module
from cnn import models
from cnn.models.variables import create_variables
from cnn.runtime.terminal import Terminal

SMALL = {"model": "simple_cnn", "widths": (3, 4), "image_size": 8, "channels": 1}
DIGITS = SMALL | {"scaling": "symmetric", "num_classes": 10}


class Listener(Terminal):
    """Keeps what is printed."""

    def __init__(self):
        super().__init__()
        self.text = ""

    def say(self, text):
        self.text += f"{text}\n"


def make_variables(seed=0, **options):
    """Return random variables of a small model under our names, float32 numpy."""
    static = config_module.make_config(SMALL | options).make_static()
    model = models.create_model(static.model, 10)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (8, 8, 1)))
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: random.uniform(0.1, 1, x.shape).astype(np.float32), shapes
    )


def rename_modules(variables, names):
    """Return variables whose modules have other names, those of `names`."""
    return {
        collection: {names.get(name, name): x for name, x in tree.items()}
        for collection, tree in variables.items()
    }


def save_npz(path, tree, compress=False):
    """Save a tree as big_vision does."""
    save = np.savez_compressed if compress else np.savez
    save(path, **flatten_dict(tree, sep="/"))
    return path


def save_msgpack(path, tree):
    """Save a tree as `flax.serialization` does."""
    path.write_bytes(serialization.to_bytes(tree))
    return path


def save_orbax(path, tree, **options):
    """Save a tree with the checkpointer that takes any tree."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer(**options) as writer:
        writer.save(path.absolute(), tree)
    return path


def save_steps(path, trees, **items):
    """Save trees as the steps of a manager: alone, or as the item `state`."""
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(path.absolute()) as manager:
        for step, tree in trees.items():
            saved = ocp.args.StandardSave(tree)
            if items:
                others = {n: ocp.args.JsonSave(x) for n, x in items.items()}
                saved = ocp.args.Composite(state=saved, **others)
            manager.save(step, args=saved)
    return path


def save_v1(path, tree):
    """Save a tree with orbax's newer interface."""
    from orbax.checkpoint import v1

    v1.save(path.absolute(), tree)
    return path
