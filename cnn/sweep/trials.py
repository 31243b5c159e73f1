"""Trials, what makes two of them the same one, and their groups.

A trial is known by its options, not by its number or the text that gave it: points
that would be the same run are one trial, and a sweep that is resumed, in other words or
grown, finds the trials that have ended. The trials of a group run in one program.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cnn import condition
from cnn.config import Config, list_conditions
from cnn.errors import UserError
from cnn.optim import schedules
from cnn.option import format_value
from cnn.runtime.terminal import Terminal
from cnn.sweep.options import SweepOptions
from cnn.sweep.space import Space
from cnn.training import course

MANY_PROGRAMS = 20
_MANY_POINTS = 10_000  # up to which equal ones are looked for before a refusal


@dataclasses.dataclass(frozen=True)
class Trial:
    """A setting with a seed.

    Attributes:
        number: from 0.
        options: of the space, by flag name, `seed` among them; those that its run
            reads.
        config: all options, as the solo run with the same flags has them.
        identity: equal for trials that are the same run.
    """

    number: int
    options: Mapping[str, Any]
    config: Config
    identity: str

    @property
    def setting(self) -> tuple:
        """Return its options without the seed."""
        return make_setting(self.options)


def make_setting(options: Mapping[str, Any]) -> tuple:
    """Return options without the seed, hashable, in whatever order they are given."""
    return tuple(
        (name, tuple(value) if isinstance(value, list) else value)
        for name, value in sorted(options.items())
        if name != "seed"
    )


def make_trial(number: int, options: Mapping[str, Any], config: Config) -> Trial:
    """Make a trial of the options of a sweep.

    Raises:
        UserError: its options are out of range, contradict each other, or name what
            comes after its end.
    """
    plain = dataclasses.replace(config.train, minutes=0.0)  # which are the sweep's
    alone = dataclasses.replace(config, sweep=Config().sweep, train=plain)
    whole = alone.change(options)
    unread = whole.find_unread(options, "sweep")
    read = {name: value for name, value in options.items() if name not in unread}
    if len(read) < len(options):
        whole = alone.change(read)
    course.check(whole)
    schedules.check(whole)
    return Trial(number, read, whole, json.dumps(whole.select_run_options()))


def make_trials(space: Space, config: Config) -> tuple[list[Trial], int]:
    """Make every trial of a space, one for all points that are the same run.

    Returns:
        The trials, and how many points there were.

    Raises:
        UserError: there are more than --max_trials, the number of draws is missing or
            has nothing to draw, a trial's options are not allowed, or an option is
            read by no trial.
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
    trials: dict[str, Trial] = {}
    if count <= max(options.max_trials, _MANY_POINTS):
        for point in space.iterate(options.trials, options.sweep_seed):
            trial = make_trial(len(trials), point, config)
            trials.setdefault(trial.identity, trial)
    found = len(trials) or count
    if found > options.max_trials:
        raise UserError(
            f"--sweep has {found} trials, more than --max_trials="
            f"{options.max_trials}; make it smaller, or raise that"
        )
    return list(trials.values()), count


def join_ended(
    trials: Sequence[Trial], ended: Sequence[Mapping[str, Any]], config: Config
) -> tuple[list[Trial], list[dict[str, Any]]]:
    """Find the trials of a sweep that an earlier start of it has ended.

    Args:
        trials: of the sweep, in its order.
        ended: rows of the table; some may be of trials that are no longer asked for.
        config: the options that all trials share.

    Returns:
        The trials, those that have ended with their old numbers and the others with
        what is free, and the rows; all have the same options, whatever was swept when.

    Raises:
        UserError: none of them is of this sweep.
    """
    if not ended:
        return list(trials), []
    names = dict.fromkeys(n for one in trials for n in one.options)
    names |= dict.fromkeys(n for row in ended for n in row["options"])
    order = sorted(names, key=lambda name: name == "seed")
    places = {trial.identity: i for i, trial in enumerate(trials)}
    known: dict[int, Trial] = {}
    rows = []
    for row in ended:
        old = make_trial(row["trial"], row["options"], config)
        place = places.get(old.identity, -1 - len(rows))
        if place not in known:
            known[place] = old
            rows.append({**row, "options": _select_options(old, order)})
    if not any(place in known for place in range(len(trials))):
        shown = " ".join(
            f"{n}={format_value(x)}" for n, x in rows[0]["options"].items()
        )
        raise UserError(
            f"this sweep has ended trials, as {shown}, and --sweep has none of them. A "
            "sweep may grow: give one of its values too, or another --workdir to start "
            "from scratch"
        )
    taken = {row["trial"] for row in ended}
    free = (number for number in itertools.count() if number not in taken)
    joined = []
    for place, trial in enumerate(trials):
        number = known[place].number if place in known else next(free)
        options = _select_options(trial, order)
        joined.append(dataclasses.replace(trial, number=number, options=options))
    return joined, rows


def _select_options(trial: Trial, names: Sequence[str]) -> dict[str, Any]:
    """Return those of some options that a trial's run reads."""
    flat, unread = trial.config.to_flat(), trial.config.find_unread(names, "sweep")
    return {name: flat[name] for name in names if name not in unread}


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


def check_read(given: Mapping[str, Any], config: Config, space: Space) -> None:
    """Refuse options, given or swept, that no point of a space reads.

    Args:
        given: options of the command line, by name.
        config: of the sweep.

    Raises:
        UserError: naming the first, and the choice that would read it.
    """
    own = {field.name for field in dataclasses.fields(SweepOptions)}
    config.check_read({n: x for n, x in given.items() if n in own}, "sweep")
    shared = {n: x for n, x in given.items() if n not in own}
    swept = {axis.name: (*axis.values, axis.low)[0] for axis in space.axes}
    for name, value in {**shared, **swept}.items():
        if not _is_ever_read(name, config, space):
            config.change(swept).check_read({name: value}, "sweep")


def _is_ever_read(name: str, config: Config, space: Space) -> bool:
    """Return whether any point of a space reads an option."""
    conditions = list_conditions()
    names = condition.list_names(name, conditions)
    axes = [axis for axis in space.axes if axis.name in names]
    flat = config.to_flat() | {"mode": "sweep"}
    return any(
        condition.is_read(
            name,
            conditions,
            flat | {a.name: x for a, x in zip(axes, point, strict=True)},
        )
        for point in itertools.product(*(a.values or (a.low, a.high) for a in axes))
    )


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
