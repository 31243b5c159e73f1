"""Freezing: which leaves train in which epochs, and how the others are left alone.

Frozen means no update, no weight decay, no optimizer state, no gradient, and batch
normalisation that normalises by its running statistics and keeps them.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from cnn.errors import UserError
from cnn.models import layers as model_layers
from cnn.models.variables import flatten_paths, select_leaves
from cnn.optim import paths
from cnn.optim.options import FreezingOptions


@dataclasses.dataclass(frozen=True)
class Phase:
    """What trains between two changes of freezing: one static program.

    Attributes:
        first_epoch: its first.
        trained: paths of the parameters that train.
        moving: paths of the batch normalisations whose running statistics move.
    """

    first_epoch: int
    trained: frozenset[str]
    moving: frozenset[str]

    def trains(self, layer: str) -> bool:
        """Return whether any parameter of a layer trains."""
        return any(path.split("/")[0] == layer for path in self.trained)

    def is_frozen(self, path: str) -> bool:
        """Return whether a leaf, as `params/head/bias` or `batch_stats/…`, stays."""
        collection, _, inside = path.partition("/")
        if collection == "params":
            return inside not in self.trained
        return inside.rpartition("/")[0] not in self.moving


def make_phases(
    options: FreezingOptions, layers: Sequence[str], variables: Any, epochs: int
) -> tuple[Phase | None, ...]:
    """Divide a run into phases.

    Args:
        layers: the model's, in the order in which they run.

    Returns:
        One phase for the beginning and one for each epoch that unfreezes something;
        (None,) when everything trains and all statistics move.

    Raises:
        UserError: a pattern means nothing, everything is frozen, or `--unfreeze`
            names what is not frozen or an epoch outside the run.
    """
    params = list(flatten_paths(variables["params"]))
    norms = {
        path.rpartition("/")[0] for path in flatten_paths(variables["batch_stats"])
    }
    if options.freeze_statistics and not norms:
        raise UserError("--freeze_statistics: the model has no batch normalisation")
    frozen = _find_frozen(options, layers, params)
    if frozen == set(params):
        raise UserError(
            "Everything is frozen and nothing would train; leave a layer out of "
            f"--freeze, --freeze_through or --train_only, such as {layers[-1]}"
        )
    changes = []
    for text in options.unfreeze:
        pattern, epoch = read_unfreeze(text, epochs)
        changes.append((epoch, text, paths.select([pattern], params, "unfreeze")))
    if not frozen and not options.unfreeze and not options.freeze_statistics:
        return (None,)
    phases = [_make_phase(options, 0, params, frozen, norms)]
    for epoch, text, unfrozen in sorted(changes, key=lambda change: change[0]):
        if not frozen & unfrozen:
            raise UserError(
                f"--unfreeze={text}: nothing of it is frozen then; freeze it with "
                "--freeze, --freeze_through or --train_only, or leave it out"
            )
        frozen = frozen - unfrozen
        if phases[-1].first_epoch == epoch:
            phases.pop()
        phases.append(_make_phase(options, epoch, params, frozen, norms))
    return tuple(phases)


def find_phase(phases: Sequence[Any], epoch: int) -> int:
    """Return the number of the phase that an epoch belongs to.

    Args:
        phases: with a `first_epoch`, ascending; None is a phase from 0 on.
    """
    firsts = [0 if phase is None else phase.first_epoch for phase in phases]
    return max(number for number, first in enumerate(firsts) if first <= epoch)


def select_trained(phase: Phase | None, params: Any) -> Any:
    """Return the parameters that train, as a tree without the others."""
    return params if phase is None else select_leaves(params, phase.trained)


def keep_frozen(phase: Phase | None, before: Any, after: Any) -> Any:
    """Return the variables `after`, the frozen leaves being those `before`."""
    if phase is None:
        return after

    def choose(path: Any, old: jax.Array, new: jax.Array) -> jax.Array:
        return old if phase.is_frozen(paths.write_path(path)) else new

    return jax.tree_util.tree_map_with_path(choose, before, after)


def hold_statistics(phase: Phase | None) -> contextlib.AbstractContextManager:
    """Let frozen batch normalisations normalise by their running statistics.

    Returns:
        A context inside which a model is applied with `train=True`.
    """
    if phase is None:
        return contextlib.nullcontext()

    def is_held(module: nn.Module) -> bool:
        return "/".join(module.path) not in phase.moving

    def call(next_call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if isinstance(module, model_layers.BatchNorm) and is_held(module):
            return next_call(args[0], train=False)
        if isinstance(module, nn.BatchNorm) and is_held(module):
            return _call_held(next_call, module, args, kwargs)
        return next_call(*args, **kwargs)

    return nn.intercept_methods(call)


def _call_held(
    next_call: Callable, module: nn.BatchNorm, args: tuple, kwargs: Mapping[str, Any]
) -> jax.Array:
    """Call Flax's batch normalisation by its running statistics, whatever it was told.

    It is told once: as an attribute, or as an argument.
    """
    told = module.use_running_average
    object.__setattr__(module, "use_running_average", None)
    try:
        return next_call(args[0], **{**kwargs, "use_running_average": True})
    finally:
        object.__setattr__(module, "use_running_average", told)


def carry_over(before: Any, after: Any) -> Any:
    """Carry an optimizer's state into a phase in which more leaves train.

    Args:
        after: the new phase's first state, as of a new run.

    Returns:
        `after`, with every leaf of `before` at its place.
    """
    known = flatten_paths(before)
    leaves, structure = jax.tree_util.tree_flatten_with_path(after)
    carried = [known.get(paths.write_path(path), leaf) for path, leaf in leaves]
    return jax.tree_util.tree_unflatten(structure, carried)


def _find_frozen(
    options: FreezingOptions, layers: Sequence[str], params: Collection[str]
) -> set[str]:
    frozen = paths.select(options.freeze, params, "freeze")
    if options.freeze_through:
        through = paths.list_through(layers, options.freeze_through, "freeze_through")
        frozen |= {path for path in params if path.split("/")[0] in through}
    if options.train_only:
        frozen |= set(params) - paths.select(options.train_only, params, "train_only")
    return frozen


def _make_phase(
    options: FreezingOptions,
    epoch: int,
    params: Iterable[str],
    frozen: set[str],
    norms: set[str],
) -> Phase:
    trained = frozenset(params) - frozen
    owners = {path.rpartition("/")[0] for path in trained}
    moving = frozenset() if options.freeze_statistics else frozenset(norms & owners)
    return Phase(epoch, trained, moving)


def read_unfreeze(text: str, epochs: int) -> tuple[str, int]:
    """Read an item of `--unfreeze` as pattern and epoch.

    Raises:
        UserError: it is not of the form pattern:epoch, or lies outside the run.
    """
    pattern, _, epoch = text.rpartition(":")
    if not pattern or not epoch.isdecimal():
        raise UserError(
            f"--unfreeze={text}: write pattern:epoch, such as stage4:2, with a whole "
            "number of epochs"
        )
    if not 0 < int(epoch) < epochs:
        raise UserError(
            f"--unfreeze={text}: with --epochs={epochs} the epochs to unfreeze at are "
            f"1 to {epochs - 1}"
        )
    return pattern, int(epoch)
