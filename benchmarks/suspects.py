"""Which planted wrong labels are found, by each ranking and beside confident learning.

    python benchmarks/suspects.py --data_dir=~/tensorflow_datasets --seed=0
    python benchmarks/suspects.py --data_dir=… --cleanlab=VENV/bin/python

Of `--dataset` some training images are taken, equally many of each class, and a share
of their labels is changed to another class, drawn evenly. A run that tracks its
examples ranks all of them; printed are average precision, and precision (which is
recall too) among as many of the first as there are changed labels, for every ranking
that was tried.

`--cleanlab` names the Python of an environment that has `cleanlab`. It gets
probabilities of models that have not seen the image, by cross-validation of the same
recipe, as its documentation recommends; this takes as long as four more runs.

`--cost=ROUNDS` prints instead what tracking costs: CPU seconds of epochs with and
without it in turn, nothing compiled among them.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from cnn import config as config_module
from cnn.data import DataOptions, load_dataset
from cnn.runtime.interrupt import Stop
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.train import make_setup
from cnn.training import epoch, progress, suspects
from cnn.training.setup import Setup
from cnn.training.state import get_variables

FOLDS = 5
# What the other environment runs: scores of the quality of labels, low where wrong.
CLEANLAB = """
import json, sys
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
given = np.load(sys.argv[1])
labels, said = given["labels"], given["probabilities"]
found = {}
for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
    for adjust in (False, True):
        if adjust and method == "confidence_weighted_entropy":
            continue
        scores = get_label_quality_scores(
            labels, said, method=method, adjust_pred_probs=adjust)
        found[f"{method}{', adjusted' if adjust else ''}"] = (-scores).tolist()
issues = find_label_issues(labels, said)
print(json.dumps({"scores": found, "issues": issues.tolist()}))
"""

Arrays = Mapping[str, np.ndarray]


def make_set(given: argparse.Namespace) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Take images and change labels.

    Returns:
        Arrays as of an npz dataset; and which training labels are wrong, bool [N].
    """
    dataset = load_dataset(
        DataOptions(
            dataset=given.dataset,
            data_dir=given.data_dir if given.dataset.startswith("tfds:") else "",
            train_examples=given.examples,
            split_seed=given.seed,
        )
    )
    random, labels = np.random.RandomState(given.seed), dataset.train.labels.copy()
    classes, count = len(dataset.class_names), round(given.share * len(labels))
    wrong = random.permutation(len(labels))[:count]
    labels[wrong] = (labels[wrong] + random.randint(1, classes, count)) % classes
    tests = random.permutation(len(dataset.test))[:2000]
    arrays = {"x_train": dataset.train.read_all(), "y_train": labels}
    arrays |= {"x_test": dataset.test.read(tests), "y_test": dataset.test.labels[tests]}
    return arrays, labels != dataset.train.labels


def prepare(
    arrays: Arrays, given: argparse.Namespace, more: Mapping[str, Any]
) -> Setup:
    """Make the setup of the recipe on arrays, with more options."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.npz"
        np.savez(path, **arrays)
        options = {"dataset": f"npz:{path}", "epochs": given.epochs}
        options |= {"validation_fraction": 0.0} | json.loads(given.options)
        preset = config_module.load_preset(given.config)
        config = config_module.make_config(preset, options, more)
        return make_setup(config, {}, Terminal(), Stop())


def take_epoch(setup: Setup, state: progress.Progress) -> None:
    """Take the steps of an epoch."""
    rest = epoch.Pace(), Profiler(ProfileOptions(), 0), setup.total_steps
    for _ in progress.take_epoch(setup, state, Stop(), *rest):
        pass


def read_cpu() -> float:
    """Return the CPU seconds of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure_cost(arrays: Arrays, given: argparse.Namespace) -> None:
    """Time epochs with and without tracking in turn, and print both."""
    given.epochs = given.cost + 1
    setups = [prepare(arrays, given, {"track_examples": x}) for x in (False, True)]
    states, seconds = [progress.begin(setup) for setup in setups], ([], [])
    for number in range(given.cost + 1):
        for setup, state, own in zip(setups, states, seconds, strict=True):
            before = read_cpu()
            take_epoch(setup, state)
            if number:  # the first compiles
                own.append(read_cpu() - before)
    ratios = [on / off for off, on in zip(*seconds, strict=True)]
    off, on = map(statistics.median, seconds)
    print(
        f"an epoch of {len(arrays['y_train'])} images: {off:.3f} s of CPU without, "
        f"{on:.3f} s with; ratios {min(ratios):.3f} to {max(ratios):.3f}, median "
        f"{statistics.median(ratios):.3f}"
    )


def train(arrays: Arrays, given: argparse.Namespace, **more: Any) -> tuple:
    """Train on arrays.

    Returns:
        What was kept of the examples after each epoch, [E, N] by name; and the logits
        of the test images.
    """
    setup, kept = prepare(arrays, given, more), []
    state = progress.begin(setup)
    while not state.has_ended(setup):
        take_epoch(setup, state)
        kept.append({n: np.asarray(x) for n, x in (state.state.examples or {}).items()})
    found: dict[str, list] = {}
    variables, batch_size = get_variables(state.state), setup.config.step.batch_size
    epoch.compute_metrics(
        setup.structure, variables, setup.loaders["test"], batch_size, Stop(), found
    )
    logits = np.concatenate(found["logits"])
    return {n: np.stack([x[n] for x in kept]) for n in kept[0]}, logits


def cross_validate(arrays: Arrays, given: argparse.Namespace) -> np.ndarray:
    """Compute probabilities [N, K] of models that have not seen the image."""
    labels, random = arrays["y_train"], np.random.RandomState(given.seed + 7)
    fold = np.empty(len(labels), int)
    for k in np.unique(labels):
        own = random.permutation(np.flatnonzero(labels == k))
        fold[own] = np.arange(len(own)) % FOLDS
    logits = np.empty((len(labels), labels.max() + 1))
    for number in range(FOLDS):
        out = fold == number
        parts = {}
        for part, chosen in (("train", ~out), ("test", out)):
            parts |= {f"{x}_{part}": arrays[f"{x}_train"][chosen] for x in "xy"}
        logits[out] = train(parts, given)[1]
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def ask_cleanlab(
    python: str, labels: np.ndarray, probabilities: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return its scores, high where wrong, by name, and which examples it filters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.npz"
        np.savez(path, labels=labels, probabilities=probabilities)
        command = [python, "-c", CLEANLAB, str(path)]
        told = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(told.stdout.splitlines()[-1])
    scores = {f"cleanlab {n}": np.array(x) for n, x in found["scores"].items()}
    return scores, np.array(found["issues"])


def list_scores(kept: Arrays, labels: np.ndarray) -> dict[str, np.ndarray]:
    """List the rankings that were tried, each a score that is high where wrong."""
    last, seen = {n: x[-1] for n, x in kept.items()}, np.maximum(kept["seen"][-1], 1)
    half = len(kept["seen"]) // 2 - 1
    late = {n: last[n] - kept[n][half] for n in ("seen", "margin", "loss")}
    counts = np.maximum(late["seen"], 1)
    first = np.where(last["first_learnt"] == 0, np.inf, last["first_learnt"])
    return {
        "mean margin less its class's median": suspects.compute_suspicion(last, labels),
        "mean margin": -last["margin"] / seen,
        "mean loss": last["loss"] / seen,
        "second half: margin, class": suspects.compute_suspicion(late, labels),
        "second half: mean margin": -late["margin"] / counts,
        "second half: mean loss": late["loss"] / counts,
        "first learnt": first,
        "first learnt, then mean loss": np.where(first < np.inf, first, 1e3) * 1e3
        + last["loss"] / seen,
        "forgotten": last["forgotten"].astype(float),
    }


def measure(score: np.ndarray, wrong: np.ndarray) -> tuple[float, float]:
    """Return average precision, and precision among as many as are wrong."""
    hits = wrong[np.argsort(-score, kind="stable")]
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return precisions[hits].mean(), hits[: hits.sum()].mean()


def main() -> None:
    """Train, rank and print a line for each ranking."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="tfds:cifar10_jpeg")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--config", default="cifar10_simple_cnn", help="the recipe")
    parser.add_argument(
        "--options",
        default='{"flip_probability": 0.5, "crop_padding": 4}',
        help="what differs from the recipe, JSON by name of flag",
    )
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.05, help="changed labels")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of set, order, weights")
    parser.add_argument("--cleanlab", default="", help="Python that has cleanlab")
    parser.add_argument("--cost", type=int, default=0, help="rounds; 0: rank instead")
    given = parser.parse_args()
    arrays, wrong = make_set(given)
    if given.cost:
        measure_cost(arrays, given)
        return
    kept, logits = train(arrays, given, track_examples=True, seed=given.seed)
    accuracy = np.mean(logits.argmax(axis=1) == arrays["y_test"])
    print(
        f"{len(wrong)} images, {wrong.sum()} wrong labels, test accuracy {accuracy:.2%}"
        f", {read_cpu():.0f} s of CPU"
    )
    scores = list_scores(kept, arrays["y_train"])
    if given.cleanlab:
        said = cross_validate(arrays, given)
        more, issues = ask_cleanlab(given.cleanlab, arrays["y_train"], said)
        scores |= more
        print(
            f"cleanlab filters {issues.sum()}: precision {wrong[issues].mean():.4f}, "
            f"recall {issues[wrong].mean():.4f}"
        )
    for name, score in scores.items():
        average, precision = measure(score, wrong)
        print(f"{name:45} AP {average:.4f}  precision = recall {precision:.4f}")


if __name__ == "__main__":
    main()
