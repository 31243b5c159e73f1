"""LedgerOptions: which runs are listed, and how."""

import dataclasses
from typing import ClassVar

from cnn.option import free_option


@dataclasses.dataclass(frozen=True)
class LedgerOptions:
    """Which runs --mode=list shows, how, and what of them it deletes."""

    modes: ClassVar[str] = "list"

    where: str = free_option(
        "",
        "list: only what fulfils all of these, separated by blanks, as 'model=wrn*|mlp "
        "state!=failed test_accuracy>0.9': options and columns with patterns (= !=) or "
        "numbers (< <= > >=)",
    )
    group_by: tuple[str, ...] = free_option(
        (),
        "list: a row for all runs that have these options alike, seeds pooled: how "
        "many, mean, standard deviation and 95 % t-interval of their metrics",
        only_for="not prune",
    )
    list_trials: bool = free_option(
        False,
        "list: a row for each trial of a sweep, in place of one for its best",
        only_for="not prune",
    )
    format: str = free_option(
        "text",
        "list: the table as text, csv (all columns), markdown or latex",
        choices=("text", "csv", "markdown", "latex"),
        only_for="not prune",
    )
    prune: bool = free_option(
        False,
        "list: show which checkpoints and runs can be deleted, why, and how much that "
        "frees; none of a run that is running",
    )
    yes: bool = free_option(False, "delete what --prune shows", only_for="prune")
