"""What a step that is taken again shows: by layer, by example, beside the log."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import workdir
from cnn.models.variables import flatten_paths
from cnn.runtime import environment, own_files
from cnn.training.setup import Setup

Line = dict[str, Any]
# What of a layer may not be finite, and the number that says so.
_NORMS = {
    "weights": "weight_norm",
    "activations": "largest_activation",
    "gradients": "gradient_norm",
    "update": "update_norm",
}


def describe_layers(
    names: Sequence[str],
    found: Mapping[str, Any],
    before: Mapping[str, np.ndarray],
    after: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """Describe what a step makes of each layer.

    A frozen one has no gradient, and one that is not run (of cached features) no
    activation.

    Args:
        names: of the layers, in order of execution.
        found: `activations` and `gradients` of `diagnosis.diagnose`.
        before: parameters by path.
        after: these after the step.
    """
    gradients = flatten_paths(found["gradients"])
    updates = {path: np.float64(after[path]) - x for path, x in before.items()}
    lines = []
    for name in names:
        own = [path for path in before if path.rpartition("/")[0] == name]
        weight = _measure(before[path] for path in own)
        update = _measure(updates[path] for path in own)
        line = {"layer": name, "weight_norm": weight, "update_norm": update}
        line["update_to_weight"] = update / weight if weight else math.nan
        if name in found["activations"]:
            line["largest_activation"] = float(found["activations"][name])
        if trained := [gradients[path] for path in own if path in gradients]:
            line["gradient_norm"] = _measure(trained)
        lines.append(line)
    return lines


def _measure(arrays: Any) -> float:
    """Return the norm of some arrays together, in double precision."""
    return math.sqrt(sum(float(np.sum(np.float64(x) ** 2)) for x in arrays))


def find_bad(
    line: Line, batch: Mapping[str, np.ndarray], layers: Sequence[Mapping[str, Any]]
) -> dict[str, str] | None:
    """Find what of a step is not finite first, in the order in which it is computed.

    Returns:
        `what`, and its `layer` where it is one's; None where all is finite.
    """

    def find(what: str, layers: Sequence[Mapping[str, Any]]) -> dict[str, str] | None:
        name = _NORMS[what]
        bad = [x["layer"] for x in layers if not math.isfinite(x.get(name, 0.0))]
        return {"what": what, "layer": bad[0]} if bad else None

    if not np.isfinite(batch["images"]).all():
        return {"what": "images"}
    if found := find("weights", layers) or find("activations", layers):
        return found
    if not np.isfinite(batch["losses"]).all() or not math.isfinite(line["loss"]):
        return {"what": "loss"}
    # Gradients come from the loss, through the last layer first.
    return find("gradients", layers[::-1]) or find("update", layers)


def read_steps(directory: Path) -> dict[int, Line]:
    """Read the lines of steps in metrics.jsonl; a damaged line is left out."""
    try:
        texts = own_files.read(directory / workdir.METRICS_FILE).splitlines()
    except OSError:
        return {}
    found = {}
    for text in texts:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            is_step = isinstance(line, dict) and "example_ids_hash" in line
            if is_step and isinstance(line.get("step"), int):
                found[line.pop("step")] = line
    return found


def compare(
    lines: Mapping[int, Line],
    logged: Mapping[int, Line],
    stored: Mapping[str, Any],
    setup: Setup,
) -> dict[str, Any]:
    """Compare the steps that were taken again with what training has logged of them.

    Args:
        lines: of the steps from the checkpoint on.
        logged: lines by step.
        stored: what the checkpoint says of itself; empty without one.

    Returns:
        `steps`, how many were compared; `equal`, whether all numbers and ids of these
        are, to the bit (None: none was logged); `first_difference`, a step (None:
        none), with the `names` that differ there and by how much the `loss` does; and
        `environment`, what differs from the run's.
    """
    both = [step for step in lines if step in logged]
    parted = [step for step in both if lines[step] != logged[step]]
    here = environment.describe(setup.mesh)
    found: dict[str, Any] = {
        "steps": len(both),
        "equal": not parted if both else None,
        "first_difference": None,
        "environment": environment.list_changes(stored.get("environment", {}), here),
    }
    if parted:
        now, then = lines[parted[0]], logged[parted[0]]
        loss = then.get("loss")
        found["first_difference"] = {
            "step": parted[0],
            "names": [name for name in now if now[name] != then.get(name)],
            "loss": now["loss"] - loss if isinstance(loss, float) else math.nan,
        }
    return found


def list_examples(
    setup: Setup, batch: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """List a batch's examples, the highest loss first, with their names."""
    train_set = setup.dataset.train
    lines = []
    for place in order(batch):
        number = int(batch["ids"][place])
        line = {"place": int(place), "id": number}
        line |= {"label": batch["labels"][place].tolist()}
        line |= {"loss": float(batch["losses"][place])}
        if train_set.names is not None:
            line["name"] = str(train_set.names[number])
        lines.append(line)
    return lines


def order(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the places of a batch by loss: not finite ones first, then the highest."""
    losses = np.float64(batch["losses"])
    return np.argsort(-np.where(np.isfinite(losses), losses, np.inf), kind="stable")
