"""Pictures of a sweep, in `plots/`: which options mattered, and how trials learnt."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnn.options import format_value
from cnn.sweep.statistics import rank_settings
from cnn.sweep.table import Record
from cnn.visualize import picture

_MANY = 30.0
_MOST_CELLS = 12


def draw_plots(
    records: Sequence[Record], select_by: str, directory: Path
) -> list[Path]:
    """Draw every picture that the options of a sweep allow.

    Args:
        records: of its trials.
        select_by: the validation metric that is drawn.
        directory: where to; made if need be.

    Returns:
        The files: for each numeric option the metric against it; parallel coordinates
        and heat maps where two options or more vary; the learning curves.
    """
    metric = f"validation_{select_by}"
    finished = [record for record in records if record["status"] == "finished"]
    varied = list_varied(records)
    numeric = [name for name in varied if is_numeric(records, name) and name != "seed"]
    others = [name for name in varied if name != "seed"]
    drawings: dict[str, Any] = {"curves": (_draw_curves, records, metric)}
    for name in numeric if finished else ():
        drawings[f"by_{name}"] = _draw_option, finished, name, metric
    if finished and len(others) > 1:
        drawings["parallel"] = _draw_parallel, finished, others, metric
    for x, y in itertools.combinations(others, 2) if finished else ():
        drawings[f"{x}_by_{y}"] = _draw_heat, finished, x, y, select_by
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    with picture.use_style():
        for name, (draw, *arguments) in drawings.items():
            figure = picture.make_figure(7, 4.5)
            draw(figure.add_subplot(), *arguments)
            paths.append(directory / f"{name}.png")
            figure.savefig(paths[-1], dpi=120, bbox_inches="tight", pad_inches=0.1)
    return paths


def list_varied(records: Sequence[Record]) -> list[str]:
    """List the options of which trials have more than one value."""
    names = dict.fromkeys(name for record in records for name in record["options"])
    return [name for name in names if len({_text(r, name) for r in records}) > 1]


def is_numeric(records: Sequence[Record], name: str) -> bool:
    """Return whether an option's values are numbers."""
    values = [record["options"][name] for record in records]
    return all(type(value) in (int, float) for value in values)


def _draw_option(axes: Any, records: Sequence[Record], name: str, metric: str) -> None:
    """Draw trials as points; lines join the means of what else is equal."""
    groups: dict[tuple, dict[float, list[float]]] = {}
    names = [n for n in list_varied(records) if n not in ("seed", name)]
    for record in records:
        others = tuple(f"{n}={_text(record, n)}" for n in names)
        by_value = groups.setdefault(others, {})
        by_value.setdefault(record["options"][name], []).append(record[metric])
    few, markers = len(groups) <= 8, itertools.cycle(picture.MARKERS)
    for (others, by_value), marker in zip(groups.items(), markers, strict=False):
        xs = sorted(by_value)
        means = [sum(by_value[x]) / len(by_value[x]) for x in xs]
        label = ", ".join(others) if few else None
        (line,) = axes.plot(xs, means, linewidth=1, alpha=0.8, label=label)
        for x in xs:
            own = by_value[x]
            style = {"color": line.get_color(), "alpha": 0.7, "markersize": 4}
            axes.plot([x] * len(own), own, marker, **style)
    _scale(axes.set_xscale, [record["options"][name] for record in records])
    axes.set(xlabel=name, ylabel=_name(metric))
    axes.set_title("points: trials; lines: means over seeds")
    if few and any(groups):
        axes.figure.legend(loc="outside lower center", ncols=2)


def _draw_parallel(
    axes: Any, records: Sequence[Record], names: Sequence[str], metric: str
) -> None:
    """Draw each trial as a line through its options, coloured by its metric."""
    import matplotlib as mpl

    values = [record[metric] for record in records]
    norm = mpl.colors.Normalize(min(values), max(values) or 1.0)
    places = {name: _make_places(records, name) for name in names}
    order = sorted(records, key=lambda r: r[metric], reverse="loss" in metric)
    for record in order:
        heights = [places[name][_text(record, name)] for name in names]
        colour = mpl.colormaps["viridis"](norm(record[metric]))
        axes.plot(range(len(names)), heights, color=colour, alpha=0.8)
    for i, name in enumerate(names):
        axes.axvline(i, color="0.7", linewidth=0.8, zorder=0)
        for text, height in _thin(places[name]):
            box = {"fc": "white", "ec": "none", "alpha": 0.7, "pad": 0.5}
            axes.text(
                i + 0.02, height, _shorten(text), fontsize=8, va="center", bbox=box
            )
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_facecolor("0.85")  # or the brightest lines would not be seen
    axes.set_title("each line is a trial")
    axes.set_xlim(-0.1, len(names) - 0.7)
    mapped = mpl.cm.ScalarMappable(norm, "viridis")
    axes.figure.colorbar(mapped, ax=axes, label=_name(metric))


def _draw_curves(axes: Any, records: Sequence[Record], metric: str) -> None:
    """Draw the metric by epoch: finished trials bold, those that were ended faint."""
    styles = {
        "finished": {"alpha": 0.9, "linewidth": 1.3, "color": picture.COLOURS[0]},
        "pruned": {"alpha": 0.3, "linewidth": 0.8, "color": picture.COLOURS[1]},
        "failed": {"alpha": 0.6, "linewidth": 0.8, "color": picture.COLOURS[6]},
    }
    if sum(record["status"] == "finished" for record in records) > 20:
        styles["finished"]["alpha"] = 0.4
    seen = set()
    for record in sorted(records, key=lambda r: r["status"] == "finished"):
        curve, status = record["curve"], record["status"]
        label = status if status not in seen else None
        seen.add(status)
        xs = [line["epoch"] for line in curve]
        axes.plot(xs, [line[metric] for line in curve], label=label, **styles[status])
    losses = [line[metric] for record in records for line in record["curve"]]
    if "loss" in metric and losses and min(losses) > 0:
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel=_name(metric))
    axes.figure.legend(loc="outside lower center", ncols=len(seen))


def _draw_heat(
    axes: Any, records: Sequence[Record], x: str, y: str, select_by: str
) -> None:
    """Draw the best mean over seeds for each pair of values."""
    import numpy as np

    metric = f"validation_{select_by}"
    columns, rows = _list_values(records, x), _list_values(records, y)
    if len(columns) > _MOST_CELLS or len(rows) > _MOST_CELLS:
        _draw_scattered(axes, records, x, y, metric)
        return
    cells = np.full((len(rows), len(columns)), np.nan)
    # The ranking begins with the best, so the first to fill a cell is its best.
    for row in rank_settings(records, select_by):
        place = rows.index(_text(row, y)), columns.index(_text(row, x))
        if np.isnan(cells[place]):
            cells[place] = row["mean"]
    image = axes.imshow(cells, aspect="auto", origin="lower", cmap="viridis")
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for i, j in itertools.product(range(len(rows)), range(len(columns))):
        if not np.isnan(cells[i, j]):
            colour = "black" if cells[i, j] > middle else "white"
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
            axes.text(j, i, f"{cells[i, j]:.3f}", **style)
    axes.set_xticks(
        range(len(columns)), map(_shorten, columns), rotation=30, ha="right"
    )
    axes.set_yticks(range(len(rows)), map(_shorten, rows))
    axes.set(xlabel=x, ylabel=y)
    axes.figure.colorbar(image, ax=axes, label=f"best mean of {_name(metric)}")


def _draw_scattered(
    axes: Any, records: Sequence[Record], x: str, y: str, metric: str
) -> None:
    """Draw trials as coloured points, where a map would have too many cells."""
    places = []
    for name, scale in ((x, axes.set_xscale), (y, axes.set_yscale)):
        if is_numeric(records, name):
            values = [record["options"][name] for record in records]
            _scale(scale, values)
        else:
            values = [_text(record, name) for record in records]
        places.append(values)
    colours = [record[metric] for record in records]
    points = axes.scatter(*places, c=colours, cmap="viridis", s=28)
    axes.set(xlabel=x, ylabel=y)
    axes.figure.colorbar(points, ax=axes, label=_name(metric))


def _scale(set_scale: Any, values: Sequence[float]) -> None:
    """Use a logarithmic axis where values lie far apart."""
    low, high = min(values), max(values)
    if low > 0 and high / low > _MANY:
        set_scale("log")
    elif low == 0 and high > 0:
        above = min(value for value in values if value > 0)
        if len(set(values)) > 2 and high / above > _MANY:
            set_scale("symlog", linthresh=above)


def _make_places(records: Sequence[Record], name: str) -> dict[str, float]:
    """Return the height in [0, 1] of each value of an option, by its text."""
    texts = _list_values(records, name)
    if not is_numeric(records, name):
        return {text: i / max(len(texts) - 1, 1) for i, text in enumerate(texts)}
    values = [float(text) for text in texts]
    if min(values) > 0 and max(values) / min(values) > _MANY:
        values = [math.log(value) for value in values]
    low, span = values[0], (values[-1] - values[0]) or 1.0
    return {t: (v - low) / span for t, v in zip(texts, values, strict=True)}


def _thin(places: dict[str, float]) -> list[tuple[str, float]]:
    """Choose the labels of a coordinate that do not overlap."""
    chosen: list[tuple[str, float]] = []
    for text, height in sorted(places.items(), key=lambda pair: pair[1]):
        if not chosen or height - chosen[-1][1] > 0.06:
            chosen.append((text, height))
    return chosen


def _list_values(records: Sequence[Record], name: str) -> list[str]:
    """List the values of an option as text, numbers in their order."""
    values = list(dict.fromkeys(_text(record, name) for record in records))
    return sorted(values, key=float) if is_numeric(records, name) else values


def _text(record: Record, name: str) -> str:
    value = record["options"][name]
    return format_value(tuple(value) if isinstance(value, list) else value)


def _name(metric: str) -> str:
    """Name a metric with its unit."""
    unit = "nats" if metric.endswith("loss") else "share"
    return f"{metric.replace('_', ' ')} ({unit})"


def _shorten(text: str) -> str:
    """Write a number with three digits; leave other text as it is."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return text
