"""The first line that a command prints, before imports that take seconds.

This module imports nothing but what Python brings along.
"""

from collections.abc import Sequence

# Modes that print more than a table for other programs.
_LONG = ("train", "sweep", "evaluate", "predict", "convert", "export", "average")
_LONG += ("visualize", "inspect", "describe", "find_rate", "replay")
_HELP = ("help", "h", "helpfull", "helpshort", "helpxml", "?", "version")


def say_starting(arguments: Sequence[str]) -> None:
    """Print what the command waits for, if its mode takes long.

    Args:
        arguments: of the command line, before they are parsed.
    """
    mode = find_mode(arguments)
    if mode in _LONG:
        print(f"starting  {mode}: loading jax", flush=True)


def find_mode(arguments: Sequence[str]) -> str:
    """Return the mode of a command line; empty where a manual is asked for."""
    mode, expected = "train", False
    for argument in arguments[1:]:
        name, given, value = argument.lstrip("-").partition("=")
        if expected:
            mode, expected = argument, False
        elif not argument.startswith("-"):
            continue
        elif name in _HELP:
            return ""
        elif name == "mode":
            mode, expected = value, not given
    return mode
