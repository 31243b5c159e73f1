"""What a replay writes and prints: `replay.json`, `batch.npz`, `batch.png`, a table."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from cnn.checkpoints import atomic
from cnn.errors import UserError
from cnn.replay import findings
from cnn.runtime.terminal import Terminal
from cnn.text import show_line
from cnn.training.setup import Setup
from cnn.training.steps import Structure
from cnn.visualize.draw import batch as batch_sheet

_SHOWN = 5


def write(
    setup: Setup,
    output: Path,
    found: dict[str, Any],
    batch: Mapping[str, np.ndarray],
    terminal: Terminal,
) -> None:
    """Write `replay.json`, `batch.npz` and `batch.png`, and print what they say."""
    content = io.BytesIO()
    np.savez(content, **batch)
    order = findings.order(batch)
    paths = [output / name for name in ("replay.json", "batch.npz", "batch.png")]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--output={output} cannot be written ({error.strerror}); name another"
        ) from None
    atomic.write_json(paths[0], _to_json(found))
    atomic.write_bytes(paths[1], content.getvalue())
    structure = setup.phases[setup.find_phase(found["step"])].structure
    if structure.takes_features:  # of no image any more
        images = setup.dataset.train.read(batch["ids"])
    else:
        images = _scale_back(structure, batch["images"])
    images, losses = images[order], batch["losses"][order]
    batch_sheet.draw(images, losses, batch["ids"][order], paths[2])
    terminal.show(_make_table(found["layers"]))
    for line in _describe(found):
        terminal.say(line)
    terminal.say_written(*paths)


def _scale_back(structure: Structure, images: np.ndarray) -> np.ndarray:
    """Return uint8 images of what a model is trained on; black where not finite."""
    mean, std = np.float32(structure.mean), np.float32(structure.std)
    pixels = np.nan_to_num(images * std + mean, nan=0, posinf=0, neginf=0)
    return np.uint8(np.rint(255 * np.clip(pixels, 0, 1)))


def _to_json(value: Any) -> Any:
    """Return a value with None in place of numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _to_json(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_to_json(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _make_table(layers: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of the layers."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    names = ("largest_activation", "gradient_norm", "weight_norm", "update_to_weight")
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for layer in layers:
        numbers = [f"{layer[n]:.3g}" if n in layer else "" for n in names]
        table.add_row(layer["layer"], *numbers)
    return table


def _describe(found: Mapping[str, Any]) -> list[str]:
    """Write what a replay has found, a line each."""
    lines = [
        f"loss      {found['loss']:.9g}, gradient norm {found['gradient_norm']:.9g}, "
        f"learning rate {found['learning_rate']:.6g}, ids {found['example_ids_hash']}",
        _describe_log(found["logged"]),
        f"highest   losses: {list_highest(found)}",
    ]
    if bad := found["not_finite"]:
        lines.append(f"blame     first not finite: {describe_bad(bad)}")
        if bad["what"] == "weights":
            lines[-1] += f", since an update before; see --step={found['step'] - 1}"
    return lines


def list_highest(found: Mapping[str, Any]) -> str:
    """List the highest losses of a step, with the names of their examples."""
    return ", ".join(
        f"{x['loss']:.4g} ({show_line(str(x.get('name', x['id'])))})"
        for x in found["examples"][:_SHOWN]
    )


def describe_bad(bad: Mapping[str, str]) -> str:
    """Write what is not finite first, as of `findings.find_bad`."""
    return f"{bad['what']} of {bad['layer']}" if "layer" in bad else bad["what"]


def _describe_log(logged: Mapping[str, Any]) -> str:
    """Write whether the steps are those that training has logged."""
    if logged["equal"] is None:
        return (
            "unknown   whether these are the run's bits: it has logged none of these "
            "steps (--log_every_steps=1 logs each)"
        )
    if logged["equal"]:
        return (
            f"equal     to metrics.jsonl, to the bit: loss, gradient norm, learning "
            f"rate and ids of {logged['steps']} logged steps"
        )
    parted = logged["first_difference"]
    why = ", ".join(logged["environment"]) or "the same devices and versions"
    return (
        f"warning   from step {parted['step']} on {', '.join(parted['names'])} differ "
        f"from metrics.jsonl, the loss by {parted['loss']:.3g}; under {why}"
    )
