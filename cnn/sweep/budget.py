"""A sweep in some minutes: how many draws `--minutes` are.

The first draws run in two equal rounds: the first compiles, and the second says how
many more rounds end in time. Their trials count as all others: a draw depends on its
number alone, so that the sweep is the one of that many `--trials`, which is kept in its
config.json and taken when it is resumed.
"""

from pathlib import Path

from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.sweep import searches
from cnn.sweep.session import Session
from cnn.sweep.space import Space
from cnn.sweep.trials import Trial, group_trials, join_ended, make_trials
from cnn.training import budget

# Where --trials_at_once does not say; in a loop a trial gains nothing from others.
DRAWS_AT_ONCE, IN_A_LOOP = 8, 1


def prepare(config: Config, points: Space, home: Path) -> Config:
    """Return the options with how many draws run at once, and how many were decided.

    Args:
        home: of the sweep, or of none.

    Raises:
        UserError: the space has nothing to draw.
    """
    if not points.drawn:
        raise UserError(
            f"--minutes={config.train.minutes:g} counts draws, and --sweep has nothing "
            "to draw; leave it out, or use uniform(a,b), loguniform(a,b) or choice(…)"
        )
    try:
        decided = workdir.read_config(home).get("trials", 0)
    except UserError:
        decided = 0
    draws = IN_A_LOOP if config.sweep.executor == "loop" else DRAWS_AT_ONCE
    at_once = config.sweep.trials_at_once or draws * points.count_points()
    return config.change({"trials": decided, "trials_at_once": at_once})


def plan_round(config: Config, points: Space, number: int) -> list[Trial]:
    """Make the trials of the first rounds of draws.

    Args:
        config: as of `prepare`.
        number: how many rounds, from 1.
    """
    draws = number * _count_draws(config, points)
    return make_trials(points, config.change({"trials": draws}))[0]


def _count_draws(config: Config, points: Space) -> int:
    """Count the draws that run at once."""
    return max(1, config.sweep.trials_at_once // points.count_points())


def fix_trials(session: Session, points: Space, began: float) -> list[Trial]:
    """Run two rounds of draws, and fix how many draws the sweep has.

    Args:
        session: open; its options get the number, as does its config.json.
        began: when the command began, by `budget.clock`.

    Returns:
        Every trial of the sweep.

    Raises:
        Interrupted: a signal arrived; the trials that have ended are saved.
    """
    config, most = session.config, 60 * session.config.train.minutes
    at_once, rounds, spent, took = _count_draws(config, points), 0, 0.0, []
    largest = config.sweep.max_trials // (points.count_points() * at_once)
    while rounds < largest and len(took) < 2 and spent + sum(took[:1]) <= most:
        rounds, before, ended = rounds + 1, budget.clock(), len(session.rows)
        planned = plan_round(config, points, rounds)
        planned, _ = join_ended(planned, session.rows, config)
        searches.run_grid(session, group_trials(planned))
        spent = budget.clock() - began
        # One whose trials have ended before, or equal others, measures nothing.
        if 2 * (len(session.rows) - ended) > at_once * points.count_points():
            took.append(budget.clock() - before)
    more = max(0, int((most - spent) // took[1])) if len(took) == 2 else 0
    draws = min(rounds + more, largest) * at_once
    session.config = config.change({"trials": draws})
    session.write_config(session.home)
    each = f", {took[1]:.3g} s for each {at_once} more" if len(took) == 2 else ""
    session.terminal.say(
        f"budget    --minutes={config.train.minutes:g} was decided to be the sweep of "
        f"--trials={draws}: {spent:.1f} s for {rounds * at_once}{each}"
    )
    planned, _ = make_trials(points, session.config)
    return join_ended(planned, session.rows, session.config)[0]
