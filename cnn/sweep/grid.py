"""All trials of a space, group by group, batch by batch."""

import sys
from collections.abc import Sequence

import jax

from cnn.errors import UserError
from cnn.sweep.choose import Executor
from cnn.sweep.live import LiveTable
from cnn.sweep.session import Session
from cnn.sweep.trials import Trial


def run_grid(session: Session, groups: Sequence[Sequence[Trial]]) -> None:
    """Run every trial that has no record yet; each group is compiled once.

    Args:
        session: the sweep.
        groups: all of its trials, by program.

    Raises:
        Interrupted: a signal arrived; the trials that have ended are recorded.
    """
    planned = [trial for group in groups for trial in group]
    show = LiveTable(session.terminal, len(planned))
    for group in groups:
        done = {record["trial"] for record in session.records}
        pending = [trial for trial in group if trial.number not in done]
        if not pending:
            continue
        executor = session.make_executor(group)
        show.start()
        try:
            for i in range(0, len(pending), executor.width):
                some = pending[i : i + executor.width]
                run_batch(session, executor, some, planned, show)
        finally:
            show.stop()


def run_batch(
    session: Session,
    executor: Executor,
    some: Sequence[Trial],
    planned: Sequence[Trial],
    show: LiveTable,
) -> None:
    """Run some trials of a group to their end and record them.

    Raises:
        UserError: several at once do not fit in memory.
        Interrupted: a signal arrived.
    """
    try:
        batch = session.start_batch(executor, some)
        batch.advance(sys.maxsize, lambda batch: show.show(batch, session.records))
        session.record(batch, planned)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        if len(some) > 1:
            raise UserError(
                f"{executor.width} trials at once do not fit in memory; lower "
                "--trials_at_once, or use --executor=loop"
            ) from None
        session.record_failed(some[0], "it does not fit in memory")
