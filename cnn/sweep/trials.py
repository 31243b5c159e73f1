"""Trials and their groups: the trials of a group run in one program."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from cnn.config import Config
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.sweep.options import SweepOptions
from cnn.sweep.space import Space
from cnn.training import course

MANY_PROGRAMS = 20


@dataclasses.dataclass(frozen=True)
class Trial:
    """A setting with a seed.

    Attributes:
        number: from 0.
        options: of the space, by flag name, `seed` among them.
        config: all options, as the solo run with the same flags has them.
    """

    number: int
    options: Mapping[str, Any]
    config: Config

    @property
    def setting(self) -> tuple:
        """Return its options without the seed."""
        return make_setting(self.options)


def make_setting(options: Mapping[str, Any]) -> tuple:
    """Return options without the seed, hashable."""
    return tuple(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in options.items()
        if name != "seed"
    )


def make_trial(number: int, options: Mapping[str, Any], config: Config) -> Trial:
    """Make a trial of the options of a sweep.

    Raises:
        UserError: its options are out of range, contradict each other, or name what
            comes after its end.
    """
    alone = dataclasses.replace(config, sweep=Config().sweep).change(options)
    course.check(alone)
    return Trial(number, options, alone)


def make_trials(space: Space, config: Config) -> list[Trial]:
    """Make every trial of a space.

    Raises:
        UserError: there are more than --max_trials, the number of draws is missing or
            has nothing to draw, or a trial's options are not allowed.
    """
    options = config.sweep
    drawn = ", ".join(axis.name for axis in space.drawn)
    if space.drawn and not options.trials:
        raise UserError(f"--sweep draws {drawn}; say how many times with --trials=N")
    if options.trials and not space.drawn:
        raise UserError(
            f"--trials={options.trials} counts draws, and --sweep has nothing to draw; "
            "leave it out, or use uniform(a,b), loguniform(a,b) or choice(…)"
        )
    count = space.count_points() * (options.trials or 1)
    if count > options.max_trials:
        raise UserError(
            f"--sweep has {count} trials, more than --max_trials="
            f"{options.max_trials}; make it smaller, or raise that"
        )
    points = space.iterate(options.trials, options.sweep_seed)
    return [make_trial(i, point, config) for i, point in enumerate(points)]


def group_trials(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Group trials by program, in the order of their first trials."""
    groups: dict[Any, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.config.make_program_key(), []).append(trial)
    return list(groups.values())


def make_corners(space: Space, config: Config) -> list[Trial]:
    """Make trials that cover every value and every program of a space.

    They are checked before a search whose points are not known beforehand.
    """
    ends = {axis.name: axis.values or (axis.low, axis.high) for axis in space.axes}
    first = {name: values[0] for name, values in ends.items()}
    alone = {
        name: [make_trial(0, first | {name: value}, config) for value in values]
        for name, values in ends.items()
    }
    static = {
        name: ends[name]
        for name, some in alone.items()
        if len({trial.config.make_program_key() for trial in some}) > 1
    }
    together = [
        make_trial(0, first | dict(zip(static, values, strict=True)), config)
        for values in itertools.product(*static.values())
    ]
    return [trial for some in alone.values() for trial in some] + together


def check_read(
    given: Mapping[str, Any], config: Config, trials: Sequence[Trial]
) -> None:
    """Refuse options, given or swept, that no trial reads.

    Args:
        given: options of the command line, by name.
        config: of the sweep.

    Raises:
        UserError: naming the first, and the choice that would read it.
    """
    own = {field.name for field in dataclasses.fields(SweepOptions)}
    config.check_read({n: x for n, x in given.items() if n in own}, "sweep")
    shared = {n: x for n, x in given.items() if n not in own}
    for name, value in {**shared, **trials[0].options}.items():
        if all(trial.config.find_unread([name], "sweep") for trial in trials):
            trials[0].config.check_read({name: value}, "sweep")


def announce_groups(
    groups: Sequence[Sequence[Trial]], count: int, terminal: Terminal
) -> None:
    """Print how many trials and programs there are; warn of many programs."""
    terminal.say(f"trials    {count} in {len(groups)} compiled program(s)")
    if len(groups) > MANY_PROGRAMS:
        config = groups[0][0].config
        static = {
            field.name
            for group in dataclasses.fields(config)
            for field in dataclasses.fields(group.type)
            if field.metadata["kind"] == "static"
        }
        names = [name for name in groups[0][0].options if name in static]
        terminal.say(
            f"warning: {len(groups)} programs must be compiled, one for each choice of "
            f"{', '.join(names)}; numbers such as learning_rate share one"
        )
