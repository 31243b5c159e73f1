"""SweepOptions: which trials a sweep has, and how they run."""

import dataclasses
from typing import Any, ClassVar

from cnn.option import free_option, option


@dataclasses.dataclass(frozen=True)
class SweepOptions:
    """Which trials a sweep has, and how they run."""

    modes: ClassVar[str] = "sweep"

    sweep: str = free_option(
        "",
        "the space, as 'learning_rate=log(1e-3,1,8); weight_decay=0,5e-4; seed=0:4': "
        "lists, a:b, linear(a,b,n), log(a,b,n); drawn: uniform(a,b), loguniform(a,b), "
        "choice(a,b)",
    )
    trials: int = free_option(
        0,
        "draws of the drawn options, each with every point of the others",
        within="[0, 1000000]",
        only_for="not minutes",
    )
    sweep_seed: int = free_option(
        0, "seed of the draws", within="[0, 4294967295]", only_for="trials or minutes"
    )
    max_trials: int = free_option(
        1000,
        "trials above which a sweep is refused; with --minutes, the most that it has",
        within="[1, 1000000]",
    )
    executor: str = free_option(
        "auto",
        "how trials run: loop (one after another, the solo run's program), map (so "
        "inside one program), vmap (side by side), shard and shard_vmap (map and vmap "
        "on every device), auto (times 20 steps of each)",
        choices=("auto", "loop", "map", "vmap", "shard", "shard_vmap"),
    )
    trials_at_once: int = free_option(
        0,
        "trials in one call of a program; 0: as memory allows, at most 64",
        within="[0, 65536]",
        only_for="executor!=loop or search=optuna",
    )
    keep_trials: str = free_option(
        "best",
        "trials whose weights stay in sweep/kept/, for ensembles: best (the best trial "
        "of the best setting), seeds (all of the best setting) or all; a sweep keeps "
        "the choice it began with",
        choices=("best", "seeds", "all"),
    )
    halving: int = free_option(
        0,
        "successive halving: at each rung the best 1/N of the settings stay; 0: all",
        within="[0, 65536]",
        only_for="search=points",
    )
    search: str = free_option(
        "points",
        "points (all of the space, or --trials draws) or optuna (--trials settings, "
        "asked of a study that any number of workers share)",
        choices=("points", "optuna"),
    )
    storage: str = free_option(
        "",
        "optuna: where the study lies, as postgresql://USER@HOST/NAME or a journal "
        "file; empty: study.log in the sweep's directory",
        only_for="search=optuna",
        is_path=True,
    )
    study: str = free_option(
        "sweep", "optuna: name of the study in its storage", only_for="search=optuna"
    )
    pruner: str = free_option(
        "none",
        "optuna: what stops bad settings early",
        choices=("none", "median", "hyperband"),
        only_for="search=optuna",
    )
    worker: str = free_option(
        "",
        "optuna: name of this worker; empty: machine and process",
        only_for="search=optuna",
    )
    worker_timeout: float = free_option(
        60.0,
        "optuna: seconds without a sign of life after which other workers run a "
        "worker's unfinished settings",
        within="(0, inf)",
        only_for="search=optuna",
    )
    from_trial: str = option(
        "",
        "train: repeat a trial of a sweep alone, as runs/digits:17",
        modes="train describe",
        is_path=True,
    )

    retry_failed: bool = free_option(False, "run trials that have failed again")

    def select_identity(self) -> dict[str, Any]:
        """Return the options that the default directory of a sweep is named by."""
        names = ("sweep", "sweep_seed", "executor", "trials_at_once", "halving")
        return {name: getattr(self, name) for name in (*names, "search")}

    def select_fixed(self) -> dict[str, Any]:
        """Return the options that a sweep keeps while its trials become more."""
        names = ("executor", "trials_at_once", "halving", "search", "keep_trials")
        return {name: getattr(self, name) for name in names}

    def select_study(self) -> dict[str, Any]:
        """Return the options that all workers of a study share."""
        return {name: getattr(self, name) for name in ("search", "study", "sweep_seed")}
