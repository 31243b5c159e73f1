"""Checkpoints on disk: written in the background, whole, and verified when read.

`checkpoints/STEP/` holds arrays (`weights`, `average` with weight averaging on,
`training`: optimizer, step and metric sums), `description.json` (options, classes,
scaling, counters) and its manifest of checksums. The newest N are kept, and the best
by validation metric. Reading raises DamagedCheckpoint if it is not what was written.
"""

import concurrent.futures
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from cnn.checkpoints import manifest, workdir
from cnn.checkpoints.manifest import DESCRIPTION
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.runtime import processes


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
        items: dict[str, Any],
        step: int,
        description: dict[str, Any],
        best_step: int = -1,
    ) -> None:
        """Start writing a checkpoint; arrays are copied before this returns.

        Args:
            items: trees of arrays by name, as of `state.to_items`.
            step: the number of steps taken, which names the checkpoint.
            description: JSON.
            best_step: the step whose checkpoint is kept too; -1 for none.

        Raises:
            UserError: the checkpoint before it could not be written.
        """
        from orbax.checkpoint import v1 as ocp

        self.wait()
        new = self._directory / f"{step}{manifest.NEW}"
        with self._explain_errors():
            if processes.is_first() and new.exists():
                shutil.rmtree(new)
        processes.check_equal("step", new.name)
        with self._explain_errors():
            # In the background, a directory that cannot be made would leave threads
            # that wait for it and keep the process from ending.
            context = ocp.Context()
            context.async_options.create_directories_asynchronously = False
            with context:
                # The copy starts here: the next chunk of steps overwrites these arrays.
                response = ocp.save_checkpointables_async(new, items)

        def finish() -> None:
            response.result()
            if not processes.is_first():
                return
            workdir.write_json(new / DESCRIPTION, description)
            manifest.finish(new)
            manifest.remove_old(self._directory, step, self._keep, best_step)

        self._pending = self._worker.submit(finish)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk, sealed by the first process.

        Raises:
            UserError: it could not be written.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        with self._explain_errors():
            pending.result()
        processes.check_equal("checkpoints", str(self._directory))

    @contextlib.contextmanager
    def _explain_errors(self) -> Iterator[None]:
        # Orbax reports a full disk by ValueError.
        try:
            yield
        except (OSError, ValueError) as error:
            raise UserError(
                f"A checkpoint under {self._directory} could not be written "
                f"({error}); the ones before it are whole"
            ) from None


def load_items(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    """Read trees of a checkpoint, verified.

    Args:
        like: the trees to read by name, as `jax.ShapeDtypeStruct` with shardings.

    Raises:
        UserError: its trees have other paths, shapes or dtypes.
    """
    from orbax.checkpoint import v1 as ocp

    manifest.check_whole(path)
    stored = ocp.checkpointables_metadata(path.absolute()).metadata
    for item, tree in like.items():
        there, here = flatten_paths(stored.get(item, {})), flatten_paths(tree)
        _check_same_tree(path, there, here)
    return ocp.load_checkpointables(path.absolute(), like)


def load_variables(path: Path, like: dict[str, Any], averaged: bool) -> dict[str, Any]:
    """Read `params` and `batch_stats` of a checkpoint as `load_items` does."""
    item = "average" if averaged else "weights"
    return load_items(path, {item: like})[item]


def read_variables(
    path: Path, averaged: bool, sharding: jax.sharding.Sharding
) -> dict[str, Any]:
    """Read `params` and `batch_stats` of a checkpoint of any model, verified."""
    return read_item(path, "average" if averaged else "weights", sharding)


def read_item(path: Path, item: str, sharding: jax.sharding.Sharding) -> dict[str, Any]:
    """Read one of a checkpoint's trees whatever is in it, verified."""
    from orbax.checkpoint import v1 as ocp

    manifest.check_whole(path)
    stored = ocp.checkpointables_metadata(path.absolute()).metadata[item]
    like = {item: abstract(stored, sharding)}
    return ocp.load_checkpointables(path.absolute(), like)[item]


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


def abstract(tree: Any, sharding: Any) -> Any:
    """Describe a tree of arrays by shape, dtype and the sharding to load it with.

    Args:
        tree: arrays, or their shapes.
        sharding: that of all leaves, or a tree with that of each.
    """
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, tree)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, sharding
    )
