"""Curves: loss, accuracy, learning rate and images/s over training.

Of several labels an image, mean average precision and F1 stand where accuracy does.

Several runs share the axes, a colour for each. The lines are written as numbers too, so
that the page can draw them again as its reader wants.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import naming, workdir
from cnn.errors import UserError
from cnn.visualize.compute import curves
from cnn.visualize.compute.curves import History
from cnn.visualize.draw import chart, lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.subject import Subject

_SPLITS = ("train", "validation", "test")
_SCALES = {"loss": "log", "accuracy": "share", "rate": "linear", "speed": "linear"}
_RATE_POINTS = 200
_SHARES = ("accuracy", "mean_average_precision", "f1")  # the last one thin
_STRETCHED_FROM = 0.9
_TICKS = (0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1)
_CAPTION = (
    "Where the validation or test line leaves the training line, the network learns "
    "its training images by heart; with regularisation the training line, measured "
    "during the epoch, may lie on the worse side."
)


@dataclasses.dataclass(frozen=True)
class Curve(chart.Line):
    """A line with the colour and the marker of a place.

    Attributes:
        place: among the runs, or of one alone among the splits.
        has_marks: whether each point is one that was measured.
    """

    place: int = 0
    has_marks: bool = True


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw `curves.png` and `.svg` of the directories; one without metrics is noted.

    Raises:
        UserError: no run has metrics.
    """
    names = naming.label_runs(subject.directories)
    pairs = zip(names, subject.directories, strict=True)
    histories = subject.collect(lambda pair: (*pair, _read(subject, pair[1])), pairs)
    lines: list[Curve] = []
    for place, (name, directory, history) in enumerate(histories):
        group = name if len(histories) > 1 else ""
        lines += _list_splits(history, group, place)
        lines += _list_rates(subject, directory, history, group, place)
        speed = _to_epochs(history, "images_per_second")
        lines.append(_make_curve("speed", group, "train", speed, place))
    path = folder / "curves.png"
    labels = _name_axes([history for *_, history in histories])
    caption = _CAPTION
    if labels["accuracy"].startswith("accuracy") and _is_stretched(lines):
        caption += " The accuracy's axis is stretched towards 100 %."
    figure = _draw_lines(lines, labels)
    drawn = picture.save(figure, path, "Training", caption, is_line_art=True)
    panels = [
        chart.Panel(name, labels[name].replace("\n", "; "), scale)
        for name, scale in _SCALES.items()
    ]
    chart.write(path, panels, lines, x=labels["x"], groups="Runs", names="Lines")
    return [drawn]


def _make_curve(
    panel: str, group: str, name: str, series: curves.Series, place: int, **style: bool
) -> Curve:
    colour = picture.COLOURS[place % len(picture.COLOURS)]
    return Curve(panel, group, name, colour, *series, place=place, **style)


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


def _list_splits(history: History, group: str, place: int) -> Iterator[Curve]:
    """Make the lines of loss and accuracy, one for each split, and that of each step.

    A run alone has colours for its splits.
    """
    if "loss" in history.series:
        series, style = (
            _to_epochs(history, "loss"),
            {"is_thin": True, "has_marks": False},
        )
        yield _make_curve("loss", group, "each step", series, place, **style)
    for number, split in enumerate(_SPLITS):
        own = place if group else number
        for panel, metrics in (("loss", ("loss",)), ("accuracy", _SHARES)):
            for metric in metrics:
                series = _to_epochs(history, f"{split}_{metric}")
                if not len(series[0]):
                    continue
                is_thin = metric == "f1"
                name = f"{split}, F1" if is_thin else split
                style = {"is_dashed": split == "train", "is_thin": is_thin}
                yield _make_curve(panel, group, name, series, own, **style)


def _list_rates(
    subject: Subject, directory: Path, history: History, group: str, place: int
) -> list[Curve]:
    """List the learning rate that the run's options give for the steps it took."""
    if not history.steps_per_epoch:
        return []
    last = max(int(steps[-1]) for steps, _ in history.series.values())
    steps = np.unique(np.linspace(0, last, _RATE_POINTS).astype(int))
    try:
        stored = workdir.read_config(directory)
        rates = curves.compute_learning_rates(stored, history.steps_per_epoch, steps)
    except UserError as error:
        subject.note(f"no learning rate: {error}")
        return []
    rates = rates * curves.find_rate_factors(history, steps)
    series = steps / history.steps_per_epoch, rates
    return [_make_curve("rate", group, "train", series, place, has_marks=False)]


def _name_axes(histories: Sequence[History]) -> dict[str, str]:
    """Say what each panel shows, and the axis that they share, as `x`."""
    found = {name for history in histories for name in history.series}
    parts = ["accuracy (share of images)"] if "train_accuracy" in found else []
    if "train_f1" in found:
        parts.append("mean average precision; thin: F1")
    return {
        "loss": "loss (nats)",
        "accuracy": "\n".join(parts) or "accuracy (share of images)",
        "rate": "learning rate",
        "speed": "training speed (images/s)",
        "x": "epochs" if any(x.steps_per_epoch for x in histories) else "steps",
    }


def _draw_lines(lines: Sequence[Curve], labels: dict[str, str]) -> Any:
    figure = picture.make_figure(9.6, 7.2)
    panels = figure.subplots(2, 2).flat
    axes = dict(zip(("loss", "accuracy", "rate", "speed"), panels, strict=True))
    for line in lines:
        style: dict[str, Any] = picture.style_line(line.place)
        if not line.has_marks:
            del style["marker"], style["markersize"]
        if line.panel == "loss" and not line.is_thin:
            style["label"] = ", ".join(
                x for x in (lettering.make_label(line.group, 0), line.name) if x
            )
        if line.is_thin:
            style |= {"linewidth": 0.6, "alpha": 0.4 if line.panel == "loss" else 1}
        kind = "--" if line.is_dashed else "-"
        axes[line.panel].plot(line.x, line.y, kind, **style)
    _label(axes, labels, lines)
    handles, names = axes["loss"].get_legend_handles_labels()
    columns = min(3, len(names)) if any(x.group for x in lines) else 2
    figure.legend(handles, names, loc="outside lower center", ncols=columns)
    return figure


def _is_stretched(lines: Sequence[Curve]) -> bool:
    """Return whether an accuracy comes so near to 1 that differences would not show."""
    highest = [x.y.max() for x in lines if x.panel == "accuracy" and len(x.y)]
    return bool(highest) and max(highest) > _STRETCHED_FROM


def _label(
    axes: dict[str, Any], labels: dict[str, str], lines: Sequence[Curve]
) -> None:
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

    for name, ax in axes.items():
        ax.set(ylabel=labels[name], xlabel=labels["x"])
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.grid(alpha=0.3)
        ax.set_axisbelow(True)
    if axes["loss"].lines and axes["loss"].dataLim.y0 > 0:
        axes["loss"].set_yscale("log")
        axes["loss"].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes["loss"].yaxis.set_major_formatter("{x:g}")
        axes["loss"].yaxis.set_minor_locator(NullLocator())
    if _is_stretched(lines):
        low = min(x.y.min() for x in lines if x.panel == "accuracy" and len(x.y))
        functions = curves.stretch, curves.unstretch
        axes["accuracy"].set_yscale("function", functions=functions)
        axes["accuracy"].set_ylim(max(0, low - 0.05), 1.0003)
        axes["accuracy"].yaxis.set_major_locator(FixedLocator(_TICKS))
        axes["accuracy"].yaxis.set_major_formatter("{x:g}")
    for name in ("rate", "speed"):
        axes[name].set_ylim(0, 1.06 * axes[name].get_ylim()[1])
    axes["speed"].yaxis.set_major_formatter("{x:,.0f}")
    axes["speed"].set_xlim(axes["loss"].get_xlim())
