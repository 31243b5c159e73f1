"""A run that goes on with another one: `--extend=RUN --epochs=40`.

The new directory gets what the old one held at a checkpoint: that checkpoint, the best
one until then, the record of the data and the lines of metrics.jsonl. From there on it
is a run that was stopped, and is resumed like any other; the old run stays as it is.

Of a run under `--schedule=stable_then_decay` it is the last checkpoint before the
decay, and the new run ends with the very bits of one that had its length from the
start. Where the schedule does not know the length at all, it is the last one. Under the
others the new run is its own: it has the old one's last state, its optimizer's too, and
the rate that the schedule of the new length has at that step.
"""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from cnn.checkpoints import atomic, manifest, workdir
from cnn.checkpoints.description import UNTRAINED
from cnn.config import Config, list_fields, make_config
from cnn.errors import UserError, explain
from cnn.optim import schedules
from cnn.optim.schedules import Clock
from cnn.option import format_value
from cnn.runtime import own_files, processes
from cnn.runtime.terminal import Terminal
from cnn.text import quote
from cnn.training import same_data, trunk

# What a longer run may have of its own: numbers that its trunk does not depend on.
OWN = ("epochs", "decay_share", "decay_power")


@dataclasses.dataclass(frozen=True)
class _Start:
    """Where a run is taken from another one's.

    Attributes:
        path: of the checkpoint.
        stored: what it says of itself.
        options: of the run that wrote it.
        steps_per_epoch: of that run.
    """

    path: Path
    stored: Mapping[str, Any]
    options: Config
    steps_per_epoch: int

    @property
    def step(self) -> int:
        """Return the number of steps taken."""
        return int(self.path.name)


def read_options(
    source: Path, directory: Path, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options of the extended run; of one that has begun, its own.

    Args:
        source: of `--extend`.
        directory: of the new run.
        given: options of the command line by name.

    Raises:
        UserError: there is no such run, or what is given would make it another one.
    """
    if source.resolve() == directory.resolve():
        raise UserError(
            f"--extend={source} is the --workdir itself; name another one for the "
            "longer run"
        )
    if (directory / workdir.CONFIG_FILE).exists():
        stored = workdir.read_config(directory)
        if stored.get("extend") == str(source):
            return _drop_processes(stored)
    try:
        stored = workdir.read_config(source)
    except UserError as error:
        text = str(error).replace(f"--workdir={source}", f"--extend={source}")
        raise UserError(text) from None
    _check_given(source, stored, given)
    return _drop_processes(stored)


def _drop_processes(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out which of several processes had written the options."""
    return {name: x for name, x in stored.items() if name != "distributed"}


def _check_given(
    source: Path, stored: Mapping[str, Any], given: Mapping[str, Any]
) -> None:
    """Refuse options that would make the longer run another one than the run."""
    before, now = make_config(stored).to_flat(), make_config(stored, given).to_flat()
    if not any(name in given for name in OWN):
        raise UserError(
            f"--extend={source} needs the length of the new run, in all: give "
            f"--epochs=N (this one has {before['epochs']})"
        )
    allowed = {*OWN, *workdir.SPELLED, "extend"}
    for name in given.keys() - allowed:
        if list_fields()[name].metadata["changes_run"] and now[name] != before[name]:
            raise UserError(
                f"--{name}={format_value(now[name])} is not for --extend={source}, "
                f"which has {format_value(before[name])}: of what a run computes, "
                f"{', '.join(f'--{x}' for x in OWN)} alone may differ. Leave it out, "
                "or start a run of its own from the weights, with --init_from="
                f"{quote(str(source))}"
            )


def begin(config: Config, directory: Path, terminal: Terminal) -> None:
    """Give a new run what it goes on from; nothing is done for one that has begun.

    Raises:
        UserError: the run has no such checkpoint, or the new one is too short for it.
    """
    if not config.transfer.extend:
        return
    # The options are written last: without them a start that was killed is repeated.
    has_begun = (directory / workdir.CONFIG_FILE).exists()
    if not has_begun:
        source = Path(config.transfer.extend)
        if workdir.is_running(source):
            raise UserError(
                f"--extend={source} is in use by another process; wait for it"
            )
        start = _choose(source, config, terminal)
        _announce(source, start, config, terminal)
        if processes.is_first():
            _take(source, start, config, directory, terminal)
    processes.check_equal("--extend", config.transfer.extend)


def _choose(source: Path, config: Config, terminal: Terminal) -> _Start:
    """Choose the checkpoint that a run goes on from."""
    checkpoints = source / "checkpoints"
    options = make_config(_drop_processes(workdir.read_config(source)))
    newest, damaged = manifest.find_finished(checkpoints)
    if newest is None:
        raise UserError(
            f"--extend={source} has no checkpoint; train it first, with its own command"
        )
    stored = manifest.read_description(newest)
    _check_trained(source, stored)
    length = stored["data"]["parts"]["train"]["count"] // options.step.batch_size
    path = newest
    if limit := _find_limit(options, length):
        found, damaged = manifest.find_before(checkpoints, limit)
        path = found or path
    for line in damaged:
        terminal.say(line)
    start = _Start(path, manifest.read_description(path), options, length)
    if options.schedule.schedule == trunk.DECAYS:
        _check_trunk(source, start, config, " and ".join(damaged))
    elif config.train.epochs * length <= start.step:
        raise UserError(
            f"--extend={source} has taken {start.step} steps of {length} an epoch "
            f"already, and --epochs={config.train.epochs} counts all; give more"
        )
    if start.stored["records"].get("stopped_early"):
        epoch = start.step // length
        raise UserError(
            f"--extend={source} was ended by --early_stop_epochs after epoch {epoch}, "
            "as it would be whatever its --epochs; start another run from its "
            f"weights, with --init_from={quote(str(source))}"
        )
    return start


def _check_trained(source: Path, stored: Mapping[str, Any]) -> None:
    """Refuse what no run has trained, or not one that notes its data."""
    for key, what in UNTRAINED.items():
        if key in stored:
            raise UserError(
                f"--extend={source} holds {what}, which has no steps to go on with; "
                f"train from it with --init_from={quote(str(source))}"
            )
    if "data" not in stored:
        raise UserError(
            f"--extend={source} was trained by an earlier version of the code, which "
            f"did not note its data; give --init_from={quote(str(source))} "
            "--keep_optimizer"
        )


def _find_limit(options: Config, length: int) -> int:
    """Find the last step up to which any longer run is the same; 0 without."""
    steps = trunk.find_trunk(options, length)
    train = options.train
    ends_otherwise = train.recompute_statistics or (
        train.epochs % train.eval_every_epochs
    )
    # What comes at the end of a run alone would come later.
    is_end = steps == train.epochs * length
    return steps - 1 if is_end and ends_otherwise else steps


def _check_trunk(source: Path, start: _Start, config: Config, damage: str) -> None:
    """Refuse a start from behind the decay's begin, the old run's or the new one's."""
    length = start.steps_per_epoch
    before = trunk.find_trunk(start.options, length)
    if start.step > before:
        what = f"has no whole checkpoint of its first {before} steps, before its decay"
        what += f" ({damage}); put one back" if damage else "; put one back"
        if not before:
            what = "has kept nothing to go on from: its decay begins in its first epoch"
        raise UserError(
            f"--extend={source} {what}, or train from scratch with --epochs="
            f"{config.train.epochs}, or start another run from its weights, with "
            f"--init_from={quote(str(source))}"
        )
    if trunk.find_trunk(config, length) < start.step:
        least = trunk.find_shortest(config, length, start.step)
        raise UserError(
            f"--epochs={config.train.epochs} with --decay_share="
            f"{config.schedule.decay_share:g}: the decay would begin before step "
            f"{start.step} of {length} an epoch, which --extend={source} goes on from; "
            f"give --epochs={least} or more"
        )


def _announce(source: Path, start: _Start, config: Config, terminal: Terminal) -> None:
    """Print from where the run goes on, and whether it is the one of that length."""
    epochs, where = config.train.epochs, f"extends   {source} from step {start.step}"
    name = config.schedule.schedule
    why = f"--schedule={name} depends on the length of the run"
    if start.step <= _find_limit(start.options, start.steps_per_epoch):
        why = ""
    elif name in trunk.ENDLESS:
        why = "what ends a run was done at that step"
    if config.averaging.lookahead_decay:
        why = "--lookahead_decay depends on the length of the run"
    if not why:
        terminal.say(f"{where}: the run that --epochs={epochs} from the start gives")
        return
    then = _find_rate(start.options, start, start.step - 1)
    now = _find_rate(config, start, start.step)
    terminal.say(
        f"{where}: a new run, not the one that --epochs={epochs} from the start gives, "
        f"as {why}. Weights, averages, the optimizer's state and the count of steps "
        f"are the old run's; the rate is {now:.3g} of its peak, after {then:.3g}"
    )


def _find_rate(config: Config, start: _Start, step: int) -> float:
    """Find the factor of the rate at a step, without that of a plateau."""
    clock = Clock(jnp.asarray(step, jnp.int32), start.steps_per_epoch)
    numbers = config.make_numbers()
    return float(schedules.compute_schedule(config.schedule, clock, numbers))


def _take(
    source: Path, start: _Start, config: Config, directory: Path, terminal: Terminal
) -> None:
    """Copy what the old run held at its checkpoint.

    Raises:
        UserError: it cannot be read, or the new directory not be written.
    """
    try:
        workdir.write_own_model(directory, config.to_flat())
        _take_checkpoints(source, start, config, directory, terminal)
        for name in (same_data.DATASET_FILE, workdir.METRICS_FILE):
            if (source / name).exists():
                content = own_files.read(source / name)
                if name == workdir.METRICS_FILE:
                    content = content[: start.stored["records"]["metrics_bytes"]]
                atomic.write_bytes(directory / name, content)
        workdir.write_config(directory, config.to_flat())
    except OSError as error:
        raise UserError(
            f"{source} could not be copied to {directory} ({explain(error)}); the same "
            "command tries again"
        ) from None


def _take_checkpoints(
    source: Path, start: _Start, config: Config, directory: Path, terminal: Terminal
) -> None:
    """Copy the checkpoint that is gone on from, after the best one until then."""
    best_step, options = start.stored["records"]["best_step"], config.to_flat()
    best = source / "checkpoints" / str(best_step)
    if best_step >= 0 and best != start.path:
        if damage := manifest.find_damage(best):
            terminal.say(f"the best checkpoint until then is not taken along: {damage}")
        else:
            _copy_checkpoint(best, directory / "checkpoints", options)
    _copy_checkpoint(start.path, directory / "checkpoints", options)


def _copy_checkpoint(path: Path, checkpoints: Path, options: dict[str, Any]) -> None:
    """Copy a checkpoint, whole or not at all, as one of a run with other options."""
    new = checkpoints / f"{path.name}{manifest.NEW}"
    manifest.check_free(new)
    manifest.remove_unfinished(new)
    shutil.copytree(path, new)
    if damage := manifest.find_damage(new):
        raise UserError(f"{path} could not be copied: {damage}")
    described = manifest.read_description(path) | {"options": options}
    (new / manifest.MANIFEST).unlink()
    atomic.write_json(new / manifest.DESCRIPTION, described)
    manifest.finish(new)
