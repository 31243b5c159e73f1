"""The state of a training run: arrays alone, nothing callable inside."""

import bisect
import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cnn import keys, optimizer
from cnn.errors import UserError
from cnn.models.layers import ImageTooSmall
from cnn.optimizer import Hyperparameters, OptimizerOptions


@flax.struct.dataclass
class TrainState:
    """Everything that a training step changes.

    Attributes:
        step: int32 [], the number of steps taken.
        params: the model's parameters.
        batch_stats: running statistics of batch normalisation; empty without it.
        opt_state: the optimizer's state.
        ema: averaged `params` and `batch_stats`; None when averaging is off.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any


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


def create_state(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    options: OptimizerOptions,
    hyperparameters: Hyperparameters,
    taken: Any = None,
    trained: Collection[str] | None = None,
) -> TrainState:
    """Create the state before the first step; pure, so it may be jitted.

    Args:
        model: the model to train.
        image_shape: (H, W, C) of its images.
        options: the optimizer's structure.
        hyperparameters: the numbers, `seed` among them.
        taken: those of `params` and `batch_stats` that are not drawn but given.
        trained: as of `make_state`.
    """
    variables = create_variables(model, hyperparameters["seed"], image_shape)
    variables = replace_leaves(variables, taken or {})
    return make_state(variables, options, hyperparameters, trained)


def make_state(
    variables: dict[str, Any],
    options: OptimizerOptions,
    hyperparameters: Hyperparameters,
    trained: Collection[str] | None = None,
) -> TrainState:
    """Make the state before the first step from given variables.

    Args:
        variables: `params` and `batch_stats`.
        options: the optimizer's structure.
        hyperparameters: the numbers.
        trained: paths of the parameters that the optimizer has a state for; None: all.
    """
    params = variables["params"]
    rate = hyperparameters["learning_rate"]
    chain = optimizer.make_optimizer(options, rate, hyperparameters)
    decays = hyperparameters["ema_decay"], hyperparameters["lookahead_decay"]
    averaged = decays != (None, None)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables["batch_stats"],
        opt_state=chain.init(
            params if trained is None else select_leaves(params, trained)
        ),
        ema=jax.tree.map(jnp.copy, variables) if averaged else None,
    )


def get_variables(state: TrainState) -> dict[str, Any]:
    """Return what is evaluated: the averaged weights when there are any."""
    return state.ema if state.ema is not None else get_weights(state)


def get_weights(state: TrainState) -> dict[str, Any]:
    """Return what is trained, not averaged: `params` and `batch_stats`."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def flatten_paths(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree by path, as `params/stage1/conv/kernel`, sorted."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    paths = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }
    return dict(sorted(paths.items()))


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


def compute_state_sha256(state: TrainState) -> str:
    """Compute SHA-256 over every leaf of a state in the order of its paths.

    Each leaf adds, in UTF-8, its path, dtype and shape, as
    `params/head/bias float32 (10,)` and a newline, then its bytes in C order.
    """
    digest = hashlib.sha256()
    for path, leaf in flatten_paths(state).items():
        array = np.ascontiguousarray(leaf)
        digest.update(f"{path} {array.dtype} {leaf.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@jax.jit
def is_finite(tree: Any) -> jax.Array:
    """Return whether every number in a tree of arrays is finite; bool []."""
    leaves = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(leaves))


def count_parameters(params: Any) -> int:
    """Count the numbers in a tree of arrays or their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
