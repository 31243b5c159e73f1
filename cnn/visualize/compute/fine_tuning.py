"""Fine-tuning layer by layer: where the weights come from, and when they train."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnn.config import make_config
from cnn.errors import UserError
from cnn.models import summary
from cnn.models.variables import flatten_paths
from cnn.optim import freezing, paths
from cnn.training.trained import Trained

KEPT, ADAPTED, REPLACED = "kept", "adapted", "replaced"
TRAINS, PARTLY, FROZEN = "trains", "partly", "frozen"


@dataclasses.dataclass(frozen=True)
class LayerPlan:
    """The plan of a layer, or of consecutive layers that have one plan.

    Attributes:
        name: the layer's, or of several the first's and the last's.
        num_layers: how many they are.
        num_parameters: of all of them.
        start: `KEPT` as the source has its weights, `ADAPTED` to the images' channels,
            or `REPLACED`, drawn at random.
        phases: for each phase `TRAINS`, `PARTLY` or `FROZEN`.
    """

    name: str
    num_layers: int
    num_parameters: int
    start: str
    phases: tuple[str, ...]


def plan_layers(trained: Trained) -> tuple[list[int], list[LayerPlan]]:
    """Find the plan of a run's layers, in the order in which they run.

    Returns:
        The first epoch of each phase, and the layers.

    Raises:
        UserError: the run started from no weights, or does not say which it replaced.
    """
    about = trained.transfer
    if "source" not in about:
        raise UserError("the run was not started from other weights (--init_from)")
    if "reset" not in about:
        raise UserError(
            "the run does not say which layers it replaced: an earlier version of this "
            "code has trained it"
        )
    params = flatten_paths(trained.variables["params"])
    description = summary.describe_model(trained.structure.model, trained.image_shape)
    run_order = [layer["path"] for layer in description["layers"]]
    layers = paths.order_layers(run_order, list(params))
    config = make_config(trained.options)
    phases = freezing.make_phases(
        config.freezing, layers, trained.variables, config.train.epochs
    )
    plans = []
    for layer in layers:
        mine = {x: array for x, array in params.items() if x.split("/")[0] == layer}
        count = sum(int(np.size(array)) for array in mine.values())
        trains = tuple(_find_state(phase, list(mine)) for phase in phases)
        plans.append(LayerPlan(layer, 1, count, _find_start(about, list(mine)), trains))
    return [phase.first_epoch if phase else 0 for phase in phases], plans


def fold(plans: Sequence[LayerPlan]) -> list[LayerPlan]:
    """Write consecutive layers that have one plan as one."""
    folded: list[LayerPlan] = []
    for plan in plans:
        last = folded[-1] if folded else None
        if last and (last.start, last.phases) == (plan.start, plan.phases):
            first = last.name.split(" … ")[0]
            folded[-1] = dataclasses.replace(
                plan,
                name=f"{first} … {plan.name}",
                num_layers=last.num_layers + plan.num_layers,
                num_parameters=last.num_parameters + plan.num_parameters,
            )
        else:
            folded.append(plan)
    return folded


def _find_start(about: Mapping[str, Any], inside: Sequence[str]) -> str:
    """Return where the weights of a layer come from, given its parameters' paths."""
    named = {f"params/{path}" for path in inside}
    if named & set(about["reset"]):
        return REPLACED
    return ADAPTED if named & set(about["adapted"]) else KEPT


def _find_state(phase: freezing.Phase | None, inside: Sequence[str]) -> str:
    """Return whether a layer trains in a phase, given its parameters' paths."""
    frozen = [phase is not None and phase.is_frozen(f"params/{x}") for x in inside]
    return FROZEN if all(frozen) else PARTLY if any(frozen) else TRAINS
