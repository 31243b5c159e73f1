"""The tracker of a run, if it has one: what it gets, and that it never ends the run.

A tracker gets each line of metrics.jsonl once. TensorBoard forgets what a resumed run
writes again. The others keep everything: `tracker.json` says which of their runs this
one is, and which line was the last that they got. Those up to it are not sent again, as
a resumed run repeats them to the bit.

What a tracker raises is printed once, and the run goes on without it.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError, explain
from cnn.runtime import own_files
from cnn.runtime.tensorboard import EventFiles
from cnn.runtime.trackers import Mlflow, Trackio, Wandb
from cnn.text import show, show_line

STATE_FILE = "tracker.json"
# By the name of --track: what is made of a run's directory, what its own run is called
# there ("" at first), and the run's options.
TRACKERS: dict[str, Any] = {
    "tensorboard": EventFiles,
    "wandb": Wandb,
    "mlflow": Mlflow,
    "trackio": Trackio,
}
_NOTHING, _RESULT = [-1, 0], 2


def check(name: str) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        UserError: naming the package.
    """
    if name != "none":
        TRACKERS[name].load()


class Tracking:
    """A tracker of one run, or none."""

    def __init__(
        self,
        name: str,
        workdir: Path,
        options: Mapping[str, Any],
        step: int | None = None,
    ) -> None:
        """Open it, or the run of it that an earlier start of this run has opened.

        Args:
            name: of `TRACKERS`, or none.
            options: of the run.
            step: from which on earlier lines are repeated; None: none are.

        Raises:
            UserError: it is not installed, or TensorBoard's files cannot be written, or
                lie behind a link.
        """
        self._name, self._path, self._tracker = name, workdir / STATE_FILE, None
        self._states = _read_states(self._path)
        if name == "none":
            return
        about = {n: _describe(x) for n, x in options.items()}
        run, self._sent = self._states.get(name, ["", _NOTHING])
        with self._going_on():
            self._tracker = TRACKERS[name](workdir, run, about)
            if self._tracker.forgets:
                self._tracker.forget(step)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl: its numbers."""
        numbers = _select_numbers(values)
        place = [step, int("epoch" in values)]  # behind the step's own
        self._send(place, lambda tracker: tracker.add(step, numbers))

    def add_result(self, result: Mapping[str, Any]) -> None:
        """Add the numbers of result.json."""
        numbers, step = _select_numbers(result), result.get("steps", 0)
        self._send([step, _RESULT], lambda tracker: tracker.add_result(step, numbers))

    def add_images(self, images: Mapping[str, np.ndarray]) -> None:
        """Add images, uint8 [H, W, 3], by name, each time anew."""
        if self._tracker is not None:
            with self._going_on():
                self._tracker.add_images(max(self._sent[0], 0), images)

    def close(self) -> None:
        """Close it."""
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            with self._going_on():
                tracker.close()

    def _send(self, place: list[int], call: Callable[[Any], None]) -> None:
        if self._tracker is None:
            return
        if self._tracker.forgets:
            with self._going_on():
                call(self._tracker)
        elif place > self._sent:
            with self._going_on():
                call(self._tracker)
                self._sent = place
                self._states[self._name] = [self._tracker.run, place]
                _write(self._path, self._states)

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """Print what a tracker raises, and leave it."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            self._tracker = None
            print(
                f"note: --track={self._name} of {show_line(str(self._path.parent))} is "
                f"written no further ({show_line(explain(error))}); the run goes on "
                "without it",
                file=sys.stderr,
            )


def _describe(value: Any) -> Any:
    return value if isinstance(value, int | float) else show(str(value))


def _select_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what trackers show as curves: numbers but the step."""
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float)
        and not isinstance(value, bool)
        and name != "step"
    }


def _read_states(path: Path) -> dict[str, list[Any]]:
    """Read by tracker its run and what it got last; nothing of a damaged file."""
    try:
        found = json.loads(own_files.read(path))
        good = {
            n: [str(run), [int(x) for x in sent]] for n, (run, sent) in found.items()
        }
        return good
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write(path: Path, value: Any) -> None:
    """Write JSON whole or not at all, unless the machine itself goes down."""
    new = path.with_name(f".{path.name}.new")
    with own_files.open_own(new, "w") as file:
        json.dump(value, file)
    os.replace(new, path)
