"""The child of the fuzz: it reads files that are changed, one after the other.

It writes a line of JSON before each seed and one after it: what came of it (`same`,
`other` values, `refused`, or `error`: another error than the program's own), by which
reader, and the message.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from absl import flags
from absl.testing import flagsaver
from fixtures_runs import TINY
from flax import serialization
from json_mutations import mutate_json
from mutations import mutate
from safetensors.numpy import load_file

import main as program
from cnn import config as config_module
from cnn import train
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.training import progress, report, tasks, temperature
from cnn.training.state import to_items
from cnn.training.trained import load_trained
from cnn.transfer.source import open_source
from cnn.visualize.compute import curves
from cnn.weights import load, preprocessing

MANIFEST = "manifest.json"
SECONDS = 60
Reader = Callable[[Path], str]


def main(kind: str, directory: str, first: str, last: str) -> None:
    """Read what every seed makes of the files of a kind.

    Args:
        kind: of `KINDS`.
        directory: of a run that has ended, or of files of weights.
        first: seed.
        last: seed, exclusive.
    """
    room = Path(directory).absolute()
    patterns, readers, is_fitted = KINDS[kind]
    found = {path for pattern in patterns for path in room.glob(pattern)}
    files = sorted(path for path in found if path.is_file() and path.stat().st_size)
    if (room / "run").exists():
        trained = load_trained(room / "run")
        about = temperature.format_kept(
            dataclasses.replace(trained, temperature=2.0), room / "run", {}
        )
        (room / "run" / temperature.CALIBRATION_FILE).write_text(about)
    with contextlib.redirect_stdout(io.StringIO()):
        before = [read(room) for read in readers]
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    for seed in range(int(first), int(last)):
        signal.alarm(SECONDS)  # ends a process that hangs
        path, number = files[seed % len(files)], seed // len(files) % len(readers)
        about = {"seed": seed, "file": str(path), "reader": readers[number].__name__}
        print(json.dumps(about), flush=True)
        with _changed(path, seed, is_fitted), contextlib.redirect_stdout(io.StringIO()):
            outcome = _read(readers[number], room, before[number])
        print(json.dumps(about | outcome), flush=True)


def _read(read: Reader, room: Path, before: str) -> dict[str, str]:
    try:
        found = read(room)
    except (UserError, OSError) as error:  # which main.py prints as one line
        return {"outcome": "refused", "text": str(error)}
    except BaseException:
        return {"outcome": "error", "text": traceback.format_exc()}
    if found != before and read is take_weights:
        before = read_otherwise(room)
    return {"outcome": "same" if found == before else "other", "text": ""}


@contextlib.contextmanager
def _changed(path: Path, seed: int, is_fitted: bool) -> Iterator[None]:
    """Change a file for a while; `is_fitted`: its checkpoint's manifest fits."""
    content = path.read_bytes()
    is_json = content[:1] in (b"{", b"[") and seed % 4
    path.write_bytes((mutate_json if is_json else mutate)(content, seed))
    manifest = _fit(path) if is_fitted else None
    try:
        yield
    finally:
        path.write_bytes(content)
        if manifest:
            manifest[0].write_bytes(manifest[1])


def _fit(path: Path) -> tuple[Path, bytes]:
    """Bring the manifest to what a file holds now; returns it with what it held."""
    step = next(x for x in path.parents if x.parent.name == "checkpoints")
    before = (step / MANIFEST).read_bytes()
    digests = json.loads(before)
    digests[str(path.relative_to(step))] = hashlib.sha256(path.read_bytes()).hexdigest()
    (step / MANIFEST).write_text(json.dumps(digests))
    return step / MANIFEST, before


def _hash(tree: object) -> str:
    """Return a digest of a tree's arrays and where they are."""
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten_paths(tree).items()):
        array = np.asarray(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _run(*arguments: object) -> None:
    """Call a mode of main.py in this process."""
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        command = ["main.py", "--compilation_cache=off", *map(str, arguments)]
        program.parse_flags(command)
        program.run_mode(flags.FLAGS.mode, Terminal())


def _make_config(run: Path) -> config_module.Config:
    """Make the config of the run as `train` does at its beginning."""
    config = config_module.make_config(config_module.load_preset("digits"), TINY)
    config = preprocessing.resolve(config, run, Terminal())
    return tasks.resume(config, run)


def load_run(room: Path) -> str:
    """Load the weights of a run and what is known of them, as most modes do."""
    found = load_trained(room / "run")
    return _hash(found.variables) + str((found.class_names, found.options))


def resume(room: Path) -> str:
    """Restore a run as training does."""
    run = room / "run"
    config = _make_config(run)
    report.read_ended(run)
    train._check_same_run(config, run)
    newest, stored = train._find_newest(config, run, Terminal())
    setup = train.make_setup(config, stored, Terminal(), Stop(), directory=run)
    found = progress.restore(setup, newest, stored)
    return _hash(to_items(found.state, found.sums))


def begin_from(room: Path) -> str:
    """Take the weights of a run for another, as `--init_from` does."""
    return open_source(str(room / "run"), "latest", Terminal()).sha256


def evaluate(room: Path) -> str:
    """Evaluate a run."""
    _run("--mode=evaluate", f"--workdir={room / 'run'}")
    found = json.loads((room / "run/evaluation.json").read_text())
    return json.dumps([found["accuracy"], found["loss"]])


def predict(room: Path) -> str:
    """Classify an image."""
    picture, run = room / "picture.png", room / "run"
    _run("--mode=predict", f"--workdir={run}", f"--predict_images={picture}")
    return (run / "predictions.csv").read_text()


def repeat(room: Path) -> str:
    """Train a run that has ended: print its result."""
    run = room / "run"
    config = _make_config(run)
    ended = report.read_ended(run)
    if not ended:
        return "not ended"
    train._check_same_run(config, run)
    return json.dumps(train._repeat_result(config, run, Terminal(), ended))


def draw_curves(room: Path) -> str:
    """Read the lines of metrics.jsonl as curves."""
    history = curves.read_history(room / "run")
    return repr(sorted(history.series))


def read_log(room: Path) -> str:
    """Open metrics.jsonl as a run that is resumed does."""
    path = room / "run/metrics.jsonl"
    content = path.read_bytes()
    log = train.MetricsLog(room / "run", 1500, 9)
    log.describe_loss(2)
    log.close()
    found = path.read_bytes()
    path.write_bytes(content)
    for line in found.splitlines():
        json.loads(line)
    return found.decode()


def take_weights(room: Path) -> str:
    """Read a file of others' weights, every number."""
    (path,) = (x for x in room.iterdir() if x.stem == "weights")
    found = load.load_weights(path, "--init_from", "latest", "").leaves
    return _hash_arrays([x.read() for x in found.values()])


def read_otherwise(room: Path) -> str:
    """Read a file as its own library does, which checks no numbers either."""
    (path,) = (x for x in room.iterdir() if x.stem == "weights")
    if path.suffix == ".safetensors":
        return _hash_arrays(list(load_file(path).values()))
    if path.suffix == ".msgpack":
        tree = serialization.msgpack_restore(path.read_bytes())
        return _hash_arrays(list(_list_arrays(tree)))
    return ""


def _list_arrays(tree: object) -> Iterator[np.ndarray]:
    """List a tree's arrays, whatever its names are."""
    if isinstance(tree, dict | list):
        for inner in tree.values() if isinstance(tree, dict) else tree:
            yield from _list_arrays(inner)
    elif isinstance(tree, np.ndarray):
        yield tree


def _hash_arrays(arrays: Sequence[np.ndarray]) -> str:
    """Return a digest of arrays, whatever they are called, as float32."""
    made = [np.asarray(x, np.float32) for x in arrays]
    texts = sorted(f"{x.shape} {x.tobytes().hex()}" for x in made)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


_CHECKPOINT = "run/checkpoints/15/"
_RUN = (load_run, resume, begin_from, evaluate, predict)
# Of each kind: the files, who reads them, and whether the manifest is made to fit.
KINDS: dict[str, tuple[Sequence[str], Sequence[Reader], bool]] = {
    "checkpoint": ((f"{_CHECKPOINT}**/*",), _RUN, False),
    "lying checkpoint": ((f"{_CHECKPOINT}*/**/*", f"{_CHECKPOINT}_*"), _RUN, True),
    "manifest": ((f"{_CHECKPOINT}{MANIFEST}",), _RUN, False),
    "description": ((f"{_CHECKPOINT}description.json",), _RUN, True),
    "config": (("run/config.json",), (evaluate, predict, resume, repeat), False),
    "records": (
        ("run/result.json", "run/dataset.json", "run/calibration.json"),
        (repeat, evaluate, resume, predict),
        False,
    ),
    "metrics": (("run/metrics.jsonl",), (draw_curves, read_log), False),
    "weights": (("weights.*", "weights.*/**/*"), (take_weights,), False),
}
