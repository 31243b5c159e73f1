"""Mistakes that a user can mend: one message each, which says how.

Whatever raises `UserError` has written and compiled nothing that would be lost;
`main.py` prints the message without a traceback and exits with code 2.
"""

import difflib
from collections.abc import Iterable

from cnn.text import show_line


class UserError(Exception):
    """A mistake in flags, files or data, told in one message that names the remedy."""


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
