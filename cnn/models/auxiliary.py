"""Auxiliary classifiers: second heads on earlier layers, computed in training alone.

That on the output of a layer is called `LAYER_aux`, and its last layer `head`.
"""

from collections.abc import Iterable

import flax.linen as nn
import jax

_SUFFIX = "_aux"


def is_computed(module: nn.Module, train: bool) -> bool:
    """Return whether a model computes them: in training, and to create variables."""
    return train or module.is_initializing()


def sow(module: nn.Module, layer: str, logits: jax.Array) -> None:
    """Let a model's auxiliary classifier be seen: logits [N, K] by the layer's name."""
    module.sow("auxiliary", f"{layer}_out", logits)


def name_layer(sown: str) -> str:
    """Return the layer whose logits were sown under a name."""
    return sown.removesuffix("_out")


def list_layers(paths: Iterable[str]) -> set[str]:
    """List the auxiliary classifiers among the layers of paths without collection."""
    layers = {path.split("/")[0] for path in paths}
    return {layer for layer in layers if layer.endswith(_SUFFIX)}


def list_heads(paths: Iterable[str]) -> set[str]:
    """List those paths of auxiliary classifiers that depend on the classes."""
    paths = set(paths)
    beginnings = tuple(f"{layer}/head/" for layer in list_layers(paths))
    return {path for path in paths if path.startswith(beginnings)}


def list_absent(paths: Iterable[str], found: Iterable[str]) -> set[str]:
    """List the paths of the auxiliary classifiers of which weights hold nothing.

    Evaluation gives the same without them, so that many files are written so.

    Args:
        paths: of the model, without collection.
        found: those that there are weights of.
    """
    paths = set(paths)
    absent = list_layers(paths) - list_layers(found)
    return {path for path in paths if path.split("/")[0] in absent}
