"""Where an Optuna study lies: a journal file, or a database that machines share."""

import re
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn.errors import UserError
from cnn.options import format_value
from cnn.sweep.space import Axis, Space
from cnn.sweep.study import Study

if TYPE_CHECKING:
    from cnn.config import Config

CONNECT_SECONDS = 10
_ATTEMPTS = 5


def open_study(config: "Config", space: Space, home: Path, worker: str) -> Study:
    """Join the study of a sweep, or create it.

    Args:
        config: the options that all trials share, and those of the sweep.
        space: what is searched.
        home: where the journal lies when no storage is named.
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
    options, wanted = config.sweep, describe_study(config, space)
    for attempt in range(_ATTEMPTS):
        try:
            study = _join(config, home)
            if study.user_attrs.get("sweep") is None:
                study.set_user_attr("sweep", wanted)
            stored = study.user_attrs["sweep"]
            count = len(study.get_trials(deepcopy=False))
            break
        except Exception as error:
            # Workers that come at once may all be creating the tables.
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
    if stored != wanted:
        raise UserError(
            f"--study={options.study} of this storage is of another sweep, "
            f"{stored['space']} (now {wanted['space']}), or of other options; give its "
            "own, or another --study"
        )
    # Another seed for each worker and each start, or they would all ask the same.
    seed = zlib.crc32(f"{options.sweep_seed}/{worker}/{count}".encode())
    study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return Study(study, space, worker)


def _join(config: "Config", home: Path) -> Any:
    import optuna

    options = config.sweep
    return optuna.create_study(
        storage=_open_storage(options.storage, home),
        pruner=_make_pruner(options.pruner, config.train.epochs),
        study_name=options.study,
        direction="minimize" if config.train.select_by == "loss" else "maximize",
        load_if_exists=True,
    )


def describe_study(config: "Config", space: Space) -> dict[str, Any]:
    """Describe what a study is of: its space, and what differs from the defaults."""
    defaults = type(config)().to_flat()
    given = config.select_run_options().items()
    return {
        "space": "; ".join(_format_axis(axis) for axis in space.axes),
        "options": {name: value for name, value in given if value != defaults[name]},
    }


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
