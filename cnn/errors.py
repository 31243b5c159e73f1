"""Mistakes that a user can mend: one message each, which says how.

Whatever raises `UserError` has written and compiled nothing that would be lost;
`main.py` prints the message without a traceback and exits with code 2.
"""

import contextlib
import difflib
import errno
import os
import re
from collections.abc import Iterable, Iterator

from cnn.text import show_line

# What to do about a file that the system refuses; the reason it gives itself.
_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "raise the limit of the size of files, as ulimit -f unlimited",
    errno.EMFILE: "raise the limit of open files, as ulimit -n 4096",
    errno.ENFILE: "close other programs, or raise the system's limit of open files",
    errno.EACCES: "let this user read and write it",
    errno.EPERM: "let this user read and write it",
    errno.EROFS: "choose a directory on another disk",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "move that directory away",
    errno.ENOTDIR: "move the file away that is in a directory's place",
    errno.EIO: "check that disk",
}
# How the checkpoint library's C++ tells what the system said.
_CODE = re.compile(r"os_error_code='(\d+)'")

_LONGEST = 300  # characters of another library's text


class UserError(Exception):
    """A mistake in flags, files or data, told in one message that names the remedy.

    Several at once, as `UserError(one, another)`, are a line each.
    """

    def __str__(self) -> str:
        """Return the message, or all of them with how many they are."""
        if len(self.args) < 2:
            return super().__str__()
        texts = [str(text).replace("\n", "\n    ") for text in self.args]
        return "\n  ".join([f"{len(texts)} problems:", *texts])


class Problems:
    """Mistakes that are collected, to be told together: `with problems.note(): …`."""

    def __init__(self) -> None:
        """Begin without any."""
        self.found: list[str] = []

    @contextlib.contextmanager
    def note(self) -> Iterator[None]:
        """Note the UserError that is raised inside, and continue behind the block."""
        try:
            yield
        except UserError as error:
            self.found += [text for text in error.args if text not in self.found]

    def check(self) -> None:
        """Raise all that was noted.

        Raises:
            UserError: there is any.
        """
        if self.found:
            raise UserError(*self.found)


def suggest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean X?` for the nearest of `known`, or the whole choice.

    Args:
        name: what was given.
        known: every name that is allowed.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {show_line(near[0])}?"
    return f"; known: {', '.join(map(show_line, known))}"


def explain(error: BaseException) -> str:
    """Return why the system refuses a file, and what to do: `REASON: REMEDY`.

    Args:
        error: an OSError, or what a library raised in its place.
    """
    code = getattr(error, "errno", None)
    if code is None and (found := _CODE.search(str(error))):
        code = int(found[1])
    if code is None:
        text = " ".join(str(error).split()) or type(error).__name__
        return text[:_LONGEST]
    reason = getattr(error, "strerror", None) or os.strerror(code)
    return f"{reason}: {_REMEDIES[code]}" if code in _REMEDIES else reason


def describe(error: OSError) -> str:
    """Return `explain` of an error after the file that it names, if it names one."""
    name = error.filename if error.errno is not None else None
    return explain(error) if name is None else f"{os.fsdecode(name)}: {explain(error)}"
