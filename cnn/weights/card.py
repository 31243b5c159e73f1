"""What stands beside exported weights: `model.json` and a model card, `README.md`.

`model.json` says all that whoever uses the weights must know: architecture, classes,
preprocessing, metrics with their conditions, data, command. It is written before what
it describes, and again last. Its digest of the weights keeps another export from taking
the place of this one.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import atomic, workdir
from cnn.checkpoints.proof import hash_variables
from cnn.config import Config
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import count_parameters
from cnn.option import format_value
from cnn.runtime.terminal import Terminal
from cnn.text import quote, show_line
from cnn.training import multilabel, tasks
from cnn.training.trained import Trained

FILE, CARD = "model.json", "README.md"
MODE = 0o644
_METRICS = ("accuracy", "balanced_accuracy", "top5", "loss", "correct", "count")
_METRICS += tuple(x for x in tasks.MULTILABEL.tested if x not in _METRICS)
_CONDITIONS = (
    "dataset",
    "split",
    "image_shape",
    "resize_mode",
    "resize_size",
    "resize_interpolation",
    "tta",
    "threshold",
    "precision",
    "dataset_fingerprint",
)


def describe(config: Config, directory: Path, trained: Trained) -> dict[str, Any]:
    """Describe a run's weights.

    Args:
        config: the run's options.
        directory: the run's.

    Returns:
        `model.json`, without its `files`.
    """
    height, width, channels = trained.image_shape
    names = [field.name for field in dataclasses.fields(ModelOptions)]
    unread = {*config.find_unread(names, "train"), "model"}
    data, flat = config.data.for_evaluation(), config.to_flat()
    result = _read_result(directory)
    return {
        "model": config.model.model,
        "options": {name: flat[name] for name in names if name not in unread},
        "num_parameters": count_parameters(trained.variables["params"]),
        "classes": list(trained.class_names),
        "classes_are_named": trained.classes_are_named,
        "input": {
            "shape": ["N", height, width, channels],
            "dtype": "uint8",
            "image_size": [height, width],
            "channels": channels,
            "resize_mode": data.resize_mode,
            "resize_size": data.resize_size,
            "storage_size": data.storage_size,
            "interpolation": data.resize_interpolation,
            "scaling": "(pixels / 255 - mean) / std",
            "mean": list(trained.structure.mean),
            "std": list(trained.structure.std),
            "shuffle_pixels": data.shuffle_pixels,
        },
        "weights": {
            "sha256": hash_variables(trained.variables),
            "step": trained.step,
            "averaged": trained.averaged,
        },
        "metrics": _list_metrics(directory, result, trained),
        # Converted weights were trained on what nobody noted.
        "dataset": data.dataset if result or trained.data else "",
        "dataset_fingerprint": trained.data.get("fingerprint", ""),
        "command": result.get("command", ""),
        "commit": result.get("commit"),
        "versions": result.get("versions", {}),
        **_describe_task(trained),
    }


def _describe_task(trained: Trained) -> dict[str, Any]:
    """Return what is said of images that may have several labels; else nothing."""
    if trained.structure.task is not tasks.MULTILABEL:
        return {}
    tuned = trained.thresholds or (multilabel.THRESHOLD,) * len(trained.class_names)
    return {"task": tasks.MULTILABEL.name, "thresholds": list(tuned)}


def check_free(directory: Path, description: Mapping[str, Any], name: str) -> None:
    """Refuse to export over other weights.

    Args:
        description: of `describe`.
        name: the file, or directory, that is to be written.

    Raises:
        UserError: naming what must be removed.
    """
    there = _read_export(directory)
    if there and there["weights"]["sha256"] != description["weights"]["sha256"]:
        found = [FILE, *(x for x in there["files"] if (directory / x).exists())]
        raise UserError(
            f"{directory} holds an export of other weights (step "
            f"{there['weights'].get('step')}; these are of step "
            f"{description['weights']['step']}). Keep it elsewhere, or remove it: "
            f"{_remove(directory, found)}"
        )
    if name not in there.get("files", {}) and (directory / name).exists():
        raise UserError(
            f"{directory / name} is there already, and no {FILE} says what it holds. "
            f"Keep it elsewhere, or remove it: {_remove(directory, [name])}"
        )


@contextlib.contextmanager
def announce(
    directory: Path, description: Mapping[str, Any], names: Sequence[str]
) -> Iterator[None]:
    """Say in `model.json` what is written inside, before it is there.

    So what a killed process has left is known to be of these weights, and may be
    written again.
    """
    there, path = _read_export(directory), directory / FILE
    files = dict.fromkeys(names, "") | there.get("files", {})
    digest = there.get("card_sha256", "")
    whole = dict(description) | {"files": files, "card_sha256": digest}
    atomic.write_json(path, whole, MODE)
    try:
        yield
    except BaseException:
        if not there and not any((directory / name).exists() for name in names):
            path.unlink()
        raise


def write(
    directory: Path,
    description: Mapping[str, Any],
    written: Mapping[str, str],
    out: Terminal,
) -> None:
    """Write `model.json` and the card, beside files that have been written.

    A card that the user has written or changed is kept.

    Args:
        written: by the files' names, how they are used, Markdown; maybe empty. Those
            that are not there, of this export or an earlier one, are left out.
    """
    there, path = _read_export(directory), directory / CARD
    files = there.get("files", {}) | written
    files = {name: use for name, use in files.items() if (directory / name).exists()}
    text = make_card(description | {"files": files})
    content = text.encode(errors="surrogateescape")
    known = (there.get("card_sha256"), hashlib.sha256(content).hexdigest())
    is_ours = not path.exists() or _hash_file(path) in known
    if is_ours:
        atomic.write_bytes(path, content, MODE)
    else:
        out.say(f"note: {path} is not what an export wrote, and is kept")
    digest = _hash_file(path) if is_ours else there.get("card_sha256", "")
    whole = dict(description) | {"files": files, "card_sha256": digest}
    atomic.write_json(directory / FILE, whole, MODE)


def make_card(description: Mapping[str, Any]) -> str:
    """Write the model card, Markdown, from what `model.json` says."""
    seen, weights = description["input"], description["weights"]
    size = "x".join(map(str, seen["shape"][1:]))
    options = description["options"].items()
    options = "".join(f" `--{n}={format_value(x)}`" for n, x in options)
    averaged = ", averaged over training" if weights["averaged"] else ""
    classes = ", ".join(map(show_line, description["classes"]))
    lines = [
        f"# {description['model']}, {len(description['classes'])} classes",
        "",
        f"An image classifier of {description['num_parameters']:,} parameters for "
        f"images of {size}. Weights of step {weights['step']}{averaged}, SHA-256 "
        f"`{weights['sha256']}`.",
        "",
        "## Use",
        "",
    ]
    for use in description["files"].values():
        lines += [use.rstrip(), ""] if use else []
    lines += [
        "## Images",
        "",
        f"- size {seen['image_size'][0]}x{seen['image_size'][1]}, "
        f"{seen['channels']} channels, resize mode `{seen['resize_mode']}`, "
        f"{seen['interpolation']}",
        f"- scaled as `{seen['scaling']}`, mean {seen['mean']}, std {seen['std']}",
        f"- classes, in the order of the outputs: {classes}",
        *_list_thresholds(description),
        "",
        "## Architecture",
        "",
        f"`--model={description['model']}`{options}",
        "",
        "## Metrics",
        "",
        *_format_metrics(description["metrics"]),
        "",
        "## Training",
        "",
        f"- data: `{description['dataset'] or 'unknown'}`, fingerprint "
        f"`{description['dataset_fingerprint'] or 'unknown'}`",
        f"- command: `{description['command'] or 'unknown'}`",
        "",
    ]
    return "\n".join(lines)


def _list_thresholds(description: Mapping[str, Any]) -> list[str]:
    """Say from when on a class is a label of an image that may have several."""
    thresholds = [f"{x:.4g}" for x in description.get("thresholds", ())]
    if not thresholds:
        return []
    return [
        "- an image may have several labels: the classes whose probability, the "
        f"logistic function of the logit, is at least {', '.join(thresholds)}, in that "
        "order"
    ]


def _format_metrics(metrics: list[dict[str, Any]]) -> list[str]:
    if not metrics:
        return ["None were measured; `--mode=evaluate` does."]
    return [
        f"- {x['split']}: "
        + ", ".join(f"{n} {x['metrics'][n]:.6g}" for n in x["metrics"])
        + " ("
        + ", ".join(f"{n} {value}" for n, value in x["conditions"].items())
        + ")"
        for x in metrics
    ]


def _list_metrics(
    directory: Path, result: Mapping[str, Any], trained: Trained
) -> list[dict[str, Any]]:
    """List what was measured of these weights, with the conditions."""
    found = []
    for path in sorted(directory.glob("evaluation*.json")):
        content = _read(path)
        measured = content.get("step"), content.get("averaged")
        if measured == (trained.step, trained.averaged):
            conditions = {n: content[n] for n in _CONDITIONS if n in content}
            metrics = _take_metrics(content, "")
            split = conditions.pop("split", "test")
            entry = {"source": path.name, "split": split, "metrics": metrics}
            found.append(entry | {"conditions": conditions})
    ends = {"test_": result.get("steps"), "best_test_": result.get("best_step")}
    start = next((x for x, step in ends.items() if step == trained.step), "")
    if start and (metrics := _take_metrics(result, start)):
        conditions = {n: trained.options.get(n) for n in ("dataset", "tta")}
        entry = {"source": "result.json", "split": "test", "metrics": metrics}
        found.append(entry | {"conditions": conditions})
    return found


def _take_metrics(content: Mapping[str, Any], start: str) -> dict[str, float]:
    found = {name: content.get(start + name) for name in _METRICS}
    return {name: x for name, x in found.items() if isinstance(x, int | float)}


def _read_result(directory: Path) -> dict[str, Any]:
    return _read(directory / "result.json")


def _read(path: Path) -> dict[str, Any]:
    """Read JSON of ours; empty where it is absent or damaged."""
    try:
        found = workdir.read_json(path)
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def _read_export(directory: Path) -> dict[str, Any]:
    """Read what stands beside an earlier export; empty without one.

    Raises:
        UserError: it is no `model.json` of ours.
    """
    path = directory / FILE
    if not path.exists():
        return {}
    found = workdir.read_json(path)
    if not isinstance(found, dict) or not (
        isinstance(found.get("files"), dict)
        and isinstance(found.get("weights"), dict)
        and "sha256" in found["weights"]
    ):
        raise UserError(
            f"{path} is not what an export writes; keep it elsewhere, or remove it: "
            f"{_remove(directory, [FILE])}"
        )
    return found


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _remove(directory: Path, names: list[str]) -> str:
    return " ".join(["rm -r", *(quote(str(directory / name)) for name in names)])
