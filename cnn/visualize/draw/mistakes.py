"""Mistakes: which classes are confused, which images, and how surely.

Every picture is of one run on the images of `--split`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.training import calibration, multilabel
from cnn.training.tasks import MULTILABEL
from cnn.visualize.compute import mistakes
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_SHEET, _COLUMNS, _MOST_CHARACTERS = 24, 8, 24
_MOST_LISTED, _MOST_NAMED, _MOST_NUMBERED, _MOST_PAIRS = 30, 40, 20, 30
_LINE_ART = ("classes", "reliability", "label_classes")
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
    "label_classes": (
        "Precision and recall by class",
        "Precision is the share of a label's predictions that is right, recall the "
        "share of its images that is found, at its threshold; worst recall first.",
    ),
    "label_errors": (
        "The surest errors",
        "− a label that is missing, + one that is added, each with its probability; "
        "the surest first.",
    ),
}


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw confusion, classes, errors, doubtful hits and reliability of each run.

    Of several labels an image: classes, and images with missing and added labels.

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
    if run.trained.structure.task is MULTILABEL:
        return _save(_draw_labels(subject, run, of_run), folder, ending, of_run)
    labels = subject.get_labels(run)
    logits = subject.compute_logits(run)
    probabilities = np.exp(calibration.compute_log_probabilities(logits))
    names = subject.label_classes(run)
    predictions = probabilities.argmax(axis=1)
    doubts = mistakes.compute_doubts(probabilities)
    confusion = mistakes.count_confusion(labels, predictions, len(names))
    figures = {
        **draw_confusion(confusion, names),
        "classes": _draw_classes(confusion, names),
        "reliability": _draw_reliability(logits, labels, run.trained.temperature),
    }
    for name, find in _SHEETS.items():
        positions = find(probabilities, labels, _SHEET)
        texts = []
        for i in positions:
            classes = dict.fromkeys((labels[i], predictions[i]))
            text = " → ".join(_shorten(names[k]) for k in classes)
            if len(text) > _MOST_CHARACTERS:
                text = text.replace(" → ", "\n→ ")
            texts.append(f"{text}\n{format_confidence(doubts[i])}, #{i}")
        if texts:
            figures[name] = draw_sheet(subject.read(positions), texts)
        else:
            subject.note(f"{_TEXTS[name][0].lower()}{of_run}: there are none")
    return _save(figures, folder, ending, of_run)


def _draw_labels(subject: Subject, run: NamedRun, of_run: str) -> dict[str, Any]:
    """Draw the figures of a run whose images may have several labels, by name."""
    names, thresholds = subject.label_classes(run), run.trained.thresholds
    there = subject.get_labels(run) > 0
    probabilities = multilabel.compute_probabilities(subject.compute_logits(run))
    chosen = multilabel.choose_labels(probabilities, thresholds)
    hits, totals = (chosen & there).sum(axis=0), there.sum(axis=0)
    precision, recall = (
        calibration.divide(hits, x) for x in (chosen.sum(axis=0), totals)
    )
    figures = {"label_classes": _draw_shares(precision, recall, totals, names)}
    subject.note(
        f"confusion and reliability{of_run}: they are of one class an image, and these "
        "may have several"
    )
    positions = mistakes.find_label_errors(probabilities, chosen, there, _SHEET)
    texts = []
    for i in positions:
        wrong = np.flatnonzero(chosen[i] != there[i])
        lines = [
            f"{'+' if chosen[i, k] else '−'} {_shorten(names[k])}: "
            f"{probabilities[i, k]:.1%}"
            for k in wrong[np.argsort(-np.abs(probabilities[i] - there[i])[wrong])]
        ]
        more = [f"… {len(lines) - 2} more"] if len(lines) > 2 else []
        texts.append("\n".join([*lines[:2], *more, f"#{i}"]))
    if texts:
        figures["label_errors"] = draw_sheet(subject.read(positions), texts)
    else:
        subject.note(f"{_TEXTS['label_errors'][0].lower()}{of_run}: there are none")
    return figures


def _save(
    figures: dict[str, Any], folder: Path, ending: str, of_run: str
) -> dict[str, Picture]:
    """Save figures by name."""
    pictures = {}
    for name, figure in figures.items():
        path, (title, caption) = folder / f"{name}{ending}.png", _TEXTS[name]
        pictures[name] = picture.save(
            figure, path, title + of_run, caption, is_line_art=name in _LINE_ART
        )
    return pictures


def format_confidence(doubt: float) -> str:
    """Write 1 less the doubt in percent, with as many digits as differ from 100 %.

    Args:
        doubt: of `mistakes.compute_doubts`.
    """
    if not doubt < 0.01:
        return f"{1 - doubt:.1%}"
    if doubt < 1e-9:
        return f"1 − {doubt:.1e}"
    # Two digits of the doubt.
    return f"{1 - doubt:.{-math.floor(math.log10(doubt)) - 1}%}"


def draw_confusion(confusion: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Draw what a confusion matrix holds.

    Args:
        confusion: int [K, K], of `mistakes.count_confusion`.
        names: of the classes.

    Returns:
        The figure by its name: `confusion`, the whole matrix, or `confused_classes`
        where there are more classes than can be named.
    """
    if len(names) <= _MOST_NAMED:
        return {"confusion": _draw_matrix(confusion, names)}
    return {"confused_classes": _draw_most_confused(confusion, names)}


def _draw_matrix(confusion: np.ndarray, names: Sequence[str]) -> Any:
    from matplotlib.colors import LogNorm

    side = min(max(2.8 + 0.32 * len(names), 4.6), 9) + lettering.find_room(names)
    figure = picture.make_figure(2 * side, side * 0.86)
    left, right = figure.subplots(1, 2)
    many = {"norm": LogNorm(1, max(int(confusion.max()), 2))}
    counts = np.where(confusion > 0, confusion, np.nan)
    _show_table(left, counts, names, "images", "{:.0f}", **many)
    left.set_title("counts (white: no image)")
    _show_rates(right, mistakes.compute_rates(confusion), names)
    return figure


def _draw_most_confused(confusion: np.ndarray, names: Sequence[str]) -> Any:
    """Draw the most confused pairs as bars, the most confused classes as rates."""
    pairs = mistakes.find_confused_pairs(confusion, _MOST_PAIRS)
    worst = mistakes.find_confused_classes(confusion, _MOST_NUMBERED)
    figure = picture.make_figure(16, 7.6)
    left, right = figure.subplots(1, 2)
    counts = confusion[pairs[:, 0], pairs[:, 1]]
    rates = mistakes.compute_rates(confusion)
    bars = left.barh(range(len(pairs)), counts, color=picture.COLOURS[0])
    shares = [f"{rates[row, column]:.0%}" for row, column in pairs]
    left.bar_label(bars, shares, padding=3, fontsize=7)
    labels = [f"{_shorten(names[i])} → {_shorten(names[j])}" for i, j in pairs]
    left.set_yticks(range(len(pairs)), labels)
    left.invert_yaxis()
    left.margins(x=0.12)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.set(xlabel="images", ylabel="true class → predicted class")
    left.set_title(f"the {len(pairs)} most confused pairs of {len(names)} classes")
    chosen = [_shorten(names[k]) for k in worst]
    _show_rates(right, rates[np.ix_(worst, worst)], chosen)
    right.set_title(f"rates among the {len(worst)} classes with most mistakes")
    return figure


def _show_rates(ax: Any, rates: np.ndarray, names: Sequence[str]) -> None:
    shown = np.where(rates > 0, rates, np.nan)
    label = "share of the true class's images"
    _show_table(ax, shown, names, label, "{:.2f}", vmin=0, vmax=1)
    ax.set_title("rates (white: no image)")


def _show_table(
    ax: Any,
    table: np.ndarray,
    names: Sequence[str],
    label: str,
    form: str,
    **options: Any,
) -> None:
    """Show a table by class and class, NaN as white, with its numbers if few."""
    shown = ax.imshow(table, cmap="cividis", **options)
    ax.figure.colorbar(shown, ax=ax, shrink=0.75, label=label, format="{x:g}")
    ax.set(xlabel="predicted class", ylabel="true class")
    is_short = max(map(len, names)) <= 2
    ax.set_xticks(range(len(names)), names, rotation=0 if is_short else 90)
    ax.set_yticks(range(len(names)), names)
    if len(names) > _MOST_NUMBERED:
        return
    for (row, column), value in np.ndenumerate(table):
        if np.isnan(value):
            continue
        red, green, blue, _ = shown.cmap(shown.norm(value))
        is_dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.5
        colour = "white" if is_dark else "black"
        style = {"ha": "center", "va": "center", "color": colour, "fontsize": 7}
        ax.text(column, row, form.format(value), **style)


def _shorten(name: str) -> str:
    return lettering.shorten(name, _MOST_CHARACTERS)


def draw_sheet(images: np.ndarray, texts: list[str]) -> Any:
    """Draw images [N, H, W, C] in rows, each with its text above; the figure."""
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
    return _draw_shares(precision, recall, confusion.sum(axis=1), names)


def _draw_shares(
    precision: np.ndarray, recall: np.ndarray, totals: np.ndarray, names: Sequence[str]
) -> Any:
    """Draw precision and recall, NaN where there is none, of classes of `totals`."""
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


def _describe_scores(scores: calibration.Scores) -> str:
    found = calibration.compute_reliability(scores.confidence, scores.hits)
    return (
        f"ECE {found.calibration_error:.4f}, Brier {scores.brier.mean():.4f}, "
        f"NLL {scores.nll.mean():.4f} nats"
    )


def _draw_reliability(
    logits: np.ndarray, labels: np.ndarray, temperature: float | None = None
) -> Any:
    scores = calibration.compute_scores(logits, labels)
    found = calibration.compute_reliability(scores.confidence, scores.hits)
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
    title = f"accuracy {scores.hits.mean():.2%}, {_describe_scores(scores)}"
    if temperature is not None:
        scores = calibration.compute_scores(logits, labels, temperature)
        after = calibration.compute_reliability(scores.confidence, scores.hits)
        style_after = {"color": picture.COLOURS[2], "clip_on": False, "zorder": 4}
        style_after["label"] = f"at T={temperature:.3g}"
        above.plot(after.confidence, after.accuracy, "D", **style_after)
        title += f"\nat T={temperature:.3g}: {_describe_scores(scores)}"
    above.set_title(title)
    figure.legend(loc="outside lower center", ncols=2)
    bars = below.bar(found.edges[:-1], found.counts / len(labels), **style)
    below.bar_label(bars, [str(n) if n else "" for n in found.counts], fontsize=7)
    below.margins(y=0.2)
    below.set_xlabel("confidence (probability of the predicted class)")
    below.set_ylabel("share of images\n(and how many)")
    below.set_xlim(0, 1)
    return figure
