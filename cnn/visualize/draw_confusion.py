"""Which classes are taken for which, as a matrix, or of many classes the worst."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn.visualize import mistakes, picture

MOST_NAMED = 40
_MOST_NUMBERED, _MOST_PAIRS = 20, 30


def draw_confusion(confusion: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Draw what a confusion matrix holds.

    Args:
        confusion: int [K, K], of `mistakes.count_confusion`.
        names: of the classes.

    Returns:
        The figure by its name: `confusion`, the whole matrix, or `confused_classes`
        where there are more classes than can be named.
    """
    if len(names) <= MOST_NAMED:
        return {"confusion": _draw_matrix(confusion, names)}
    return {"confused_classes": _draw_most_confused(confusion, names)}


def _draw_matrix(confusion: np.ndarray, names: Sequence[str]) -> Any:
    from matplotlib.colors import LogNorm

    side = min(max(2.8 + 0.32 * len(names), 4.6), 9)
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
    return name if len(name) <= 24 else f"{name[:23]}…"
