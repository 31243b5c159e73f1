"""Pictures of a sweep, in `plots/`: which options mattered, and learning curves."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cnn.option import format_value
from cnn.runtime import own_files
from cnn.sweep import transfer_plot
from cnn.sweep.table import Row, rank_settings
from cnn.visualize.draw import chart, lettering, picture
from cnn.visualize.draw.picture import Picture

_MANY = 30.0
_MOST_CELLS = 12
_MOST_NAMED = 8  # values that a legend names
_MOST_LINES = 200  # that a reader can hide one by one
_UNREAD = "not read"


def draw_plots(rows: Sequence[Row], select_by: str, directory: Path) -> list[Picture]:
    """Draw every picture that the options of a sweep allow.

    Args:
        rows: of its trials.
        select_by: the validation metric that is drawn.
        directory: created if it does not exist.

    Returns:
        The pictures: the learning curves, coloured by each option that varies; for each
        numeric option the metric against it; parallel coordinates and heat maps where
        two options or more vary.
    """
    metric = f"validation_{select_by}"
    finished = [row for row in rows if row["status"] == "finished"]
    varied = sorted(name for name in list_varied(rows) if name != "seed")
    drawings: dict[str, Any] = {}
    for name in varied or list_varied(rows) or ["seed"]:
        title = f"Learning curves by {name}"
        drawings[f"curves_by_{name}"] = title, _draw_curves, rows, name, metric
    if not finished:
        varied = []
    for name in varied:
        own = [row for row in finished if name in row["options"]]
        if own and is_numeric(own, name):
            drawings[f"by_{name}"] = f"By {name}", _draw_option, own, name, metric
    if len(varied) > 1:
        title = "Parallel coordinates"
        drawings["parallel"] = title, _draw_parallel, finished, varied, metric
    if transfer_plot.AXES <= set(varied):
        title = "Learning rates over widths"
        drawings["transfer"] = title, transfer_plot.draw, finished, select_by
    for x, y in itertools.combinations(varied, 2):
        title = f"{x} and {y}"
        drawings[f"{x}_by_{y}"] = title, _draw_heat, finished, x, y, select_by
    own_files.check_no_link(directory)
    directory.mkdir(parents=True, exist_ok=True)
    pictures = []
    with picture.use_style():
        for name, (title, draw, *arguments) in drawings.items():
            figure = picture.make_figure(7, 4.5)
            draw(figure.add_subplot(), *arguments)
            about = (draw.__doc__ or "").split("\n")[0]
            caption = about.replace("Draw", "Shows", 1)
            path = directory / f"{name}.png"
            pictures.append(
                picture.save(figure, path, title, caption, is_line_art=True)
            )
            if draw is _draw_curves and len(rows) <= _MOST_LINES:
                panels, lines = _list_lines(*arguments)
                names = {"groups": "Settings", "names": "Trials", "x": "epochs"}
                chart.write(path, panels, lines, **names)
    return pictures


def list_varied(rows: Sequence[Row]) -> list[str]:
    """List the options of which trials have more than one value."""
    names = dict.fromkeys(name for row in rows for name in row["options"])
    return [name for name in names if len({_text(r, name) for r in rows}) > 1]


def is_numeric(rows: Sequence[Row], name: str) -> bool:
    """Return whether an option's values are numbers in every trial."""
    values = [row["options"].get(name) for row in rows]
    return all(type(value) in (int, float) for value in values)


def _draw_option(axes: Any, rows: Sequence[Row], name: str, metric: str) -> None:
    """Draw trials as points; a line joins the means over seeds of equal settings."""
    groups: dict[tuple, dict[float, list[float]]] = {}
    names = [n for n in list_varied(rows) if n not in ("seed", name)]
    for row in rows:
        others = tuple(f"{n}={_text(row, n)}" for n in names)
        by_value = groups.setdefault(others, {})
        by_value.setdefault(row["options"][name], []).append(row[metric])
    few, markers = len(groups) <= 8, itertools.cycle(picture.MARKERS)
    for (others, by_value), marker in zip(groups.items(), markers, strict=False):
        xs = sorted(by_value)
        means = [sum(by_value[x]) / len(by_value[x]) for x in xs]
        label = ", ".join(lettering.make_label(x, 60) for x in others) if few else None
        (line,) = axes.plot(xs, means, linewidth=1, alpha=0.8, label=label)
        for x in xs:
            own = by_value[x]
            style = {"color": line.get_color(), "alpha": 0.7, "markersize": 4}
            axes.plot([x] * len(own), own, marker, **style)
    _scale(axes.set_xscale, [row["options"][name] for row in rows])
    axes.set(xlabel=name, ylabel=_name(metric))
    axes.set_title("points: trials; lines: means over seeds")
    if few and any(groups):
        axes.figure.legend(loc="outside lower center", ncols=2)


def _draw_parallel(
    axes: Any, rows: Sequence[Row], names: Sequence[str], metric: str
) -> None:
    """Draw each trial as a line through its options, coloured by its metric."""
    import matplotlib as mpl

    values = [row[metric] for row in rows]
    norm = mpl.colors.Normalize(min(values), max(values) or 1.0)
    places = {name: _make_places(rows, name) for name in names}
    order = sorted(rows, key=lambda r: r[metric], reverse="loss" in metric)
    for row in order:
        heights = [places[name][_text(row, name)] for name in names]
        colour = mpl.colormaps["viridis"](norm(row[metric]))
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


def _draw_curves(axes: Any, rows: Sequence[Row], name: str, metric: str) -> None:
    """Draw the metric by epoch, a line for each trial, coloured by the option."""
    styles = {
        "finished": {"alpha": 0.9, "linewidth": 1.3},
        "pruned": {"alpha": 0.5, "linewidth": 0.8, "linestyle": "--"},
        "failed": {"alpha": 0.7, "linewidth": 0.8, "linestyle": ":"},
    }
    if sum(row["status"] == "finished" for row in rows) > 20:
        styles["finished"]["alpha"] = 0.5
    colours, mapped = _choose_colours(rows, name)
    seen = set()
    for row in sorted(rows, key=lambda r: r["status"] == "finished"):
        curve, text = row["curve"], _text(row, name)
        is_new = mapped is None and text not in seen
        label = f"{name}={lettering.make_label(text)}" if is_new else None
        seen.add(text)
        style = {"color": colours[text], **styles[row["status"]]}
        xs = [line["epoch"] for line in curve]
        axes.plot(xs, [line[metric] for line in curve], label=label, **style)
    losses = [line[metric] for row in rows for line in row["curve"]]
    if "loss" in metric and losses and min(losses) > 0:
        axes.set_yscale("log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set(xlabel="epoch", ylabel=_name(metric))
    axes.set_title("solid: finished; dashed: pruned; dotted: failed")
    if mapped is not None:
        axes.figure.colorbar(mapped, ax=axes, label=name)
    elif len(seen) <= _MOST_NAMED:
        axes.figure.legend(loc="outside lower center", ncols=4)


def _list_lines(
    rows: Sequence[Row], name: str, metric: str
) -> tuple[list[chart.Panel], list[chart.Line]]:
    """List what `_draw_curves` draws, by setting and seed."""
    from matplotlib import colors

    scale = "log" if "loss" in metric else "share"
    found, (colours, _) = [], _choose_colours(rows, name)
    varied = [x for x in list_varied(rows) if x != "seed"]
    for row in rows:
        points = [(line["epoch"], line[metric]) for line in row["curve"]]
        group = ", ".join(f"{x}={_shorten(_text(row, x))}" for x in varied)
        seed = row["options"].get("seed")
        line = chart.Line(
            metric,
            group,
            f"trial {row['trial']}" if seed is None else f"seed={seed}",
            colors.to_hex(colours[_text(row, name)]),
            *np.array(points, float).reshape(-1, 2).T,
            is_dashed=row["status"] == "pruned",
            is_thin=row["status"] == "failed",
        )
        found.append(line)
    return [chart.Panel(metric, _name(metric), scale)], found


def _choose_colours(rows: Sequence[Row], name: str) -> tuple[dict[str, Any], Any]:
    """Choose a colour for each value of an option, by its text.

    Returns:
        The colours, and what a colour bar is made of where numbers are too many to
        be named, else None.
    """
    import matplotlib as mpl

    texts = _list_values(rows, name)
    if not is_numeric(rows, name) or len(texts) <= _MOST_NAMED:
        cycle = itertools.cycle(picture.COLOURS)
        return dict(zip(texts, cycle, strict=False)), None
    values = [float(text) for text in texts]
    is_log = values[0] > 0 and values[-1] / values[0] > _MANY
    make_norm = mpl.colors.LogNorm if is_log else mpl.colors.Normalize
    mapped = mpl.cm.ScalarMappable(make_norm(values[0], values[-1]), "viridis")
    return dict(zip(texts, map(mapped.to_rgba, values), strict=True)), mapped


def _draw_heat(axes: Any, rows: Sequence[Row], x: str, y: str, select_by: str) -> None:
    """Draw the best mean over seeds for each pair of values."""
    metric = f"validation_{select_by}"
    xs, ys = _list_values(rows, x), _list_values(rows, y)
    if max(len(xs), len(ys)) > _MOST_CELLS:
        _draw_scattered(axes, rows, x, y, metric)
        return
    cells = np.full((len(ys), len(xs)), np.nan)
    # The ranking begins with the best, so the first to fill a cell is its best.
    for row in rank_settings(rows, select_by):
        place = ys.index(_text(row, y)), xs.index(_text(row, x))
        if np.isnan(cells[place]):
            cells[place] = row["mean"]
    image = axes.imshow(cells, aspect="auto", origin="lower", cmap="viridis")
    middle = (np.nanmin(cells) + np.nanmax(cells)) / 2
    for i, j in itertools.product(range(len(ys)), range(len(xs))):
        if not np.isnan(cells[i, j]):
            colour = "black" if cells[i, j] > middle else "white"
            style = {"ha": "center", "va": "center", "fontsize": 8, "color": colour}
            axes.text(j, i, f"{cells[i, j]:.3f}", **style)
    axes.set_xticks(range(len(xs)), map(_shorten, xs), rotation=30, ha="right")
    axes.set_yticks(range(len(ys)), map(_shorten, ys))
    axes.set(xlabel=x, ylabel=y)
    axes.figure.colorbar(image, ax=axes, label=f"best mean of {_name(metric)}")


def _draw_scattered(
    axes: Any, rows: Sequence[Row], x: str, y: str, metric: str
) -> None:
    """Draw trials as coloured points, where a map would have too many cells."""
    places = []
    pairs = ((x, axes.set_xscale, axes.xaxis), (y, axes.set_yscale, axes.yaxis))
    for name, scale, axis in pairs:
        if is_numeric(rows, name):
            values = [row["options"][name] for row in rows]
            _scale(scale, values)
        else:
            texts = _list_values(rows, name)
            values = [texts.index(_text(row, name)) for row in rows]
            axis.set_ticks(range(len(texts)), map(_shorten, texts))
        places.append(values)
    colours = [row[metric] for row in rows]
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


def _make_places(rows: Sequence[Row], name: str) -> dict[str, float]:
    """Return the height in [0, 1] of each value of an option, by its text."""
    texts = _list_values(rows, name)
    if not is_numeric(rows, name):
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


def _list_values(rows: Sequence[Row], name: str) -> list[str]:
    """List the values of an option as text, numbers in their order."""
    values = list(dict.fromkeys(_text(row, name) for row in rows))
    return sorted(values, key=float) if is_numeric(rows, name) else values


def _text(row: Row, name: str) -> str:
    return format_value(row["options"].get(name, _UNREAD))


def _name(metric: str) -> str:
    """Name a metric with its unit."""
    unit = "nats" if metric.endswith("loss") else "share"
    return f"{metric.replace('_', ' ')} ({unit})"


def _shorten(text: str) -> str:
    """Write a number with three digits, other text as a label."""
    try:
        return f"{float(text):.3g}"
    except ValueError:
        return lettering.make_label(text)
