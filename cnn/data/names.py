"""What parts and classes may be called.

Names are compared and kept in Unicode's composed form: some file systems take é apart
into e and ´.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from cnn.errors import UserError
from cnn.text import show_line

_WORDS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
# Spreadsheets run cells that begin so; in a class name it is no accident.
_FORMULA = ("=", "@")


def normalise(name: str) -> str:
    """Return a name in composed form."""
    return unicodedata.normalize("NFC", name)


def find_part(name: str) -> str | None:
    """Return the part that a folder or a split is called after, in any case.

    Args:
        name: as `train`, `Training`, `test_set`, `TRAIN-SET`, `valset`.

    Returns:
        `train`, `validation`, `test`, or None.
    """
    return _WORDS.get(re.sub(r"[ _-]?set$", "", name.strip().casefold()))


def resembles_part(name: str) -> bool:
    """Whether a part's name is a word of a name, as in `seg_train` or `TestImages`."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).casefold()
    words = re.split(r"[\W\d_]+", words)
    return any(find_part(re.sub(r"(data|images?|imgs?)$", "", x)) for x in words)


def check_class_names(where: str, class_names: Iterable[str]) -> None:
    """Refuse class names that a spreadsheet would take for a formula.

    Args:
        where: the data set or file that has them.

    Raises:
        UserError: a name begins with `=` or `@`.
    """
    wrong = [name for name in class_names if name.startswith(_FORMULA)]
    if wrong:
        raise UserError(
            f"{where}: the class name {wrong[0]!r} begins with {wrong[0][0]}, which "
            "spreadsheets run as a formula; rename the class, in the data and wherever "
            "else it is named"
        )


def count(number: int, noun: str) -> str:
    """Write a number of things: `1 file`, `2,000 files`, `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def show(names: Sequence[str], most: int = 5) -> str:
    """Write the first few of some names on one line, whatever is in them."""
    shown = ", ".join(map(show_line, names[:most]))
    return f"{shown}, … ({len(names)})" if len(names) > most else shown
