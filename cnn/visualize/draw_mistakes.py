"""Mistakes: which classes are confused, which images, and how surely.

Every picture is of one run on the images of `--split`.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.visualize import mistakes, picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.picture import Picture
from cnn.visualize.subject import Subject

_SHEET, _COLUMNS = 24, 8
_MOST_NUMBERED, _MOST_NAMED, _MOST_LISTED = 20, 40, 30
_LINE_ART = ("classes", "reliability")
_SHEETS = {
    "confident_errors": mistakes.find_confident_errors,
    "doubtful_hits": mistakes.find_doubtful_hits,
}
_TEXTS = {
    "confusion": (
        "Confusion matrix",
        "Row: the true class; column: the predicted one; whatever lies off the "
        "diagonal is a mistake.",
    ),
    "classes": (
        "Precision and recall by class",
        "Precision is the share of a class's predictions that is right, recall the "
        "share of its images that is found; worst recall first.",
    ),
    "reliability": (
        "Reliability",
        "Bars below the diagonal are predictions surer than they are right; ECE is "
        "the mean distance from it over all images.",
    ),
    "confident_errors": (
        "The surest errors",
        "True class → predicted class, with the predicted one's probability; the "
        "surest first.",
    ),
    "doubtful_hits": (
        "The least sure hits",
        "Right predictions with their probability; the least sure first.",
    ),
}


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw confusion, classes, errors, doubtful hits and reliability of each run.

    Args:
        subject: its runs, and the split that they are evaluated on.
        folder: where the files go.

    Raises:
        UserError: no run takes the images and knows their classes.
    """
    runs, errors, drawn = subject.fitting_runs, [], []
    for place, run in enumerate(runs):
        try:
            subject.check_classes(run)
        except UserError as error:
            errors.append(str(error))
            continue
        ending = "" if len(runs) == 1 else f"_{place + 1}"
        of_run = "" if len(runs) == 1 else f", {run.name}"
        drawn.append(_draw_run(subject, run, folder, ending, of_run))
    if not drawn:
        raise UserError("; ".join(errors))
    for error in errors:
        subject.note(error)
    # The same picture of all runs together, so that they can be compared.
    return [pictures[name] for name in _TEXTS for pictures in drawn if name in pictures]


def _draw_run(
    subject: Subject, run: NamedRun, folder: Path, ending: str, of_run: str
) -> dict[str, Picture]:
    labels = np.asarray(subject.split.labels)
    log_probabilities = mistakes.compute_log_probabilities(subject.compute_logits(run))
    probabilities = np.exp(log_probabilities)
    names = subject.get_class_names(run)
    predictions = probabilities.argmax(axis=1)
    confusion = mistakes.count_confusion(labels, predictions, len(names))
    figures = {
        "confusion": _draw_confusion(confusion, names),
        "classes": _draw_classes(confusion, names),
        "reliability": _draw_reliability(probabilities, log_probabilities, labels),
    }
    for name, find in _SHEETS.items():
        positions = find(probabilities, labels, _SHEET)
        texts = [
            _describe(names, labels[i], predictions[i], probabilities[i].max(), i)
            for i in positions
        ]
        if texts:
            figures[name] = _draw_sheet(subject.read(positions), texts)
        else:
            subject.note(f"{_TEXTS[name][0].lower()}{of_run}: there are none")
    return {
        name: picture.save(
            figure,
            folder / f"{name}{ending}.png",
            _TEXTS[name][0] + of_run,
            _TEXTS[name][1],
            is_line_art=name in _LINE_ART,
        )
        for name, figure in figures.items()
    }


def _describe(
    names: tuple[str, ...], label: int, prediction: int, confidence: float, place: int
) -> str:
    text = names[label]
    if label != prediction:
        text += f" → {names[prediction]}"
    return f"{text}\n{confidence:.1%}, #{place}"


def _draw_sheet(images: np.ndarray, texts: list[str]) -> Any:
    columns = min(_COLUMNS, len(images))
    rows = -(-len(images) // columns)
    figure = picture.make_figure(1.4 * columns + 0.2, 1.75 * rows)
    axes = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for ax in axes[len(images) :]:
        ax.set_axis_off()
    for ax, image, text in zip(axes, images, texts, strict=False):
        picture.show_image(ax, image)
        ax.set_title(text, fontsize=7)
    return figure


def _draw_confusion(confusion: np.ndarray, names: tuple[str, ...]) -> Any:
    from matplotlib.colors import LogNorm

    count = len(names)
    side = min(max(2.8 + 0.32 * count, 4.6), 9)
    figure = picture.make_figure(2 * side, side * 0.86)
    axes = figure.subplots(1, 2)
    rates = mistakes.compute_rates(confusion)
    many = LogNorm(1, max(int(confusion.max()), 2))
    tables = (
        (axes[0], confusion, "images", "{:.0f}", {"norm": many}),
        (axes[1], rates, "share of the row's images", "{:.2f}", {"vmin": 0, "vmax": 1}),
    )
    for ax, table, label, form, options in tables:
        table = np.where(confusion > 0, table, np.nan)
        shown = ax.imshow(table, cmap="cividis", **options)
        figure.colorbar(shown, ax=ax, shrink=0.75, label=label, format="{x:g}")
        ax.set_xlabel("predicted class")
        ax.set_ylabel("true class")
        _name_ticks(ax, names)
        if count <= _MOST_NUMBERED:
            _write_numbers(ax, table, form, shown)
    axes[0].set_title("counts (white: no image)")
    axes[1].set_title("rates (white: no image)")
    return figure


def _name_ticks(ax: Any, names: tuple[str, ...]) -> None:
    """Name the classes, or number some of them where there are too many."""
    if len(names) > _MOST_NAMED:
        return
    places = range(len(names))
    is_short = max(map(len, names)) <= 2
    ax.set_xticks(places, names, rotation=0 if is_short else 90)
    ax.set_yticks(places, names)


def _write_numbers(ax: Any, table: np.ndarray, form: str, shown: Any) -> None:
    for (row, column), value in np.ndenumerate(table):
        if np.isnan(value):
            continue
        red, green, blue, _ = shown.cmap(shown.norm(value))
        is_dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        colour = "white" if is_dark else "black"
        text = form.format(value)
        ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)


def _draw_classes(confusion: np.ndarray, names: tuple[str, ...]) -> Any:
    precision = mistakes.compute_precision(confusion)
    recall = mistakes.compute_recall(confusion)
    order = np.argsort(recall, kind="stable")[:_MOST_LISTED]
    figure = picture.make_figure(7, 1.4 + 0.24 * len(order))
    ax = figure.subplots()
    places = np.arange(len(order))
    low = np.fmin(precision, recall)[order]
    high = np.fmax(precision, recall)[order]
    ax.hlines(places, low, high, color="#999999", zorder=1)
    ring = {"s": 70, "facecolors": "none", "edgecolors": picture.COLOURS[0]}
    ax.scatter(precision[order], places, label="precision", zorder=2, **ring)
    ax.scatter(
        recall[order], places, 18, color=picture.COLOURS[1], label="recall", zorder=3
    )
    totals = confusion.sum(axis=1)
    ax.set_yticks(places, [f"{names[k]} ({totals[k]})" for k in order])
    ax.invert_yaxis()
    ax.set_xlabel("share (0..1)")
    ax.set_ylabel("class (its images)")
    ax.grid(axis="x", alpha=0.3)
    ax.set_axisbelow(True)
    if len(names) > len(order):
        ax.set_title(f"the {len(order)} worst of {len(names)} classes")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def _draw_reliability(
    probabilities: np.ndarray, log_probabilities: np.ndarray, labels: np.ndarray
) -> Any:
    found = mistakes.compute_reliability(probabilities, labels)
    figure = picture.make_figure(5.4, 6.2)
    above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    width = found.edges[1] - found.edges[0]
    style = {"width": width, "align": "edge", "edgecolor": "white"}
    above.bar(found.edges[:-1], np.nan_to_num(found.accuracy), **style)
    above.plot([0, 1], [0, 1], "--", color="black", label="confidence = accuracy")
    above.plot(
        found.confidence,
        found.accuracy,
        "o",
        color=picture.COLOURS[1],
        label="mean of a bin",
    )
    above.set_ylabel("accuracy (share of the bin)")
    above.set_ylim(0, 1.02)
    figure.legend(loc="outside lower center", ncols=2)
    accuracy = np.mean(probabilities.argmax(axis=1) == labels)
    above.set_title(
        f"accuracy {accuracy:.2%}, ECE {found.calibration_error:.4f}, "
        f"Brier {mistakes.compute_brier(probabilities, labels):.4f}, "
        f"NLL {mistakes.compute_nll(log_probabilities, labels):.4f} nats"
    )
    below.bar(found.edges[:-1], found.counts / len(labels), **style)
    below.set_xlabel("confidence (probability of the predicted class)")
    below.set_ylabel("share of images")
    below.set_xlim(0, 1)
    return figure
