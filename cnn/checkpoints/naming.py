"""What a run is called: its default directory, and its label in tables and pictures.

A name is short and says what differs from the preset, or is `--name`; all options stand
in the directory's `config.json`. Names of directories hold no `:`, `;`, blanks or
brackets.
"""

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.checkpoints import workdir
from cnn.config import list_fields
from cnn.errors import UserError
from cnn.option import format_value
from cnn.text import cut, name_file, show_line

RUNS = Path("runs")
_MOST = 64  # characters of a name, before its hash
_MOST_OF_VALUE = 32
_MOST_SHOWN = 60  # characters of a label
_DISLIKED = re.compile(r"[^\w.,=+-]+")  # by shells, Windows or scp
_HASH = re.compile(r",[0-9a-f]{6}$")


def name_directory(
    preset: str, overrides: Mapping[str, Any], name: str = ""
) -> tuple[Path, Path]:
    """Name a run's default directory; equal commands have equal ones.

    Args:
        preset: its name.
        overrides: the command line's options, in the order of `--help`.
        name: of `--name`; empty without one.

    Returns:
        `runs/NAME`, or `runs/PRESET,option=value,…` where no name is given. Paths are
        told by their last part, sweeps by the options that they vary, and what is too
        long is left out; a hash of all options then keeps different ones apart. And the
        directory that earlier versions gave the same command.

    Raises:
        UserError: the name does not begin with a letter or a digit.
    """
    if name and not name[0].isalnum():
        raise UserError(f"--name={name} must begin with a letter or a digit")
    if name:
        return (RUNS / name_file(show_line(name), "run"),) * 2
    plain = ",".join(
        [preset, *(f"{n}={format_value(value)}" for n, value in overrides.items())]
    )
    parts = [_clean(preset)]
    parts += [f"{n}={_shorten(n, value)}" for n, value in overrides.items()]
    kept = parts[:1]
    for part in parts[1:]:
        if len(",".join([*kept, part])) <= _MOST:
            kept.append(part)
    if left := len(parts) - len(kept):
        kept.append(f"{left}_more")
    before = _clean(plain)
    short, *others = (
        text if text == plain else f"{text},{_compute_hash(plain)}"
        for text in (",".join(kept), before)
    )
    return RUNS / short, RUNS / others[0]


def choose_directory(named: tuple[Path, Path]) -> tuple[Path, str]:
    """Choose of a command's two default directories the one that its run lies in.

    Args:
        named: of `name_directory`.

    Returns:
        The directory, and what is to be said: that a run lies under its earlier name.
    """
    now, before = named
    if now == before or now.exists() or len(os.fsencode(before.name)) > 255:
        return now, ""
    if not before.exists():
        return now, ""
    said = (
        f"the run of this command lies in {show_line(str(before))}, as earlier "
        f"versions named it, and stays there; a new one would be {now}"
    )
    return before, said


def label_runs(directories: Sequence[Path]) -> list[str]:
    """Label runs for tables, legends, titles: no two alike, a line each, the shortest.

    They are called by their `--name`, else by their directory without its hash; a trial
    of a sweep by the sweep and its own directory, as `rates/best`. Where two labels are
    alike, all are the parts of their paths that are not common to them.
    """
    directories = list(directories)
    names = [_find_name(path) or path.resolve().name for path in directories]
    shown = [cut(show_line(name), _MOST_SHOWN) for name in names]
    for labels in ([_HASH.sub("", one) for one in shown], shown):
        if len({*labels}) == len(labels):
            return labels
    whole = [str(path.resolve()) for path in directories]
    apart = [os.path.relpath(path, os.path.commonpath(whole)) for path in whole]
    labels = [show_line(one) for one in apart]
    if len({*labels}) == len(labels):
        return labels
    return [show_line(str(path)) for path in directories]


def _find_name(directory: Path) -> str:
    """Return what a run calls itself; empty where it does not."""
    path = directory.resolve()
    above = path.parent.parent if path.parent.name == "kept" else path.parent
    if above.name == "sweep" and (above / workdir.CONFIG_FILE).exists():
        sweep = _find_name(above) or _HASH.sub("", above.parent.name)
        return f"{sweep}/{path.name}"
    try:
        name = workdir.read_options(path).get("name")
    except (UserError, OSError):
        return ""
    return name if isinstance(name, str) else ""


def _shorten(name: str, value: Any) -> str:
    """Write a value as a part of a directory's name."""
    text = format_value(value)
    field = list_fields().get(name)
    if name == "sweep":
        axes = [axis.partition("=")[0].strip() for axis in text.split(";")]
        text = "+".join(filter(None, axes))
    elif field is not None and field.metadata["is_path"]:
        *_, text = (x for x in ("", *re.split(r"[/\\:]", text)) if x not in ("", "~"))
    text = _clean(text).strip("_")
    return text[:_MOST_OF_VALUE]


def _clean(text: str) -> str:
    return _DISLIKED.sub("_", text)


def _compute_hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:6]
