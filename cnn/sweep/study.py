"""An Optuna study, which any number of workers ask for settings and report results to.

An Optuna trial is a setting here; its value is the mean over seeds. Optuna gives each
number to one worker, so no setting runs twice; one that is drawn again gets the result
of the first. A worker leaves signs of life; the running settings of a worker without
one are failed and queued again. What is drawn depends on --sweep_seed, on how many were
drawn before and on what has been reported: with one worker it is the same every time.

Source: https://optuna.readthedocs.io (ask and tell)
"""

import contextlib
import math
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.errors import UserError
from cnn.option import format_value
from cnn.runtime import own_files
from cnn.sweep import trials
from cnn.sweep.space import Axis, Space
from cnn.training import tasks

if TYPE_CHECKING:
    import optuna

CONNECT_SECONDS = 10
_ATTEMPTS = 5
_BEATS = 6
_LAST_BEAT_SECONDS = 10.0
COPY = "same as"


class Study:
    """A worker's view of a study."""

    def __init__(
        self,
        study: "optuna.Study",
        space: Space,
        worker: str,
        seed: int,
        identify: Callable[[Mapping[str, Any]], str],
    ) -> None:
        """Ask on behalf of a worker.

        Args:
            seed: of what is drawn.
            identify: returns what is equal for options that are the same setting.
        """
        self._study, self._worker, self._seed = study, worker, seed
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

        # Optuna hands out queued settings first.
        if sum(t.state != TrialState.WAITING for t in self._list_trials()) >= total:
            return None
        asked = self._study.ask()
        asked.set_user_attr("worker", self._worker)
        # Another worker may have asked at the same moment: the lower numbers stay.
        if sum(t.number < asked.number for t in self._list_trials()) >= total:
            self._study.tell(asked, state=TrialState.FAIL)
            return None
        self._mine[asked.number] = asked
        self._study.sampler = self._make_sampler(asked.number)
        for axis in self._axes:
            _suggest(asked, axis)
        return asked.number, self._decode(asked.params)

    def _make_sampler(self, number: int) -> Any:
        """Make the sampler of one setting; what was queued again was not drawn."""
        import optuna

        drawn = sum(
            trial.number < number and not trial.system_attrs.get("fixed_params")
            for trial in self._study.get_trials(deepcopy=False)
        )
        seed = int(np.random.SeedSequence([self._seed, drawn]).generate_state(1)[0])
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _decode(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {axis.name: _decode(axis, params[axis.name]) for axis in self._axes}

    def list_ended(self) -> set[int]:
        """List the numbers of the settings that have ended for good."""
        return {t.number for t in self._list_trials() if t.state.is_finished()}

    def count_copies(self) -> int:
        """Count the settings that have the result of an equal one."""
        return sum(COPY in trial.user_attrs for trial in self._list_trials())

    def _list_trials(self) -> list["optuna.trial.FrozenTrial"]:
        """List Optuna's trials without those that were failed and queued again."""
        attributes = self._study.user_attrs
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state.name != "FAIL"
            or (
                "reason" in trial.user_attrs
                and _retried(trial.number) not in attributes
            )
        ]

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
            is_whole = len(trial.params) == len(self._axes)
            if is_whole and self._find_identity(trial) == wanted:
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
        for trial in failed:
            self._study.set_user_attr(_retried(trial.number), True)
            self._study.enqueue_trial(trial.params)
        return len(failed)

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
        # One that another worker has taken over stays that worker's.
        self._study.tell(asked, value, states.get(status), skip_if_finished=True)

    def release(self) -> None:
        """Queue this worker's unfinished settings again."""
        for number in list(self._mine):
            self._ask_again(self._mine.pop(number)._trial_id)

    def take_over(self, timeout: float) -> int:
        """Queue the running settings of workers without a sign of life again.

        Args:
            timeout: seconds, by this machine's clock, without a new sign.

        Returns:
            How many there were.
        """
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
                count += self._ask_again(trial._trial_id)
        return count

    def _ask_again(self, trial_id: int) -> bool:
        """Fail a trial and queue its options; of several workers one succeeds."""
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
        """Leave signs of life inside, several within `timeout` seconds."""
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
            thread.join(_LAST_BEAT_SECONDS)  # the database may not answer


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


def open_study(config: Config, space: Space, home: Path, worker: str) -> Study:
    """Join the study of a sweep, or create it.

    Args:
        home: where the journal is when --storage is empty.
        worker: the name of this one.

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
            study = _join(config, home)
            if study.user_attrs.get("sweep") is None:
                _name_metric(study, config.train.select_by)
                study.set_user_attr("sweep", wanted)
            stored = study.user_attrs["sweep"]
            break
        except Exception as error:
            # Workers that start at once may all be creating the tables.
            is_race = type(error).__name__ in ("IntegrityError", "ProgrammingError")
            if is_race and attempt + 1 < _ATTEMPTS:
                time.sleep(1 + attempt)
                continue
            first = str(error).strip().split("\n")[0]
            raise UserError(
                f"--storage={_hide_password(options.storage)} does not answer "
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

    return Study(study, space, worker, options.sweep_seed, identify)


def _name_metric(study: "optuna.Study", select_by: str) -> None:
    """Name the metric for dashboards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls it experimental
        study.set_metric_names([f"validation_{select_by}"])


def _join(config: Config, home: Path) -> Any:
    import optuna

    options = config.sweep
    return optuna.create_study(
        storage=_open_storage(options.storage, home),
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


def _open_storage(text: str, home: Path) -> Any:
    """Open a storage by its URL; a path, or nothing, means a journal file."""
    import optuna
    from optuna.storages import journal

    if "://" not in text:
        path = Path(text).expanduser() if text else home / "study.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not text:
            own_files.check_no_link(path)
        return optuna.storages.JournalStorage(journal.JournalFileBackend(str(path)))
    arguments = {}
    if text.startswith(("postgresql", "mysql")):
        arguments["connect_args"] = {"connect_timeout": CONNECT_SECONDS}
    return optuna.storages.RDBStorage(text, engine_kwargs=arguments)


def _make_pruner(name: str, epochs: int) -> Any:
    from optuna import pruners

    if name == "median":
        return pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    if name == "hyperband":
        return pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return pruners.NopPruner()


def _hide_password(url: str) -> str:
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:…@", url)
