"""Checkpoints on disk: written in the background, whole, and verified when read.

`checkpoints/STEP/` holds arrays (`weights`, `average` with weight averaging on,
`training`: optimizer, step and metric sums), `description.json` (options, classes,
scaling, records) and, written last, `manifest.json`: SHA-256 of every other file. A
directory without a manifest was never finished and is not a checkpoint. The newest N
are kept, and the best by validation metric besides.
"""

import concurrent.futures
import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

import jax

from cnn import workdir
from cnn.errors import UserError
from cnn.options import option
from cnn.state import TrainState, flatten_paths

MANIFEST, DESCRIPTION = "manifest.json", "description.json"


@dataclasses.dataclass(frozen=True)
class CheckpointOptions:
    """When checkpoints are written, how many are kept, which one is read."""

    checkpoint_every_epochs: float = option(
        1.0,
        "epochs between checkpoints; 0.25 writes four an epoch",
        within="(0, inf)",
        changes_run=False,
    )
    keep_checkpoints: int = option(
        2,
        "newest checkpoints kept, besides the best",
        within="[1, inf)",
        changes_run=False,
    )
    checkpoint: str = option(
        "latest",
        "weights that evaluate, predict, visualize and export take: latest, best "
        "(by validation metric) or a step",
        changes_run=False,
    )


class CheckpointWriter:
    """Writes one checkpoint at a time in the background, in order."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Write under `directory`, keeping the newest `keep` and the best."""
        self._directory = directory.absolute()
        self._keep = keep
        self._worker = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._pending: concurrent.futures.Future | None = None

    def save(
        self,
        state: TrainState,
        sums: dict[str, jax.Array],
        description: dict[str, Any],
        best_step: int,
    ) -> None:
        """Start writing a checkpoint; arrays are copied before this returns.

        Args:
            state: the state, whose step names the checkpoint.
            sums: the metric sums of the epoch that is under way.
            description: JSON.
            best_step: the step whose checkpoint must outlive newer ones; -1 for none.

        Raises:
            UserError: the checkpoint before it could not be written.
        """
        from orbax.checkpoint import v1 as ocp

        self.wait()
        path = self._directory / str(int(state.step))
        if path.exists():
            shutil.rmtree(path)
        # The copy starts here: the next chunk of steps overwrites these arrays.
        response = ocp.save_checkpointables_async(path, _split(state, sums))

        def finish() -> None:
            response.result()
            workdir.write_json(path / DESCRIPTION, description)
            files = _list_files(path)
            manifest = {name: _hash_file(path / name) for name in files}
            workdir.write_json(path / MANIFEST, manifest)
            self._remove_old(best_step)

        self._pending = self._worker.submit(finish)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk.

        Raises:
            UserError: it could not be written.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except OSError as error:
            raise UserError(
                f"A checkpoint under {self._directory} could not be written "
                f"({error.strerror or error}); the ones before it are whole"
            ) from None

    def _remove_old(self, best_step: int) -> None:
        steps = list_steps(self._directory)
        kept = {*steps[-self._keep :], best_step}
        for path in self._directory.iterdir():
            if not path.name.isdigit() or int(path.name) not in kept:
                # Without its manifest it is no checkpoint, should the removal stop.
                (path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)


def list_steps(directory: Path) -> list[int]:
    """List the finished checkpoints of a directory, oldest first."""
    manifests = directory.glob(f"*/{MANIFEST}")
    names = [path.parent.name for path in manifests]
    return sorted(int(name) for name in names if name.isdigit())


def find_damage(path: Path) -> str:
    """Compare a checkpoint with its manifest.

    Returns:
        What is wrong, naming the file; empty when nothing is.
    """
    try:
        manifest = workdir.read_json(path / MANIFEST)
    except UserError as error:
        return str(error)
    for name, digest in manifest.items():
        if not (path / name).is_file():
            return f"{path / name} is missing"
        if _hash_file(path / name) != digest:
            return f"{path / name} has changed since it was written"
    return ""


def find_step(run: Path, which: str) -> int:
    """Find the checkpoint that `--checkpoint` names.

    Args:
        run: the run's directory.
        which: `latest`, `best` or a step.

    Raises:
        UserError: there is none, or the name is none of these.
    """
    steps = list_steps(run / "checkpoints")
    if not steps:
        raise UserError(
            f"{run} holds no checkpoint; train it first, or give the --workdir of a run"
        )
    if which == "latest":
        return steps[-1]
    if which == "best":
        newest = read_description(run / "checkpoints" / str(steps[-1]))
        best = newest["records"]["best_step"]
        if best not in steps:
            raise UserError(
                f"{run} has no best checkpoint: the run had no validation set; train "
                "with --validation_fraction=0.1, or use --checkpoint=latest"
            )
        return best
    if which.isdigit() and int(which) in steps:
        return int(which)
    known = ", ".join(str(step) for step in steps)
    raise UserError(
        f"--checkpoint={which} is not there; {run} has latest, best and steps {known}"
    )


def read_description(path: Path) -> dict:
    """Read what a checkpoint says of itself."""
    return workdir.read_json(path / DESCRIPTION)


def load_state(
    path: Path, state: TrainState, sums: dict[str, Any]
) -> tuple[TrainState, dict[str, jax.Array], dict[str, Any]]:
    """Read everything of a checkpoint, verified.

    Args:
        path: the checkpoint's directory.
        state: what it must hold, as `jax.ShapeDtypeStruct` with shardings.
        sums: likewise.

    Returns:
        State, sums and description.

    Raises:
        UserError: it is damaged, or its trees have other paths, shapes or dtypes.
    """
    loaded = _load(path, _split(state, sums))
    weights, training = loaded["weights"], loaded["training"]
    state = state.replace(
        step=training["step"],
        params=weights["params"],
        batch_stats=weights["batch_stats"],
        opt_state=training["opt_state"],
        ema=loaded.get("average"),
    )
    return state, training["sums"], read_description(path)


def load_variables(path: Path, like: dict[str, Any], averaged: bool) -> dict[str, Any]:
    """Read the weights of a checkpoint, verified.

    Args:
        path: the checkpoint's directory.
        like: `params` and `batch_stats` as `jax.ShapeDtypeStruct` with shardings.
        averaged: whether the averaged ones are wanted.

    Raises:
        UserError: as `load_state`.
    """
    item = "average" if averaged else "weights"
    return _load(path, {item: like})[item]


def _split(state: TrainState, sums: dict[str, Any]) -> dict[str, Any]:
    items = {
        "weights": {"params": state.params, "batch_stats": state.batch_stats},
        "training": {"step": state.step, "opt_state": state.opt_state, "sums": sums},
    }
    return items if state.ema is None else items | {"average": state.ema}


def _load(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    from orbax.checkpoint import v1 as ocp

    damage = find_damage(path)
    if damage:
        raise UserError(f"Checkpoint damaged: {damage}; use another --checkpoint")
    stored = ocp.checkpointables_metadata(path.absolute()).metadata
    for item, tree in like.items():
        _check_same_tree(path, flatten_paths(stored[item]), flatten_paths(tree))
    return ocp.load_checkpointables(path.absolute(), like)


def _check_same_tree(path: Path, stored: dict, wanted: dict) -> None:
    problems = [f"{name} is missing" for name in wanted.keys() - stored.keys()]
    problems += [f"{name} is unexpected" for name in stored.keys() - wanted.keys()]
    for name in wanted.keys() & stored.keys():
        there, here = stored[name], wanted[name]
        if (tuple(there.shape), there.dtype) != (tuple(here.shape), here.dtype):
            problems.append(
                f"{name} is {there.dtype} {tuple(there.shape)}, "
                f"not {here.dtype} {tuple(here.shape)}"
            )
    if problems:
        shown = "; ".join(sorted(problems)[:5])
        raise UserError(
            f"{path} does not fit this model ({len(problems)} leaves differ): {shown}"
        )


def abstract(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """Describe a tree of arrays by shape, dtype and the sharding to load it with."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
    )


def _list_files(path: Path) -> list[str]:
    files = [file for file in path.rglob("*") if file.is_file()]
    return sorted(str(file.relative_to(path)) for file in files)


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
