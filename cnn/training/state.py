"""The state of a training run: arrays alone, nothing callable inside."""

import hashlib
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cnn.config import Numbers
from cnn.models import draws
from cnn.models.variables import create_variables, flatten_paths, replace_leaves
from cnn.optim import freezing, mup, optimizer, weight_averaging
from cnn.training import examples


@flax.struct.dataclass
class TrainState:
    """Everything that a training step changes, and the variables of a teacher.

    Attributes:
        step: int32 [], the number of steps taken.
        params: the model's parameters.
        batch_stats: running statistics of batch normalisation; empty without it.
        opt_state: the optimizer's state.
        ema: averaged `params` and `batch_stats`; None when averaging is off.
        teacher: variables of a teacher that the loss reads and no step changes; None
            without, and outside of a step: programs take them as an argument of their
            own, which is not donated and which all trials of a sweep share.
        examples: what is kept of each training example, as of `cnn.training.examples`;
            None when they are not tracked.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    teacher: Any = None
    examples: Any = None


def create_state(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    rule: optimizer.Rule,
    numbers: Numbers,
    taken: Any = None,
    tracked_examples: int = 0,
) -> TrainState:
    """Create the state before the first step; pure, so it may be jitted.

    Args:
        model: the model to train.
        image_shape: (H, W, C) of its images.
        rule: of the optimizer.
        numbers: the numbers, `seed` among them.
        taken: those of `params` and `batch_stats` that are not drawn but given; of a
            run that is trained for longer also `opt_state`, by path, and `average`.
        tracked_examples: of `steps.Structure`.
    """
    create = draws.draw_together(
        lambda seed: create_variables(model, seed, image_shape)
    )
    variables, taken = create(numbers.seed), taken or {}
    variables["params"] = mup.scale_initial(rule.scales, variables["params"])
    state = make_state(rule, numbers, replace_leaves(variables, taken))
    if "opt_state" in taken:
        opt_state = freezing.carry_over(taken["opt_state"], state.opt_state)
        state = state.replace(opt_state=opt_state)
    if "average" in taken:
        state = state.replace(ema=replace_leaves(state.ema, taken["average"]))
    return state.replace(examples=examples.create(tracked_examples))


def make_state(
    rule: optimizer.Rule, numbers: Numbers, variables: dict[str, Any]
) -> TrainState:
    """Make the state before the first step from given variables.

    Args:
        rule: of the optimizer, which has a state for the parameters that train.
        variables: `params` and `batch_stats`.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.create_state(rule, numbers, variables["params"]),
        ema=weight_averaging.create_average(numbers, variables),
    )


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


def get_variables(state: TrainState) -> dict[str, Any]:
    """Return what is evaluated: the averaged weights when there are any."""
    return state.ema if state.ema is not None else get_weights(state)


def get_weights(state: TrainState) -> dict[str, Any]:
    """Return what is trained, not averaged: `params` and `batch_stats`."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def to_items(state: TrainState, sums: dict[str, Any]) -> dict[str, Any]:
    """Divide a state and the sums of its epoch into the trees of a checkpoint."""
    items = {
        "weights": get_weights(state),
        "training": {"step": state.step, "opt_state": state.opt_state, "sums": sums},
    }
    more = {"average": state.ema, "examples": state.examples}
    return items | {name: tree for name, tree in more.items() if tree is not None}


def from_items(items: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
    """Make a state, and the sums of its epoch, of the trees of a checkpoint."""
    training = items["training"]
    state = TrainState(
        step=training["step"],
        **items["weights"],
        opt_state=training["opt_state"],
        ema=items.get("average"),
        examples=items.get("examples"),
    )
    return state, training["sums"]
