"""An Optuna study, which any number of workers ask for settings and report results to.

An Optuna trial is a setting here; its value is the mean over seeds. Optuna gives each
number to one worker, so no setting runs twice; one that is drawn again gets the result
of the first. A worker leaves signs of life; the running settings of a worker without
one are failed and queued again. What is drawn depends on --sweep_seed, on how many were
drawn before and on what has been reported: with one worker it is the same every time.

A worker may die, or its storage stop to answer, between any two calls. A setting that
is given up is marked, then failed, then queued as one that says which it repeats;
whoever finds the last step missing makes it, and where several did the first counts.

Source: https://optuna.readthedocs.io (ask and tell)
"""

import contextlib
import math
import re
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.option import format_value
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep import trials
from cnn.sweep.options import SweepOptions
from cnn.sweep.space import Axis, Space
from cnn.sweep.storage import PatientStorage, open_storage
from cnn.training import tasks

if TYPE_CHECKING:
    import optuna

# The longest wait for a storage that does not answer, in times of --worker_timeout.
PATIENCE = 10
_ATTEMPTS = 5
_BEATS = 6
_LAST_SECONDS = 5.0  # for a sign of life under way
# Attributes of trials: of which one it has the result, that it is given up, which one
# it repeats, and that it is one too many.
COPY, GIVEN_UP, REPEATS, SURPLUS = "same as", "given up", "repeats", "surplus"
# What a worker finds of a setting that has ended: status, reason, value, results.
Ended = tuple[str, str, float | None, Mapping[str, Any]]


class Study:
    """A worker's view of a study."""

    def __init__(
        self,
        study: "optuna.Study",
        storage: PatientStorage,
        space: Space,
        worker: str,
        seed: int,
        identify: Callable[[Mapping[str, Any]], str],
    ) -> None:
        """Ask on behalf of a worker.

        Args:
            storage: of the study.
            seed: of what is drawn.
            identify: returns what is equal for options that are the same setting.
        """
        self._study, self._worker, self._seed = study, worker, seed
        self._storage, self._outages = storage, 0
        self._axes = [axis for axis in space.axes if axis.name != "seed"]
        self._identify = identify
        self._identities: dict[int, str] = {}
        self._mine: dict[int, optuna.Trial] = {}
        self._seen: dict[str, tuple[Any, float]] = {}

    def ask(self, total: int) -> tuple[int, dict[str, Any]] | None:
        """Ask for one more setting.

        Args:
            total: how many settings the study will have.

        Returns:
            Its number and its options without seed; None when there are enough.
        """
        from optuna.trial import TrialState

        while True:
            # Optuna hands out queued settings first.
            if sum(t.state != TrialState.WAITING for t in self._list_trials()) >= total:
                return None
            asked = self._study.ask()
            asked.set_user_attr("worker", self._worker)
            listed = [trial.number for trial in self._list_trials()]
            # Another worker may have asked at the same moment: the lower numbers stay.
            if asked.number in listed and listed.index(asked.number) < total:
                break
            asked.set_user_attr(SURPLUS, True)
            self._study.tell(asked, state=TrialState.FAIL, skip_if_finished=True)
        self._mine[asked.number] = asked
        self._study.sampler = self._make_sampler(asked.number)
        for axis in self._axes:
            _suggest(asked, axis)
        return asked.number, self._decode(asked.params)

    def _make_sampler(self, number: int) -> Any:
        """Make the sampler of one setting; what was queued again was not drawn.

        Nor was what was given up before it had all its values: what repeats it draws
        what it would have drawn.
        """
        import optuna

        everyone = self._study.get_trials(deepcopy=False)
        while (
            not everyone[number].system_attrs.get("fixed_params")
            and REPEATS in everyone[number].user_attrs
        ):
            number = everyone[number].user_attrs[REPEATS]
        drawn = sum(
            trial.number < number
            and not trial.system_attrs.get("fixed_params")
            and (self._is_whole(trial) or trial.state.name == "RUNNING")
            for trial in everyone
        )
        seed = int(np.random.SeedSequence([self._seed, drawn]).generate_state(1)[0])
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {axis.name: _decode(axis, params[axis.name]) for axis in self._axes}

    def _is_whole(self, trial: "optuna.trial.FrozenTrial") -> bool:
        """Return whether a trial has the values of all axes."""
        return len(trial.params) == len(self._axes)

    def list_ended(self) -> set[int]:
        """List the numbers of the settings that have ended for good."""
        return {t.number for t in self._list_trials() if t.state.is_finished()}

    def list_results(self) -> dict[int, dict[str, Any]]:
        """List the options of the settings whose results some worker has."""
        return {
            trial.number: self._decode(trial.params)
            for trial in self._list_trials()
            if trial.state.is_finished() and "directory" in trial.user_attrs
        }

    def count_copies(self) -> int:
        """Count the settings that have the result of an equal one."""
        return sum(COPY in trial.user_attrs for trial in self._list_trials())

    def _list_trials(self) -> list["optuna.trial.FrozenTrial"]:
        """List Optuna's trials without those that are repeated by another, or twice."""
        attributes, repeated, listed = self._study.user_attrs, set(), []
        for trial in self._study.get_trials(deepcopy=False):
            known = trial.user_attrs
            is_second = known.get(REPEATS) in repeated
            if REPEATS in known:
                repeated.add(known[REPEATS])
            is_dropped = trial.state.name == "FAIL" and (
                "reason" not in known or GIVEN_UP in known
            )
            is_repeated = _retried(trial.number) in attributes
            if not (is_second or is_dropped or is_repeated or SURPLUS in known):
                listed.append(trial)
        return listed

    def settle(self, number: int) -> bool | None:
        """Give one of this worker's settings the result of an equal one, if it can be.

        Returns:
            Whether it has ended thus; None while an equal one runs, here or elsewhere.
        """
        wanted = self._identities.setdefault(
            number, self._identify(self._decode(self._mine[number].params))
        )
        for trial in self._list_trials():
            if trial.number == number:
                return False
            if self._is_whole(trial) and self._find_identity(trial) == wanted:
                if not trial.state.is_finished():
                    return None
                status = {"PRUNED": "pruned", "FAIL": "failed"}.get(
                    trial.state.name, ""
                )
                reason = trial.user_attrs.get("reason", "")
                value = None if status else trial.value
                self.tell(number, status, reason, value, {COPY: trial.number})
                return True
        return False

    def _find_identity(self, trial: "optuna.trial.FrozenTrial") -> str:
        if trial.number not in self._identities:
            found = self._identify(self._decode(trial.params))
            self._identities[trial.number] = found
        return self._identities[trial.number]

    def retry_failed(self) -> int:
        """Queue the settings that have failed again; returns how many there were."""
        failed = [t for t in self._list_trials() if t.state.name == "FAIL"]
        self._repeat(failed)
        return len(failed)

    def retry_lost(self, home: str, numbers: Collection[int]) -> int:
        """Queue settings again whose results were in a directory and are lost.

        Args:
            home: the directory, as `tell` has had it.
            numbers: of the settings whose results are there.

        Returns:
            How many are lost.
        """
        lost = [
            trial
            for trial in self._list_trials()
            if trial.state.is_finished()
            and trial.user_attrs.get("directory") == home
            and trial.number not in numbers
        ]
        self._repeat(lost)
        return len(lost)

    def _repeat(self, ended: Sequence["optuna.trial.FrozenTrial"]) -> None:
        for trial in ended:
            self._study.set_user_attr(_retried(trial.number), True)
        self._queue_repeats()

    def _queue_repeats(self) -> None:
        """Queue what is to run again and has not been queued yet."""
        attributes = self._study.user_attrs
        everyone = self._study.get_trials(deepcopy=False)
        queued = {trial.user_attrs.get(REPEATS) for trial in everyone}
        for trial in everyone:
            is_given_up = trial.state.name == "FAIL" and GIVEN_UP in trial.user_attrs
            is_due = is_given_up or _retried(trial.number) in attributes
            if is_due and trial.number not in queued:
                params = trial.params if self._is_whole(trial) else {}
                about = {REPEATS: trial.number}
                self._study.enqueue_trial(params, user_attrs=about)

    def report(self, number: int, value: float, epoch: int) -> bool:
        """Report a setting's metric after an epoch; returns whether to prune it."""
        with contextlib.suppress(RuntimeError):  # another worker has taken it over
            self._mine[number].report(value, epoch)
        return self._mine[number].should_prune()

    def tell(
        self,
        number: int,
        status: str,
        reason: str,
        value: float | None,
        results: Mapping[str, Any] | None = None,
    ) -> None:
        """Report a setting as `finished` (with its value), `pruned` or `failed`.

        Args:
            results: what a dashboard is to show of it besides.
        """
        from optuna.trial import TrialState

        if value is not None and not math.isfinite(value):
            status, reason, value = "failed", f"its value is {value}", None
        asked = self._mine.pop(number)
        with contextlib.suppress(RuntimeError):  # another worker has taken it over
            for name, result in (results or {}).items():
                asked.set_user_attr(name, result)
            if reason:
                asked.set_user_attr("reason", reason)
        states = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
        # One that another worker has taken over stays that worker's, and one that has
        # been told when the answer was lost stays as it is.
        with contextlib.suppress(RuntimeError):
            self._study.tell(asked, value, states.get(status), skip_if_finished=True)

    def release(self) -> None:
        """Queue this worker's unfinished settings again, if the storage answers.

        Else other workers take them over, as those of one that has died.
        """
        self._storage.is_ending = True
        try:
            for number in list(self._mine):
                self._give_up(self._mine.pop(number)._trial_id)
            self._queue_repeats()
        except UserError:
            pass
        finally:
            self._storage.is_ending = False

    def take_over(
        self,
        timeout: float,
        find_ended: Callable[..., Ended | None] = lambda worker, number, options: None,
    ) -> int:
        """Queue the running settings of workers without a sign of life again.

        Args:
            timeout: seconds, by this machine's clock, without a new sign.
            find_ended: from a worker, the number of a setting and its options to how
                it has ended, as its worker wrote before it died; None: it has not.

        Returns:
            How many there were.
        """
        if self._outages != self._storage.outages:
            # Nobody could leave a sign meanwhile.
            self._outages = self._storage.outages
            self._seen.clear()
        beats, now, count = self._study.user_attrs, time.monotonic(), 0
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.name != "RUNNING" or trial.number in self._mine:
                continue
            worker = trial.user_attrs.get("worker", f"none of {trial.number}")
            beat = beats.get(f"beat of {worker}")
            if worker not in self._seen or self._seen[worker][0] != beat:
                self._seen[worker] = beat, now
            # An earlier worker of this name is dead: names are locked.
            is_own = worker == self._worker
            if is_own or now - self._seen[worker][1] > timeout:
                whole = self._decode(trial.params) if self._is_whole(trial) else None
                if whole and (ended := find_ended(worker, trial.number, whole)):
                    self._mine[trial.number] = self._adopt(trial._trial_id)
                    self.tell(trial.number, *ended)
                else:
                    count += self._give_up(trial._trial_id)
        self._queue_repeats()
        return count

    def _adopt(self, trial_id: int) -> "optuna.Trial":
        """Return a trial that was asked by another worker, or an earlier one."""
        import optuna

        return optuna.Trial(self._study, trial_id)

    def _give_up(self, trial_id: int) -> bool:
        """Fail a trial that is to be queued again; of several workers one succeeds."""
        from optuna.trial import TrialState

        storage = self._study._storage
        try:
            storage.set_trial_user_attr(trial_id, GIVEN_UP, True)
            storage.set_trial_state_values(trial_id, TrialState.FAIL)
        except RuntimeError:
            return False
        return True

    @contextlib.contextmanager
    def show_life(self, timeout: float) -> Iterator[None]:
        """Leave signs of life inside, several within `timeout` seconds."""
        ended = threading.Event()

        def beat() -> None:
            number = time.time()
            while True:
                number += 1
                with contextlib.suppress(Exception):  # the next one is soon
                    self._study.set_user_attr(f"beat of {self._worker}", number)
                if ended.wait(timeout / _BEATS):
                    return

        thread = threading.Thread(target=beat, name="beat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(_LAST_SECONDS)


def _retried(number: int) -> str:
    return f"retried {number}"


def _suggest(asked: "optuna.Trial", axis: Axis) -> None:
    """Let Optuna draw the value of an axis; listed values are known by their text."""
    if axis.values:
        asked.suggest_categorical(axis.name, [format_value(x) for x in axis.values])
        return
    suggest = asked.suggest_int if axis.is_whole else asked.suggest_float
    suggest(axis.name, axis.low, axis.high, log=axis.kind == "loguniform")


def _decode(axis: Axis, drawn: Any) -> Any:
    """Return an option's value of what Optuna drew."""
    if not axis.values:
        return drawn if axis.is_whole else axis.round(drawn)
    return {format_value(value): value for value in axis.values}[drawn]


def open_study(
    config: Config,
    space: Space,
    home: Path,
    worker: str,
    terminal: Terminal | None = None,
    stop: Stop | None = None,
) -> Study:
    """Join the study of a sweep, or create it.

    Args:
        home: where the journal is when --storage is empty.
        worker: the name of this one.
        terminal: where it is said that the storage is waited for.
        stop: looked at meanwhile.

    Raises:
        UserError: Optuna is not installed, the storage does not answer, or its study
            is of another space.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("--search=optuna needs Optuna: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = space.sort()
    options, wanted = config.sweep, describe_study(config, space)
    for attempt in range(_ATTEMPTS):
        try:
            storage = _wait_for(options, home, terminal, stop)
            study = _join(config, storage)
            if study.user_attrs.get("sweep") is None:
                _name_metric(study, config.train.select_by)
                study.set_user_attr("sweep", wanted)
            stored = study.user_attrs["sweep"]
            break
        except UserError:
            raise
        except Exception as error:
            # Workers that start at once may all be creating the tables.
            is_race = type(error).__name__ in ("IntegrityError", "ProgrammingError")
            if is_race and attempt + 1 < _ATTEMPTS:
                time.sleep(1 + attempt)
                continue
            first = str(error).strip().split("\n")[0]
            raise UserError(
                f"{_name_storage(options.storage, home)} does not answer "
                f"({type(error).__name__}: {first}); check the address, that the "
                "server runs and that its driver is installed"
            ) from None
    if _leave_spelling(stored) != wanted:
        raise UserError(
            f"--study={options.study} of this storage is of another sweep, "
            f"{stored['space']} (now {wanted['space']}), or of other options. A study "
            "grows by --trials alone: it learns from settings of one space, each "
            "judged by the same seeds; give its own --sweep and options, or another "
            "--study and --workdir"
        )

    def identify(values: Mapping[str, Any]) -> str:
        try:
            return trials.make_trial(0, values, config).identity
        except UserError:  # told when it would run
            return str(sorted(values.items()))

    return Study(study, storage, space, worker, options.sweep_seed, identify)


def _wait_for(
    options: SweepOptions, home: Path, terminal: Terminal | None, stop: Stop | None
) -> PatientStorage:
    """Open the storage of a study; from then on it is waited for."""
    return PatientStorage(
        open_storage(options.storage, home),
        _name_storage(options.storage, home),
        PATIENCE * options.worker_timeout,
        terminal or Terminal(),
        stop or Stop(),
    )


def _name_metric(study: "optuna.Study", select_by: str) -> None:
    """Name the metric for dashboards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls it experimental
        study.set_metric_names([f"validation_{select_by}"])


def _join(config: Config, storage: PatientStorage) -> Any:
    import optuna

    options = config.sweep
    return optuna.create_study(
        storage=storage,
        pruner=_make_pruner(options.pruner, config.train.epochs),
        study_name=options.study,
        direction="minimize" if config.train.select_by == "loss" else "maximize",
        load_if_exists=True,
    )


def describe_study(config: Config, space: Space) -> dict[str, Any]:
    """Describe a study by its space and its options that are not the defaults.

    Data and source are not described: the sweep compares what they hold.
    """
    defaults = tasks.list_defaults(config)
    given = config.select_run_options().items()
    description = {
        "space": "; ".join(_format_axis(axis) for axis in space.axes),
        "options": {name: value for name, value in given if value != defaults[name]},
    }
    return _leave_spelling(description)


def _leave_spelling(description: dict[str, Any]) -> dict[str, Any]:
    options = description["options"].items()
    kept = {name: value for name, value in options if name not in workdir.SPELLED}
    return description | {"options": kept}


def _format_axis(axis: Axis) -> str:
    inner = ",".join(f"({format_value(v)})" for v in axis.values)
    return f"{axis.name}={axis.kind}({inner or f'{axis.low},{axis.high}'})"


def _make_pruner(name: str, epochs: int) -> Any:
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return pruners.NopPruner()


def _name_storage(text: str, home: Path) -> str:
    """Name a storage without its password, for messages."""
    if not text:
        return str(home / "study.log")
    return "--storage=" + re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", text)
