"""Checkpoints on disk: written in the background, whole, and verified when read.

`checkpoints/STEP/` holds arrays (`weights`, `average` with weight averaging on,
`training`: optimizer, step and metric sums), `description.json` (options, classes,
scaling, counters) and its manifest of checksums. The newest N are kept, the best by
validation metric, and what `--extend` takes. What was written is read back before it
counts as a checkpoint, and reading raises DamagedCheckpoint if it is not what was
written.
"""

import contextlib
import gc
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax

from cnn.checkpoints import atomic, library, manifest, workdir
from cnn.checkpoints.manifest import DESCRIPTION
from cnn.errors import UserError, explain
from cnn.models.variables import flatten_paths
from cnn.runtime import background, processes

_UNFINISHED = ".orbax-checkpoint-tmp"  # the library's end of what it has not renamed
_TRIES, _PAUSE = 20, 0.1  # seconds, to remove where threads still write
_WATCH_SECONDS = 1.0
# The library's own limit is of a clock that may be set; `_watch` sees what is silent.
_NEVER = 2 * 10**9

# What lies in a directory of `save_tree`.
_TREE = re.compile(
    r"_METADATA|_sharding|_CHECKPOINT_METADATA|commit_success\.txt|array_metadatas|d"
    r"|manifest\.ocdbt|ocdbt\.process_[0-9]+"
)

# Compression makes at most so many bytes of one; and what small files may claim.
_MOST, _SLACK = 2**15, 2**30


class CheckpointWriter:
    """Writes one checkpoint at a time in the background, in order."""

    def __init__(self, directory: Path, keep: int) -> None:
        """Write under `directory`, keeping the newest `keep` and what `save` says.

        Raises:
            UserError: it is there and cannot be read or written.
        """
        self._directory = directory.absolute()
        self._keep = keep
        self._pending: background.Job | None = None
        self._place = directory.stat() if directory.exists() else None
        if directory.exists():
            try:
                os.listdir(directory)  # else it seems to be empty
                tempfile.TemporaryFile(dir=directory).close()
            except OSError as error:
                raise UserError(
                    f"{directory} cannot be written ({explain(error)}); or choose "
                    "another --workdir"
                ) from None

    def save(
        self,
        items: dict[str, Any],
        step: int,
        description: dict[str, Any],
        kept_steps: Collection[int] = (),
    ) -> None:
        """Start writing a checkpoint; arrays are copied before this returns.

        Args:
            items: trees of arrays by name, as of `state.to_items`.
            step: the number of steps taken, which names the checkpoint.
            description: JSON.
            kept_steps: whose checkpoints are kept too.

        Raises:
            UserError: the checkpoint before it could not be written.
        """
        from orbax.checkpoint import v1 as ocp

        self.wait()
        new = self._directory / f"{step}{manifest.NEW}"
        self.check_place()
        if processes.is_first():
            manifest.check_free(new)
        with self._explain_errors(new):
            if processes.is_first():
                self._directory.mkdir(parents=True, exist_ok=True)
                self._place = self._directory.stat()
                manifest.remove_unfinished(new)
        processes.check_equal("step", new.name)
        library.silence()
        with self._explain_errors(new), contextlib.ExitStack() as opened:
            # In the background, a directory that cannot be made would leave threads
            # that wait for it and keep the process from ending.
            context = ocp.Context()
            context.async_options.create_directories_asynchronously = False
            if not processes.are_several():
                # Devices would share the writing, by a small program for each shape.
                context.array_options.saving.use_replica_parallel = False
                context.async_options.timeout_secs = _NEVER
            with context:
                # The copy starts here: the next chunk of steps overwrites these arrays.
                plain = opened.enter_context(library.give_plain_name(self._directory))
                response = ocp.save_checkpointables_async(plain / new.name, items)
            written, opened = jax.eval_shape(lambda: items), opened.pop_all()

        def finish() -> None:
            with self._explain_errors(new):
                with opened:
                    response.result()
                if not processes.is_first():
                    return
                background.note("what is read back")
                _read_back(new, written)
                atomic.write_json(new / DESCRIPTION, description)
                manifest.finish(new)
                manifest.remove_old(self._directory, step, self._keep, kept_steps)

        self._pending = background.start("writes checkpoints", finish)
        background.start("watches a checkpoint grow", _watch, self._pending, new)

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk, sealed by the first process.

        Raises:
            UserError: it could not be written, or does not grow any more.
            Interrupted: likewise, after a signal.
        """
        if self._pending is None:
            return
        pending = self._pending
        try:
            pending.result(patient=True)
        except background.Failed as error:
            raise UserError(self._describe_failure(error)) from None
        finally:
            if pending.has_ended:  # else it is given up, now and at the end
                self._pending = None
        processes.check_equal("checkpoints", str(self._directory))

    def check_place(self) -> None:
        """Refuse to write where the directory no longer is.

        Raises:
            UserError: it was moved or removed, or another one is there now.
        """
        try:
            is_there = self._place is None or os.path.samestat(
                self._place, self._directory.stat()
            )
        except FileNotFoundError:
            is_there = False
        if not is_there:
            raise UserError(
                f"{self._directory} is no longer there: it was moved or removed while "
                "the run wrote to it; put it back, or give where it is now as "
                "--workdir, and the same command resumes"
            )

    @contextlib.contextmanager
    def _explain_errors(self, new: Path) -> Iterator[None]:
        """Remove what an error has left of a checkpoint, and say what it means."""
        try:
            yield
        except Exception as error:  # the library raises what it likes
            if processes.is_first():
                _discard(new)
            if isinstance(error, UserError):
                raise
            raise UserError(self._describe_failure(error)) from None

    def _describe_failure(self, error: Exception) -> str:
        return (
            f"A checkpoint under {self._directory} could not be written "
            f"({explain(error)}); the ones before it are whole"
        )


def _watch(job: background.Job, new: Path) -> None:
    """Give signs of life of a job for as long as what it writes grows."""
    before = -1
    while not job.wait(_WATCH_SECONDS):
        with contextlib.suppress(OSError):  # what it writes is renamed, or removed
            size = sum(path.lstat().st_size for path in new.rglob("*"))
            if size != before:
                job.note(f"byte {size} of {new}")
                before = size


def _discard(new: Path) -> None:
    """Remove a checkpoint that could not be finished: its disk may be full.

    One that has its manifest is whole, and only has to be renamed. The library's
    threads may still write there, or have the last few files open that removing takes.
    """
    paths = (new, new.with_name(f"{new.name}{_UNFINISHED}"))
    for _ in range(0 if (new / workdir.MANIFEST).exists() else _TRIES):
        there = [path for path in paths if path.is_dir() and not path.is_symlink()]
        if not there:
            return
        gc.collect()
        for path in there:
            shutil.rmtree(path, ignore_errors=True)
        time.sleep(_PAUSE)


def save_tree(path: Path, tree: Any, mode: int) -> None:
    """Save arrays of numpy as a directory that orbax restores anywhere, or not at all.

    Args:
        path: of the directory; one that is there is replaced.
        tree: nested dicts.
        mode: the permissions of its files; directories are searchable where readable.

    Raises:
        UserError: it cannot be written.
    """
    import orbax.checkpoint

    try:
        with workdir.make_directory(path) as new:
            with library.give_plain_name(new.parent) as directory:
                library.silence()
                writer = orbax.checkpoint.StandardCheckpointer()
                writer.save(directory / new.name, tree)
                writer.close()
            for each in (new, *new.rglob("*")):
                each.chmod(mode | (mode & 0o444) >> 2 if each.is_dir() else mode)
            if os.path.lexists(path):
                os.rename(path, new.with_name("before"))
    except UserError:
        raise
    except Exception as error:  # the library raises what it likes
        raise UserError(f"{path} cannot be written ({explain(error)})") from None


def check_tree(path: Path) -> None:
    """Refuse to replace what holds more than `save_tree` has written.

    Raises:
        UserError: naming what does not belong there.
    """
    inside = path.iterdir() if path.is_dir() and not path.is_symlink() else []
    for each in inside:
        if each.is_symlink() or not _TREE.fullmatch(each.name):
            raise UserError(f"{each} is no part of an export; move it away")


def load_items(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    """Read trees of a checkpoint, verified.

    Args:
        like: the trees to read by name, as `jax.ShapeDtypeStruct` with shardings.

    Raises:
        UserError: its trees have other paths, shapes or dtypes.
    """
    manifest.check_whole(path)
    with library.explain_errors(path), _open(path, like) as (plain, stored):
        for item, tree in like.items():
            there, here = flatten_paths(stored[item]), flatten_paths(tree)
            _check_same_tree(path, there, here)
        return _load(plain, like)


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
    manifest.check_whole(path)
    with library.explain_errors(path), _open(path, (item,)) as (plain, stored):
        return _load(plain, {item: abstract(stored[item], sharding)})[item]


@contextlib.contextmanager
def _open(path: Path, wanted: Iterable[str]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a checkpoint a plain name, and read the shapes of the trees in it.

    Args:
        wanted: names of trees.

    Raises:
        DamagedCheckpoint: one of them is absent or cannot be read.
    """
    from orbax.checkpoint import v1 as ocp

    library.silence()
    with library.give_plain_name(path.parent) as directory:
        stored = ocp.checkpointables_metadata(directory / path.name).metadata
        for item in wanted:
            if stored.get(item) is None:
                raise manifest.DamagedCheckpoint(f"{path} has no {item} to be read")
            _check_size(path / item, stored[item])
        yield directory / path.name, stored


def _check_size(path: Path, tree: Any) -> None:
    """Refuse shapes of more bytes than files can hold, before memory is asked for.

    Raises:
        DamagedCheckpoint: naming the directory.
    """
    claimed = 0
    for leaf in jax.tree.leaves(tree):
        # An array is read by the chunk, however little of it is the array's.
        for shape in (leaf.shape, leaf.storage_metadata.chunk_shape or ()):
            claimed += math.prod(shape) * leaf.dtype.itemsize
            if min(shape, default=0) < 0:
                raise manifest.DamagedCheckpoint(f"{path} has the shape {shape}")
    held = sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
    if claimed > _MOST * held + _SLACK:
        raise manifest.DamagedCheckpoint(
            f"{path} claims arrays of {claimed:,} bytes in files of {held:,}"
        )


def _load(path: Path, like: dict[str, Any]) -> dict[str, Any]:
    from orbax.checkpoint import v1 as ocp

    return ocp.load_checkpointables(path, like)


def _read_back(path: Path, written: dict[str, Any]) -> None:
    """Read the shapes and an array of each tree of a checkpoint just written.

    Args:
        written: the trees' shapes by name.

    Raises:
        UserError: they are others, or cannot be read.
    """
    try:
        with _open(path, written) as (plain, stored):
            for item, tree in written.items():
                there, here = flatten_paths(stored[item]), flatten_paths(tree)
                _check_same_tree(path, there, here)
            # Of several processes all would have to read, but this one renames.
            if jax.process_count() == 1:
                trees = {item: x for item, x in written.items() if jax.tree.leaves(x)}
                _load(plain, {item: _keep_one(tree) for item, tree in trees.items()})
    except (UserError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"What was written to {path} cannot be read back and is no checkpoint "
            f"({explain(error)}); the ones before it are whole"
        ) from None


def _keep_one(tree: Any) -> Any:
    """Describe the leaf of middle size by its shape, to be loaded on one device."""
    from orbax.checkpoint import v1 as ocp

    leaves, structure = jax.tree.flatten(tree)
    order = sorted(range(len(leaves)), key=lambda i: math.prod(leaves[i].shape))
    middle = order[len(order) // 2]
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    leaves = [
        abstract(leaf, device) if i == middle else ocp.PLACEHOLDER
        for i, leaf in enumerate(leaves)
    ]
    return structure.unflatten(leaves)


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
