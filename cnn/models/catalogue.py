"""The table of all models: `--mode=describe --model=list`.

Numbers are those of `published.PUBLISHED`; of a model without an entry they are
computed from its shapes. They are of the image size and classes that the model was
published for, and of the default options.
"""

from rich.table import Table

from cnn import models
from cnn.models.family import Family
from cnn.models.options import ModelOptions
from cnn.models.published import PUBLISHED, Published
from cnn.models.summary import describe_model

_COLUMNS = {"parameters": 12, "GMACs": 8, "image": 6, "smallest": 9, "top-1": 6}
_NAMES = 22  # characters
_NONE = "—"


def make_catalogue() -> list[tuple[str, Table]]:
    """Make a table for each family, behind its title; a row is a model.

    The columns are those of `_COLUMNS`: the side of the images that a model was
    published for and of the smallest that it takes, in pixels; the best top-1 accuracy
    of its weights that was published for that size, in percent.
    """
    return [(_write_title(x), _make_table(x)) for x in models.FAMILIES]


def _write_title(family: Family) -> str:
    forms = ", ".join(pattern.form for pattern in family.patterns)
    return f"{family.title}: {forms}, such as" if forms else family.title


def _make_table(family: Family) -> Table:
    table = Table(box=None, pad_edge=False, show_header=family is models.FAMILIES[0])
    table.add_column("model", min_width=_NAMES, no_wrap=True)
    for column, width in _COLUMNS.items():
        table.add_column(column, justify="right", min_width=width, no_wrap=True)
    for name in family.examples:
        table.add_row(f"  {name}", *_make_cells(family, name))
    return table


def _make_cells(family: Family, name: str) -> list[str]:
    found = PUBLISHED.get(name) or _compute(name)
    size = family.get_input(name)[0]
    accuracies = [x.top1 for x in found.weights if x.top1 and x.size == size]
    best = max(accuracies, default=None)
    return [
        f"{found.parameters:,}",
        _NONE if found.gmacs is None else f"{found.gmacs:.3g}",
        str(size),
        str(found.smallest or _NONE),
        _NONE if best is None else f"{best:.1f}",
    ]


def _compute(name: str) -> Published:
    """Count what no entry says; the smallest image is left out (0)."""
    size, channels, classes = models.get_published_input(name)
    model = models.create_model(ModelOptions(model=name), classes)
    found = describe_model(model, (size, size, channels))
    return Published(found["num_parameters"], found["macs"] / 1e9, (), 0)
