"""Mistakes: which classes are confused, which images, and how surely.

Every picture is of one run on the images of `--split`. `mistakes.csv`, beside the
report, has a row for each of these that was answered wrongly.
"""

import base64
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.checkpoints import atomic, rows
from cnn.data import labels as labelled
from cnn.training import calibration, multilabel
from cnn.training.tasks import MULTILABEL
from cnn.visualize.compute import mistakes
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_SHEET, _COLUMNS, _MOST_CHARACTERS = 24, 8, 24
_MOST_LISTED, _MOST_NAMED, _MOST_NUMBERED, _MOST_PAIRS = 30, 40, 20, 30
_LINE_ART = ("confusion", "confused_classes", "classes", "reliability", "label_classes")
_COLUMNS_OF_ROWS = ("path", "position", "label", "prediction", "probability", "loss")
_THUMBNAIL, _SMALL = 160, 48  # pixels; what is smaller shows its pixels
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
    "mistakes": (
        "All mistakes",
        "A row for each image that was answered wrongly, the surest first: its file or "
        "number, its position in the set (for --picture_examples), its label, the "
        "prediction with its probability, and the loss in nats.",
    ),
}


@dataclasses.dataclass(frozen=True)
class Mistake:
    """An image that was answered wrongly.

    Attributes:
        position: in the set.
        label: its classes, as the data have them.
        prediction: those that were answered.
        probability: of the answer; where there may be several labels, of the one that
            is most wrong.
        loss: of the image, in nats.
        texts: lines that say what is wrong, for a sheet.
    """

    position: int
    label: str
    prediction: str
    probability: float
    loss: float
    texts: tuple[str, ...]


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
        several = run.trained.structure.task is MULTILABEL
        draw_run = _draw_labels if several else _draw_run
        drawn.append(draw_run(_Room(subject, run, folder, ending, of_run)))
    # The same picture of all runs together, so that they can be compared.
    return [pictures[name] for name in _TEXTS for pictures in drawn if name in pictures]


@dataclasses.dataclass(frozen=True)
class _Room:
    """Where the pictures of a run go, and what tells them from those of others.

    Attributes:
        subject: what is looked at.
        run: the run.
        folder: of the pictures.
        ending: of their files.
        of_run: of their titles.
    """

    subject: Subject
    run: NamedRun
    folder: Path
    ending: str
    of_run: str

    def save(self, figures: dict[str, Any]) -> dict[str, Picture]:
        """Save figures by name."""
        pictures = {}
        for name, figure in figures.items():
            path = self.folder / f"{name}{self.ending}.png"
            title, caption = _TEXTS[name]
            pictures[name] = picture.save(
                figure,
                path,
                title + self.of_run,
                caption,
                is_line_art=name in _LINE_ART,
            )
        return pictures

    def save_sheet(
        self, name: str, shown: Sequence[Mistake], are_listed: bool
    ) -> dict[str, Picture]:
        """Save images as a sheet, and one by one for the page; none: it is noted.

        Args:
            name: of the sheet.
            shown: the images.
            are_listed: whether they are the first rows of `mistakes.csv`.
        """
        if not shown:
            what = _TEXTS[name][0].lower()
            self.subject.note(f"{what}{self.of_run}: there are none")
            return {}
        positions = [one.position for one in shown]
        images = self.subject.read(np.array(positions))
        names = self.subject.name_examples(positions)
        texts = [[*x.texts, n] for x, n in zip(shown, names, strict=True)]
        short = [[*x[:-1], _shorten(x[-1])] for x in texts]
        sheet = draw_sheet(images, ["\n".join(lines) for lines in short])
        saved = self.save({name: sheet})
        table = f"mistakes{self.ending}"
        cards = [
            {
                "image": _encode(image),
                "lines": lines,
                "link": f"{table}-{number}" if are_listed else "",
            }
            for number, (image, lines) in enumerate(zip(images, texts, strict=True), 1)
        ]
        beside = saved[name].path.with_suffix(".json")
        atomic.write_text(beside, json.dumps({"cards": cards}))
        return saved

    def save_table(self, found: Sequence[Mistake]) -> dict[str, Picture]:
        """Write `mistakes.csv`, without rows if there are none."""
        path = self.folder.parent / f"mistakes{self.ending}.csv"
        files = self.subject.list_files([one.position for one in found])
        with rows.open_rows(path, _COLUMNS_OF_ROWS) as write:
            write(
                [
                    (number, _make_cells(one, file))
                    for number, (one, file) in enumerate(zip(found, files, strict=True))
                ]
            )
        title, caption = _TEXTS["mistakes"]
        return {"mistakes": Picture(path, title + self.of_run, caption)}


def _make_cells(one: Mistake, file: str) -> list[str]:
    label, prediction = map(rows.escape_text, (one.label, one.prediction))
    numbers = f"{one.probability:.6f}", f"{one.loss:.6g}"
    return [rows.escape_path(file), str(one.position), label, prediction, *numbers]


def _encode(image: np.ndarray) -> str:
    """Write a small version of an image [H, W, C] as a data URI."""
    from PIL import Image

    grey = image.mean(axis=-1).astype(np.uint8) if image.shape[-1] != 3 else image
    small, content = Image.fromarray(grey), io.BytesIO()
    is_small = max(small.size) <= _SMALL
    small.thumbnail((_THUMBNAIL, _THUMBNAIL))
    kind = "png" if is_small else "webp"
    small.save(content, kind, quality=75)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"


def _draw_run(room: _Room) -> dict[str, Picture]:
    """Draw the pictures of a run whose images have one class, by name."""
    subject, run = room.subject, room.run
    labels = subject.get_labels(run)
    logits = subject.compute_logits(run)
    log_probabilities = calibration.compute_log_probabilities(logits)
    probabilities = np.exp(log_probabilities)
    names = subject.label_classes(run)
    predictions = probabilities.argmax(axis=1)
    doubts = mistakes.compute_doubts(probabilities)
    confusion = mistakes.count_confusion(labels, predictions, len(names))
    figures = {
        **draw_confusion(confusion, names),
        "classes": _draw_classes(confusion, names),
        "reliability": _draw_reliability(logits, labels, run.trained.temperature),
    }
    given = subject.get_class_names(run)

    def describe(positions: np.ndarray) -> Iterator[Mistake]:
        for i in positions:
            label, answer = labels[i], predictions[i]
            text = " → ".join(
                _shorten(names[k]) for k in dict.fromkeys((label, answer))
            )
            if len(text) > _MOST_CHARACTERS:
                text = text.replace(" → ", "\n→ ")
            texts = (*text.split("\n"), format_confidence(doubts[i]))
            loss = float(-log_probabilities[i, label])
            own = given[label], given[answer]
            yield Mistake(int(i), *own, float(probabilities[i, answer]), loss, texts)

    wrong = mistakes.find_confident_errors(probabilities, labels, len(labels))
    hits = mistakes.find_doubtful_hits(probabilities, labels, _SHEET)
    found = list(describe(wrong))
    return {
        **room.save(figures),
        **room.save_sheet("confident_errors", found[:_SHEET], True),
        **room.save_sheet("doubtful_hits", list(describe(hits)), False),
        **room.save_table(found),
    }


def _draw_labels(room: _Room) -> dict[str, Picture]:
    """Draw the pictures of a run whose images may have several labels, by name."""
    subject, run = room.subject, room.run
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
        f"confusion and reliability{room.of_run}: they are of one class an image, and "
        "these may have several"
    )
    right = np.where(there, probabilities, 1 - probabilities)
    losses = -np.log(np.maximum(right, np.finfo(float).tiny)).mean(axis=1)
    given = subject.get_class_names(run)

    def describe(i: int) -> Mistake:
        errors = np.abs(probabilities[i] - there[i])
        wrong = np.flatnonzero(chosen[i] != there[i])
        wrong = wrong[np.argsort(-errors[wrong])]
        lines = [
            f"{'+' if chosen[i, k] else '−'} {_shorten(names[k])}: "
            f"{probabilities[i, k]:.1%}"
            for k in wrong
        ]
        more = [f"… {len(lines) - 2} more"] if len(lines) > 2 else []
        label, answer = (
            labelled.write([int(k) for k in np.flatnonzero(x[i])], given)
            for x in (there, chosen)
        )
        worst, texts = float(probabilities[i, wrong[0]]), (*lines[:2], *more)
        return Mistake(int(i), label, answer, worst, float(losses[i]), texts)

    positions = mistakes.find_label_errors(probabilities, chosen, there, len(there))
    found = list(map(describe, positions))
    return {
        **room.save(figures),
        **room.save_sheet("label_errors", found[:_SHEET], True),
        **room.save_table(found),
    }


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
    left.set_title("counts (blank: no image)")
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
    ax.set_title("rates (blank: no image)")


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
