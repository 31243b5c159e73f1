"""Text in pictures: any names, in fonts that have their characters, never as TeX.

matplotlib draws what a text's own font lacks in the next font of the text's list; here
that list is made of the installed fonts. A character that none of them has is written
as Python escapes it, `\\u732b`, so that names that differ still do so.
"""

import functools
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from cnn.text import cut, show_line

# Fonts that show boxes for all characters, or signs that are not the characters'.
_NOT_FOR_NAMES = ("Last Resort", "cm", "STIXSize", "STIXNonUnicode")
_LEFT_TO_RIGHT = "\u200e"
# They choose between forms, or the direction, of their neighbours.
_UNSEEN = "\u200c\u200d\ufe0e\ufe0f" + _LEFT_TO_RIGHT
_REGULAR = (400, "normal", "regular")
_MOST, _WIDER = 32, 1.7


def make_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return different names as different labels; see `make_label`."""
    labels = list(map(make_label, names))
    count = Counter(labels)
    numbered = enumerate(labels)
    return tuple(f"{x} [{i}]" if count[x] > 1 else x for i, x in numbered)


def make_label(name: str, most: int = _MOST) -> str:
    """Return a name as a label of a tick or an image: one line of drawable characters.

    Args:
        most: characters of usual width, of more the middle is left out; 0: never.
    """
    label = replace_undrawable(show_line(name))
    label = shorten(label, most) if most else label
    if any(unicodedata.bidirectional(x) in ("R", "AL") for x in label):
        # What stands beside a name in Arabic or Hebrew keeps its place.
        return f"{_LEFT_TO_RIGHT}{label}{_LEFT_TO_RIGHT}"
    # Labels that begin with `_` are left out of legends.
    return f"{_LEFT_TO_RIGHT}{label}" if label.startswith("_") else label


def shorten(label: str, most: int) -> str:
    """Leave out the middle of a label wider than so many usual characters."""
    width = _measure(label)
    return label if width <= most else cut(label, int(len(label) * most / width))


def find_room(labels: Iterable[str]) -> float:
    """Return the inches by which a figure grows for labels that are long."""
    return max(0, max(map(_measure, labels)) - 10) * 0.06


def wrap(label: str, width: int = 14) -> str:
    """Break a label that stands above an image into lines of so many characters."""
    return "\n".join(textwrap.wrap(label, width)) or label


def replace_undrawable(text: str) -> str:
    """Return a text with escapes for the characters that no installed font has."""
    if text.isascii():
        return text
    return "".join(map(_replace, text))


def prepare(figure: Any) -> None:
    """Make the texts of a figure drawable; comes before it is saved.

    Labels of ticks are written when the figure is drawn, so that names among them must
    be of `make_label`.
    """
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatterMathtext

    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):  # powers of ten would be written as TeX
            if isinstance(axis.get_major_formatter(), LogFormatterMathtext):
                axis.set_major_formatter("{x:g}")
            if isinstance(axis.get_minor_formatter(), LogFormatterMathtext):
                axis.set_minor_formatter(_make_log_formatter())
            axis.get_ticklabels()  # are written now
    for text in figure.findobj(Text):
        drawn = replace_undrawable(text.get_text())
        text.set_text(drawn)
        if not drawn.isascii():
            own = tuple(text.get_fontfamily())
            text.set_fontfamily([*own, *_list_families(drawn, own)])


def _measure(label: str) -> float:
    """Return how wide a label is, in characters of usual width."""
    return sum(_WIDER if _is_wide(x) else 1 for x in label)


def _is_wide(character: str) -> bool:
    return character in "mwMW@%" or unicodedata.east_asian_width(character) in "WF"


def _make_log_formatter() -> Any:
    """Make a formatter of the ticks between powers: plain numbers, none if many."""
    from matplotlib.ticker import LogFormatter

    class PlainFormatter(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    return PlainFormatter()


def _list_families(text: str, own: tuple[str, ...]) -> Iterable[str]:
    """List the fonts, each once, that have what a text's own fonts lack."""
    found = (_find_family(x) for x in text if x != "\n" and not _has(own, x))
    return dict.fromkeys(family for family in found if family)


def _replace(character: str) -> str:
    if character == "\n" or _is_drawable(character):
        return character
    if character in _UNSEEN:
        return ""
    return character.encode("unicode_escape").decode()


def _is_drawable(character: str) -> bool:
    import matplotlib

    own = matplotlib.rcParams["font.family"]
    return _has(own, character) or bool(_find_family(character))


def _has(families: Iterable[str], character: str) -> bool:
    files = map(_find_file, families)
    return any(character in _read_characters(file) for file in files)


@functools.lru_cache(maxsize=4096)
def _find_family(character: str) -> str:
    """Find an installed font that has a character; empty when there is none."""
    from matplotlib import font_manager

    # Of another weight or style matplotlib would warn that it is not the one wanted.
    found = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.weight in _REGULAR and font.style == "normal"
    }
    for name in sorted(found):
        usable = not name.startswith(_NOT_FOR_NAMES)
        if usable and character in _read_characters(found[name]):
            return name
    return ""


@functools.cache
def _find_file(family: str) -> str:
    from matplotlib import font_manager

    properties = font_manager.FontProperties(family=[family])
    return font_manager.fontManager.findfont(properties)


@functools.cache
def _read_characters(file: str) -> frozenset[str]:
    """Read which characters a font has; none of one that cannot be scaled or read."""
    from matplotlib import font_manager

    try:
        font = font_manager.get_font(file)
    except (OSError, RuntimeError):
        return frozenset()
    return frozenset(map(chr, font.get_charmap())) if font.scalable else frozenset()
