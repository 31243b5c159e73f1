"""Training a run for longer: the optimizer's state, taken from it into a new run.

Momentum, moments with their count of steps, and averaged weights are the source's to
the bit. Steps, epochs, the order of images and the schedule start again, as the new
run's options say.
"""

from typing import Any

import jax
import numpy as np

from cnn.checkpoints import checkpoint
from cnn.config import Config
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.optim import optimizer
from cnn.optim.optimizer import Rule
from cnn.optim.options import OptimizerOptions
from cnn.option import format_value, read_group
from cnn.runtime import devices
from cnn.transfer.merge import Comparison

_LEAVE_OUT = "or leave --keep_optimizer out"


def take_state(
    config: Config, found: Comparison, rule: Rule, params: Any
) -> dict[str, Any]:
    """Read what a new run takes of its source besides weights.

    Args:
        found: the source beside the model.
        rule: of the first phase.
        params: shapes of all parameters.

    Returns:
        `opt_state` by path, and `average`, a tree, where both runs average alike; as
        `state.create_state` takes them.

    Raises:
        UserError: the source has no such state, or not for the same optimizer and the
            same leaves.
    """
    source, numbers = found.source, config.make_numbers()
    flag = f"--keep_optimizer: --init_from={source.name}"
    if source.checkpoint is None:
        raise UserError(
            f"{flag} is a file of weights alone; give a run's directory, {_LEAVE_OUT}"
        )
    options = source.description["options"]
    _check_options(flag, read_group(OptimizerOptions, options), config.optimizer)
    for kind in ("reset", "adapted", "skipped"):
        for path in found.kinds[kind]:
            raise UserError(
                f"{flag}: the optimizer's state belongs to the weights of the source, "
                f"and {path} is {kind}; take every weight as it is there, {_LEAVE_OUT}"
            )
    training = checkpoint.read_item(source.checkpoint, "training", _everywhere())
    there = jax.tree.map(np.asarray, flatten_paths(training.get("opt_state", {})))
    wanted = jax.eval_shape(lambda x: optimizer.create_state(rule, numbers, x), params)
    _check_same_leaves(flag, there, flatten_paths(wanted))
    taken: dict[str, Any] = {"opt_state": there}
    if any(options.get(x) and getattr(config.averaging, x) for x in _AVERAGES):
        average = checkpoint.read_item(source.checkpoint, "average", _everywhere())
        taken["average"] = jax.tree.map(np.asarray, average)
    return taken


_AVERAGES = ("ema_decay", "lookahead_decay")


def _everywhere() -> jax.sharding.Sharding:
    return devices.replicated(devices.make_mesh())


def _check_options(flag: str, there: OptimizerOptions, here: OptimizerOptions) -> None:
    """Refuse another optimizer's state."""
    for name in ("optimizer", "decoupled_rates"):
        theirs, ours = getattr(there, name), getattr(here, name)
        if theirs != ours:
            raise UserError(
                f"{flag} was trained with --{name}={format_value(theirs)}, not "
                f"{format_value(ours)}; give its own, {_LEAVE_OUT}"
            )


def _check_same_leaves(flag: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuse a state of other leaves than those that train here at first."""
    different = [
        path
        for path in sorted(there.keys() | here.keys())
        if path not in there
        or path not in here
        or (there[path].shape, there[path].dtype)
        != (here[path].shape, here[path].dtype)
    ]
    if different:
        raise UserError(
            f"{flag} has the optimizer's state for other leaves ({len(different)} "
            f"differ, the first is {different[0]}): what trained there at last must "
            "train here from the beginning (--freeze, --freeze_through, --train_only), "
            f"and --momentum be 0 in both or in neither; give the same, {_LEAVE_OUT}"
        )
