"""Names of any characters: as they are shown, in tables, and in the names of files.

What a control character would do to a terminal, a page or a picture is not done: an
escape stands in its place, as Python writes it. Everything else is shown as it is.
"""

import csv
import hashlib
import io
import re
import shlex
import unicodedata
from collections.abc import Iterable

_COMMAND = re.compile(r"\s*(next: )?(python|cnn) ")
_QUOTED = r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"])+"
_JOINERS = "\u200c\u200d"  # parts of Persian words, and of emoji
_MOST_BYTES = 200  # systems allow 255, and temporary files have longer names


def show(text: str) -> str:
    """Return a text of any number of lines as it can be shown.

    Control characters, those that turn the direction of writing or are not seen, and
    bytes that are no text in the encoding of the system become `\\t`, `\\x1b`,
    `\\u202e`, `\\xe9`.
    """
    if text.isprintable():
        return text
    return "".join(x if x == "\n" else _show_character(x) for x in text)


def is_sound(text: str) -> bool:
    """Return whether a text can be written, and name a file: JSON may hold others."""
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def show_line(name: str) -> str:
    """Return a name as it can be shown on one line: `show`, and line ends escaped."""
    return show(name).replace("\n", r"\n")


def cut(line: str, most: int) -> str:
    """Leave out the middle of a line with more than `most` characters."""
    if len(line) <= most:
        return line
    end = (most - 1) // 3
    return f"{line[: most - 1 - end]}…{line[len(line) - end :]}"


def wrap(text: str, width: int) -> str:
    """Break lines that are longer than a terminal is wide, at blanks alone.

    What follows a break is indented. A command is broken where a shell takes it: behind
    a backslash, and never within quotes. Words that are wider stay whole.
    """
    return "\n".join(_wrap_line(line, width) for line in text.split("\n"))


def _wrap_line(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    is_command = _COMMAND.match(line) is not None
    end = " \\" if is_command else ""
    words = re.findall(r"\s*" + (_QUOTED if is_command else r"\S+"), line)
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) + len(end) <= width:
            lines[-1] += word
        else:
            lines.append(f"  {word.lstrip()}")
    return f"{end}\n".join(lines)


def quote(argument: str) -> str:
    """Return an argument of a command as a shell takes it, on one line.

    What `show` escapes, bash and zsh read back from `$'...'`.
    """
    if show_line(argument) == argument:
        return shlex.quote(argument)
    escaped = argument.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{show_line(escaped)}'"


def name_file(text: str, short: str) -> str:
    """Make a name of a file that systems and shells take.

    Args:
        text: what the file is named after, without an ending. Other characters than
            letters of ASCII, digits and `.,=+-` become `_`, and a hash tells such
            names apart.
        short: the start of the name, before a hash, where the text is too long.
    """
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    safe = re.sub(r"[^\w.,=+-]", "_", text, flags=re.ASCII)
    if safe != text:
        safe = f"{safe},{digest}"
    return safe if len(safe) <= _MOST_BYTES else f"{short},{digest}"


def format_row(cells: Iterable[object]) -> str:
    """Write a line of CSV; a cell with a line end of any kind is quoted."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _show_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    if unicodedata.category(character) == "Zs":  # spaces other than ASCII's
        return character
    if "\udc80" <= character <= "\udcff":  # a byte, see os.fsdecode
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
