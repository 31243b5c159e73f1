"""Fine-tuning: which layers are kept, which are replaced, and which train when."""

from pathlib import Path
from typing import Any

from cnn.text import show_line
from cnn.visualize.compute import fine_tuning
from cnn.visualize.compute.fine_tuning import LayerPlan
from cnn.visualize.draw import lettering, picture
from cnn.visualize.draw.picture import COLOURS, Picture
from cnn.visualize.named_run import NamedRun
from cnn.visualize.subject import Subject

_MOST_ROWS, _ROW, _CELL, _NAME = 24, 0.27, 1.35, 2.6  # rows, and inches
_SHADES = {
    fine_tuning.KEPT: COLOURS[5],
    fine_tuning.ADAPTED: COLOURS[7],
    fine_tuning.REPLACED: COLOURS[1],
    fine_tuning.FROZEN: "0.88",
    fine_tuning.PARTLY: COLOURS[7],
    fine_tuning.TRAINS: COLOURS[2],
}


def draw(subject: Subject, folder: Path) -> list[Picture]:
    """Draw the plan of each run, a row for each layer, a column for each phase."""
    return subject.draw_runs(lambda run: _draw_run(subject, run, folder), subject.runs)


def _draw_run(subject: Subject, run: NamedRun, folder: Path) -> list[Picture]:
    first_epochs, plans = fine_tuning.plan_layers(run.trained)
    if len(plans) > _MOST_ROWS:
        plans = fine_tuning.fold(plans)
    epochs = run.trained.options["epochs"]
    heads = ["weights", *_name_phases(first_epochs, epochs)]
    figure = picture.make_figure(
        _NAME + _CELL * len(heads), 0.7 + _ROW * (len(plans) + 1)
    )
    ax = figure.subplots()
    for row, plan in enumerate(plans):
        for column, state in enumerate((plan.start, *plan.phases)):
            _draw_cell(ax, row, column, state)
    ax.set(xlim=(0, len(heads)), ylim=(len(plans), 0))
    ax.set_xticks([column + 0.5 for column in range(len(heads))], heads)
    rows = [lettering.make_label(_describe(plan)) for plan in plans]
    ax.set_yticks([row + 0.5 for row in range(len(plans))], rows)
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    source = show_line(Path(str(run.trained.transfer["source"])).name)
    title = lettering.make_label(f"{run.name}, fine-tuned from {source}")
    figure.suptitle(title)
    caption = (
        "From the first layer above to the last below: kept weights are the source's, "
        "replaced ones were drawn at random; a frozen layer does not change until it "
        "trains. In brackets: how many parameters."
    )
    path = subject.name_file(folder, run, "fine_tuning")
    return [picture.save(figure, path, title, caption, is_line_art=True)]


def _draw_cell(ax: Any, row: int, column: int, state: str) -> None:
    from matplotlib.patches import Rectangle

    shade = {"facecolor": _SHADES[state], "edgecolor": "white", "alpha": 0.75}
    ax.add_patch(Rectangle((column + 0.02, row + 0.05), 0.96, 0.9, **shade))
    ax.text(column + 0.5, row + 0.5, state, ha="center", va="center", fontsize=8)


def _describe(plan: LayerPlan) -> str:
    count = f"{plan.num_layers} layers, " if plan.num_layers > 1 else ""
    return f"{plan.name} ({count}{plan.num_parameters:,})"


def _name_phases(first_epochs: list[int], epochs: int) -> list[str]:
    """Name phases by their epochs, counted from 0."""
    names = []
    for first, end in zip(first_epochs, [*first_epochs[1:], epochs], strict=True):
        several = f"epochs {first} to {end - 1}"
        names.append(f"epoch {first}" if end - first == 1 else several)
    return names
