"""A step at which training stops is replayed by itself, and the error says what it was.

The error stays the first thing that is said, whatever becomes of the replay.
"""

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from cnn import config as config_module
from cnn.checkpoints import workdir
from cnn.errors import UserError
from cnn.replay import written
from cnn.replay.replay import replay
from cnn.runtime.terminal import Terminal
from cnn.training.blame import StepError


@contextlib.contextmanager
def replaying(directory: Path, terminal: Terminal) -> Iterator[None]:
    """Replay the step at which training stops inside, into the run's `replay/step_N/`.

    Args:
        directory: of the run, which is no longer locked when the error comes.

    Raises:
        UserError: that of the step, with what is first not finite in it, or which
            losses are its highest; or why it was not replayed, and the command.
    """
    try:
        yield
    except StepError as error:
        # What the run has on the devices would take the memory of the replay.
        traceback.clear_frames(error.__traceback__)
        raise UserError(_explain(error, directory, terminal)) from None


def _explain(error: StepError, directory: Path, terminal: Terminal) -> str:
    """Replay the step of an error; return the error with what that has found."""
    terminal.say(f"replay    training stops at step {error.step}, which is looked into")
    try:
        stored = workdir.read_config(directory)
        config = config_module.make_config(stored, {"step": error.step})
        found = replay(config, directory, terminal)
    except (Exception, KeyboardInterrupt) as failure:
        why = " ".join(str(failure).split()) or type(failure).__name__
        return f"{error}. By itself it was not replayed: {why}"
    where = directory / "replay" / f"step_{error.step}"
    shown = f"its batch, losses and layers are in {where}"
    if found["not_finite"]:
        first = written.describe_bad(found["not_finite"])
        return f"{error.what}. First not finite are the {first}; {shown}"
    return f"{error.what}. Its highest losses: {written.list_highest(found)}; {shown}"
