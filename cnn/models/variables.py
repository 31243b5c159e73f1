"""A model's variables: how they are drawn, and trees of them by path.

A path is what stands between a tree's root and a leaf: `params/stage1/conv/kernel`.
"""

import bisect
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn import keys
from cnn.errors import UserError
from cnn.models.layers import ImageTooSmall


def create_variables(
    model: nn.Module, seed: jax.Array | int, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Draw a model's variables.

    Args:
        model: maps float32 [N, H, W, C] to logits.
        seed: what they are drawn from.
        image_shape: (H, W, C).

    Returns:
        `params` and, maybe empty, `batch_stats`.

    Raises:
        UserError: the image is too small for the model; names the smallest.
    """
    images = jnp.zeros((1, *image_shape), jnp.float32)
    try:
        variables = model.init(keys.initialisation_key(seed), images, train=False)
    except ImageTooSmall as error:
        size = _find_smallest_size(model, image_shape)
        raise UserError(
            f"{error}. The smallest image it takes is {size}x{size}: give a larger "
            "--image_size, or a model with less downsampling"
        ) from None
    return {
        "params": variables["params"],
        "batch_stats": variables.get("batch_stats", {}),
    }


def _find_smallest_size(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Find the least side of square images that a model takes, by shapes alone."""

    def is_taken(size: int) -> bool:
        images = jax.ShapeDtypeStruct((1, size, size, image_shape[2]), jnp.float32)
        try:
            jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
        except ImageTooSmall:
            return False
        return True

    low = min(image_shape[:2])
    high = 2 * low
    while not is_taken(high):
        low, high = high, 2 * high
    sizes = range(low, high + 1)
    return sizes[bisect.bisect_left(sizes, True, key=is_taken)]


def flatten_paths(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by path, as `params/stage1/conv/kernel`, sorted."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }
    return dict(sorted(paths.items()))


def is_kernel(path: str) -> bool:
    """Return whether a parameter is multiplied with the input; the others are vectors.

    Its name decides, `kernel` or `…_kernel`, never its rank: the bias of a locally
    connected layer has four axes. Vectors are biases and scales: what `--decay_norms`
    is about and Muon leaves to its other rule.
    """
    return path.rpartition("/")[2].rpartition("_")[2] == "kernel"


def select_leaves(tree: Any, paths: Collection[str]) -> Any:
    """Return a tree of nested dicts without the leaves that are not among `paths`."""

    def select(tree: Any, prefix: str) -> Any:
        if not isinstance(tree, Mapping):
            return tree
        found = {name: select(x, f"{prefix}{name}/") for name, x in tree.items()}
        return {
            name: x
            for name, x in found.items()
            if (x if isinstance(x, Mapping) else f"{prefix}{name}" in paths)
        }

    return select(tree, "")


def replace_leaves(tree: Any, part: Any) -> Any:
    """Return a tree of nested dicts with the leaves of `part` in place of its own."""
    if not isinstance(tree, Mapping):
        return part
    return {
        name: replace_leaves(x, part[name]) if name in part else x
        for name, x in tree.items()
    }


def count_parameters(params: Any) -> int:
    """Count the numbers in a tree of arrays or their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
