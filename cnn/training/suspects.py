"""Which training examples are probably wrong: `examples.csv` of a run that tracks them.

A line for each example, the most suspicious first, with what `cnn.training.examples`
has kept of it. How examples are ranked was chosen by measurement: docs/suspects.md.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cnn.checkpoints import atomic
from cnn.data.images import Dataset
from cnn.errors import UserError
from cnn.runtime import devices, processes
from cnn.text import format_row, show_line
from cnn.training.options import StepOptions
from cnn.training.progress import Progress
from cnn.training.same_data import Seen
from cnn.training.setup import Setup

EXAMPLES_FILE = "examples.csv"
COLUMNS = ("label", "predicted", "instead", "mean_loss", "mean_margin")
COLUMNS += ("first_learnt", "forgotten", "seen", "suspicion", "rank")


def compute_suspicion(kept: Mapping[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
    """Compute by how much the margin of an example lags behind its class.

    Args:
        kept: as of `cnn.training.examples`, on the host.
        labels: int32 [N].

    Returns:
        float64 [N]: the median of the mean margins of the label's examples, less the
        example's own; -inf for those never seen.
    """
    is_seen = kept["seen"] > 0
    margins = kept["margin"].astype(np.float64) / np.maximum(kept["seen"], 1)
    suspicion = np.full(len(labels), -np.inf)
    for label in np.unique(labels[is_seen]):
        own = is_seen & (labels == label)
        suspicion[own] = np.median(margins[own]) - margins[own]
    return suspicion


def check_same_data(options: StepOptions, seen: Seen) -> None:
    """Refuse to go on tracking examples whose ids are no longer what they were.

    Raises:
        UserError: naming both flags.
    """
    if options.track_examples and seen.changes:
        raise UserError(
            "--track_examples knows an image by its place, and --allow_changed_data "
            "lets others stand there; train in another --workdir"
        )


def write(setup: Setup, progress: Progress, directory: Path) -> list[str]:
    """Write `examples.csv` where examples are tracked.

    Args:
        progress: at the end of the run.
        directory: of the run.

    Returns:
        A line to print of it; none without.
    """
    if not setup.structure.tracked_examples:
        return []
    whole = devices.gather(setup.mesh, progress.state.examples)
    kept = {name: np.asarray(x) for name, x in whole.items()}
    suspicion = compute_suspicion(kept, setup.dataset.train.labels)
    if processes.is_first():
        text = format_examples(setup.dataset, kept, suspicion)
        atomic.write_text(directory / EXAMPLES_FILE, text)
    return [_describe(setup.dataset, kept, int(np.argmax(suspicion)))]


def format_examples(
    dataset: Dataset, kept: Mapping[str, np.ndarray], suspicion: np.ndarray
) -> str:
    """Write a line of CSV for each training example, the most suspicious first.

    Args:
        kept: as of `compute_suspicion`.
        suspicion: of that.
    """
    names, labels = dataset.train.names, dataset.train.labels
    classes = (*dataset.class_names, "")  # the last of -1, none yet
    lines = [format_row(["path" if dataset.is_named else "id", *COLUMNS])]
    for place, i in enumerate(np.argsort(-suspicion, kind="stable"), 1):
        one = {name: x[i] for name, x in kept.items()}
        seen = one["seen"]
        means = [f"{one[x] / seen:.9g}" if seen else "" for x in ("loss", "margin")]
        said = [classes[k] for k in (labels[i], one["predicted"], one["instead"])]
        counts = [one[name] for name in ("first_learnt", "forgotten", "seen")]
        ranked = [f"{suspicion[i]:.9g}" if seen else "", place]
        lines.append(format_row([names[i], *said, *means, *counts, *ranked]))
    return "".join(lines)


def _describe(dataset: Dataset, kept: Mapping[str, np.ndarray], first: int) -> str:
    """Write how many examples were never learnt, and which is the most suspicious."""
    seen = kept["seen"] > 0
    never = int(np.sum(seen & (kept["first_learnt"] == 0)))
    forgotten = int(np.sum(kept["forgotten"] > 0))
    classes = (*dataset.class_names, "no other")
    label, instead = (
        show_line(classes[k])
        for k in (dataset.train.labels[first], kept["instead"][first])
    )
    name = show_line(dataset.train.names[first])
    return (
        f"suspects  of {int(seen.sum())} images seen, {never} never right, {forgotten} "
        f"forgotten; {EXAMPLES_FILE} has the most suspicious first: {name}, labelled "
        f"{label}, predicted {instead}"
    )
