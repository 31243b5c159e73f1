"""Mistakes: which classes are confused, which images, and how surely.

Every picture is of one run on the images of `--split`.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from cnn.visualize import draw_confusion, mistakes, picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.picture import Picture
from cnn.visualize.subject import Subject

_SHEET, _COLUMNS = 24, 8
_MOST_LISTED = 30
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
    "confused_classes": (
        "The most confused classes",
        "Left the pairs of classes that are confused most often, with the share of the "
        "true class's images; right the rates among the classes with most mistakes.",
    ),
    "classes": (
        "Precision and recall by class",
        "Precision is the share of a class's predictions that is right, recall the "
        "share of its images that is found; worst recall first.",
    ),
    "reliability": (
        "Reliability",
        "Bars below the diagonal are predictions surer than they are right; the paler "
        "a bar, the wider its 95 % interval, for it holds few images; ECE is the mean "
        "distance from the diagonal over all images.",
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
    runs, drawn = subject.comparable_runs, []
    for place, run in enumerate(runs):
        ending = "" if len(runs) == 1 else f"_{place + 1}"
        of_run = "" if len(runs) == 1 else f", {run.name}"
        drawn.append(_draw_run(subject, run, folder, ending, of_run))
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
    doubts = mistakes.compute_doubts(probabilities)
    confusion = mistakes.count_confusion(labels, predictions, len(names))
    figures = {
        **draw_confusion.draw_confusion(confusion, names),
        "classes": _draw_classes(confusion, names),
        "reliability": _draw_reliability(probabilities, log_probabilities, labels),
    }
    for name, find in _SHEETS.items():
        positions = find(probabilities, labels, _SHEET)
        texts = [
            _describe(names, labels[i], predictions[i], doubts[i], i) for i in positions
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
    names: tuple[str, ...], label: int, prediction: int, doubt: float, place: int
) -> str:
    text = names[label]
    if label != prediction:
        text += f" → {names[prediction]}"
    return f"{text}\n{format_confidence(doubt)}, #{place}"


def format_confidence(doubt: float) -> str:
    """Write 1 less the doubt in percent, with what tells it from 100 %.

    Args:
        doubt: of `mistakes.compute_doubts`.
    """
    if not doubt < 0.01:
        return f"{1 - doubt:.1%}"
    if doubt < 1e-9:
        return f"1 − {doubt:.1e}"
    # Two digits of the doubt.
    return f"{1 - doubt:.{-math.floor(math.log10(doubt)) - 1}%}"


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
    bars = above.bar(found.edges[:-1], np.nan_to_num(found.accuracy), **style)
    for bar, (low, high) in zip(bars, found.interval, strict=True):
        # Of one image the interval is 0.8 wide, of a thousand 0.06 at most.
        bar.set_alpha(max(0.1, 1 - np.nan_to_num(high - low)))
    above.plot([0, 1], [0, 1], "--", color="black", label="confidence = accuracy")
    above.errorbar(
        found.confidence,
        found.accuracy,
        np.abs(found.interval.T - found.accuracy),
        fmt="o",
        color=picture.COLOURS[1],
        label="mean of a bin and 95 % interval of its accuracy",
        clip_on=False,
        zorder=3,
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
    bars = below.bar(found.edges[:-1], found.counts / len(labels), **style)
    below.bar_label(bars, [str(n) if n else "" for n in found.counts], fontsize=7)
    below.margins(y=0.2)
    below.set_xlabel("confidence (probability of the predicted class)")
    below.set_ylabel("share of images\n(and how many)")
    below.set_xlim(0, 1)
    return figure
