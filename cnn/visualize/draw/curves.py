"""Curves: loss, accuracy, learning rate and images/s over training.

Of several labels an image, mean average precision and F1 stand where accuracy does.

Several runs share the axes, a colour for each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import workdir
from cnn.errors import UserError
from cnn.visualize.compute import curves
from cnn.visualize.compute.curves import History
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import name_runs
from cnn.visualize.subject import Subject

_SPLITS = {"train": "--", "validation": "-", "test": "-"}
_RATE_POINTS = 200
_SHARES = ("accuracy", "mean_average_precision", "f1")  # the last one thin


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw `curves.png` and `.svg` of the directories; one without metrics is noted.

    Raises:
        UserError: no run has metrics.
    """
    names = name_runs(subject.directories)
    pairs = zip(names, subject.directories, strict=True)
    histories = subject.collect(lambda pair: (*pair, _read(subject, pair[1])), pairs)
    figure = picture.make_figure(9.6, 7.2)
    panels = figure.subplots(2, 2).flat
    axes = dict(zip(("loss", "accuracy", "rate", "speed"), panels, strict=True))
    is_alone = len(histories) == 1
    for place, (name, directory, history) in enumerate(histories):
        style = picture.style_line(place)
        label = "" if is_alone else f"{lettering.make_label(name, 0)}, "
        _draw_splits(axes, history, label, style)
        axes["speed"].plot(*_to_epochs(history, "images_per_second"), **style)
        _draw_rates(axes["rate"], subject, directory, history, style["color"])
    _label(axes, [history for *_, history in histories])
    handles, labels = axes["loss"].get_legend_handles_labels()
    columns = 2 if is_alone else min(3, len(histories))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    caption = (
        "Where the validation or test line leaves the training line, the run learns "
        "its training images by heart; with regularisation the training line, measured "
        "during the epoch, may lie on the worse side."
    )
    path = folder / "curves.png"
    return [picture.save(figure, path, "Training", caption, is_line_art=True)]


def _read(subject: Subject, directory: Path) -> History:
    """Read the metrics of a run; damaged lines are noted."""
    history = curves.read_history(directory)
    if history.num_damaged:
        subject.note(
            f"{directory / 'metrics.jsonl'}: {history.num_damaged} damaged lines are "
            "left out"
        )
    return history


def _to_epochs(history: History, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a series over epochs, over steps where no epoch has ended."""
    steps, values = history.series.get(name, (np.zeros(0), np.zeros(0)))
    return steps / max(history.steps_per_epoch, 1), values


def _draw_splits(
    axes: dict[str, Any], history: History, label: str, style: dict[str, Any]
) -> None:
    """Draw loss and accuracy, a line for each split and thinly that of each step.

    Without a label the run is alone, and its splits have colours of their own.
    """
    if "loss" in history.series:
        points = _to_epochs(history, "loss")
        axes["loss"].plot(*points, color=style["color"], linewidth=0.6, alpha=0.4)
    for place, (split, line) in enumerate(_SPLITS.items()):
        if not label:
            style = {**style, "color": picture.COLOURS[place]}
        x, y = _to_epochs(history, f"{split}_loss")
        if len(x):
            axes["loss"].plot(x, y, line, label=f"{label}{split}", **style)
        for metric in _SHARES:
            x, y = _to_epochs(history, f"{split}_{metric}")
            thin = {"linewidth": 0.8} if metric == "f1" else {}
            if len(x):
                axes["accuracy"].plot(x, y, line, **style | thin)


def _draw_rates(
    ax: Any, subject: Subject, directory: Path, history: History, colour: str
) -> None:
    """Draw the learning rate that the run's options give for the steps it took."""
    if not history.steps_per_epoch:
        return
    last = max(int(steps[-1]) for steps, _ in history.series.values())
    steps = np.unique(np.linspace(0, last, _RATE_POINTS).astype(int))
    try:
        stored = workdir.read_config(directory)
        rates = curves.compute_learning_rates(stored, history.steps_per_epoch, steps)
    except UserError as error:
        subject.note(f"no learning rate: {error}")
        return
    rates = rates * curves.find_rate_factors(history, steps)
    ax.plot(steps / history.steps_per_epoch, rates, color=colour)


def _name_shares(histories: Sequence[History]) -> str:
    """Say what the second panel shows."""
    found = {name for history in histories for name in history.series}
    parts = ["accuracy (share of images)"] if "train_accuracy" in found else []
    if "train_f1" in found:
        parts.append("mean average precision; thin: F1")
    return "\n".join(parts) or "accuracy (share of images)"


def _label(axes: dict[str, Any], histories: Sequence[History]) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    has_epochs = any(history.steps_per_epoch for history in histories)
    names = {
        "loss": "loss (nats)",
        "accuracy": _name_shares(histories),
        "rate": "learning rate",
        "speed": "training speed (images/s)",
    }
    for name, ax in axes.items():
        ax.set_ylabel(names[name])
        ax.set_xlabel("epochs" if has_epochs else "steps")
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
    if axes["loss"].lines and axes["loss"].dataLim.y0 > 0:
        axes["loss"].set_yscale("log")
        axes["loss"].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes["loss"].yaxis.set_major_formatter("{x:g}")
        axes["loss"].yaxis.set_minor_locator(NullLocator())
    for name in ("rate", "speed"):
        axes[name].set_ylim(0, 1.06 * axes[name].get_ylim()[1])
    axes["speed"].yaxis.set_major_formatter("{x:,.0f}")
    axes["speed"].set_xlim(axes["loss"].get_xlim())
