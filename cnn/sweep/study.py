"""An Optuna study: where settings are asked for and told of, by any number of workers.

A study's trial is a setting; its value is the mean over seeds. Optuna's numbers are
handed out once, so no setting is run twice. A worker leaves signs of life; the running
trials of one that leaves none are failed and asked for again.

Source: https://optuna.readthedocs.io (ask and tell)
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from cnn.options import format_value
from cnn.sweep.space import Axis, Space, round_value

if TYPE_CHECKING:
    import optuna

_BEATS = 6


class Study:
    """A worker's view of a study."""

    def __init__(self, study: "optuna.Study", space: Space, worker: str) -> None:
        """Ask on behalf of a worker."""
        self._study, self._space, self._worker = study, space, worker
        self._axes = [axis for axis in space.axes if axis.name != "seed"]
        self._mine: dict[int, optuna.Trial] = {}
        self._seen: dict[str, tuple[Any, float]] = {}

    def ask(self, total: int) -> tuple[int, dict[str, Any]] | None:
        """Ask for one more setting.

        Args:
            total: the settings that the study shall have.

        Returns:
            Its number and its options without seed; None when there are enough.
        """
        from optuna.trial import TrialState

        # What waits to run again is the first that is asked for.
        if self.count(lambda state: state != TrialState.WAITING) >= total:
            return None
        distributions = {axis.name: make_distribution(axis) for axis in self._axes}
        asked = self._study.ask(distributions)
        asked.set_user_attr("worker", self._worker)
        # Another worker may have asked in the same moment: the lower number stays.
        if self.count(lambda state: True, before=asked.number) >= total:
            self._study.tell(asked, state=TrialState.FAIL)
            return None
        self._mine[asked.number] = asked
        values = {
            axis.name: _decode(axis, asked.params[axis.name]) for axis in self._axes
        }
        return asked.number, values

    def count(
        self, is_counted: Callable[[Any], bool], before: int | None = None
    ) -> int:
        """Count the settings that are under way or have ended for good.

        Args:
            is_counted: of a trial's state.
            before: only those with a lower number.
        """
        return sum(
            is_counted(trial.state) and not _is_void(trial)
            for trial in self._study.get_trials(deepcopy=False)
            if before is None or trial.number < before
        )

    def count_ended(self) -> int:
        """Count the settings that have ended for good."""
        return self.count(lambda state: state.is_finished())

    def list_ended(self) -> set[int]:
        """List the numbers of the settings that have ended for good."""
        trials = self._study.get_trials(deepcopy=False)
        return {t.number for t in trials if t.state.is_finished() and not _is_void(t)}

    def report(self, number: int, value: float, epoch: int) -> bool:
        """Report a setting's metric after an epoch; returns whether to prune it."""
        with contextlib.suppress(RuntimeError):  # it was given to others meanwhile
            self._mine[number].report(value, epoch)
        return self._mine[number].should_prune()

    def tell(self, number: int, status: str, reason: str, value: float | None) -> None:
        """Tell how a setting ended: `finished` (with its value), `pruned`, `failed`."""
        from optuna.trial import TrialState

        asked = self._mine.pop(number)
        if reason:
            with contextlib.suppress(RuntimeError):
                asked.set_user_attr("reason", reason)
        states = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        # One that was given to others meanwhile is theirs.
        self._study.tell(asked, value, states.get(status), skip_if_finished=True)

    def release(self) -> None:
        """Give the settings that were asked for and not told to the next that asks."""
        for number in list(self._mine):
            self._ask_again(self._mine.pop(number)._trial_id)

    def take_over(self, timeout: float) -> int:
        """Fail the running settings of workers without a sign of life; asked again.

        Args:
            timeout: seconds, on this machine's clock, that a sign must have been there
                unchanged.

        Returns:
            How many there were.
        """
        beats, now, count = self._study.user_attrs, time.monotonic(), 0
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.name != "RUNNING" or trial.number in self._mine:
                continue
            worker = trial.user_attrs.get("worker", f"none of {trial.number}")
            beat = beats.get(f"beat of {worker}")
            if (
                self._seen.get(worker, (None, 0.0))[0] != beat
                or worker not in self._seen
            ):
                self._seen[worker] = beat, now
            # A worker of this name that ran before this one is dead: names are locked.
            is_own = worker == self._worker
            if is_own or now - self._seen[worker][1] > timeout:
                count += self._ask_again(trial._trial_id)
        return count

    def _ask_again(self, trial_id: int) -> bool:
        """Fail a trial and queue its options; only one worker succeeds in it."""
        from optuna.trial import TrialState

        storage = self._study._storage
        trial = storage.get_trial(trial_id)
        try:
            storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except RuntimeError:
            return False
        self._study.enqueue_trial(trial.params)
        return True

    @contextlib.contextmanager
    def show_life(self, timeout: float) -> Iterator[None]:
        """Leave signs of life meanwhile, several within a timeout in seconds."""
        ended = threading.Event()

        def beat() -> None:
            number = time.time()
            while True:
                number += 1
                self._study.set_user_attr(f"beat of {self._worker}", number)
                if ended.wait(timeout / _BEATS):
                    return

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def make_distribution(axis: Axis) -> Any:
    """Make what Optuna draws an axis from; listed values are drawn by their text."""
    from optuna import distributions

    if axis.values:
        texts = [format_value(value) for value in axis.values]
        return distributions.CategoricalDistribution(texts)
    is_log = axis.kind == "loguniform"
    if axis.is_whole:
        low, high = int(axis.low), int(axis.high)
        return distributions.IntDistribution(low, high, log=is_log)
    return distributions.FloatDistribution(axis.low, axis.high, log=is_log)


def _decode(axis: Axis, drawn: Any) -> Any:
    """Return an option's value of what Optuna drew."""
    if not axis.values:
        return drawn if axis.is_whole else round_value(drawn)
    return {format_value(value): value for value in axis.values}[drawn]


def _is_void(trial: "optuna.trial.FrozenTrial") -> bool:
    """Return whether a trial was failed by us, and not by its own numbers."""
    return trial.state.name == "FAIL" and "reason" not in trial.user_attrs
