"""Chunks of batches on the device, from images that lie there or are streamed.

A chunk is a dict of arrays [S, B, …] on the mesh, `images` uint8 among them. Resident
and streamed images fill the same chunk for the same program, so that results are the
same bits. Of several processes each reads what its own devices hold.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from cnn.data.images import Images
from cnn.data.labels import as_stored
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.runtime import background, devices

CHUNK_BYTES = 32 * 2**20
RESIDENT_SHARE = 0.25


def choose_chunk_steps(num_steps: int, batch_size: int, image_bytes: int) -> int:
    """Choose how many batches a chunk holds.

    Args:
        num_steps: batches in all, at least 1.

    Returns:
        S such that a chunk has at most `CHUNK_BYTES` (or one batch), and the chunks
        of an epoch are about equally full.
    """
    most = max(1, CHUNK_BYTES // (batch_size * image_bytes))
    chunks = -(-num_steps // most)
    return -(-num_steps // chunks)


class Loader:
    """Fills chunks with chosen images, from the device or from their source.

    Attributes:
        mesh: the devices that chunks lie on.
        labels: int32 [N], or several an image, uint8 [N, K].
        image_shape: (H, W, C).
        image_bytes: bytes of one image.
    """

    def __init__(
        self,
        images: Images,
        options: DataOptions,
        mesh: Mesh,
        reads: bool = True,
        beside: int = 0,
    ) -> None:
        """Decide where the images lie; those that stay in memory are read at once.

        With `--resident=auto` they lie on the device when they take at most a quarter
        of its memory, else decoded in the host's memory when they fit there; with
        `always` on the device; with `never` in files. What a device of the host's own
        memory holds must fit there too.

        Args:
            reads: False to decide alone; the loader then fills nothing.
            beside: bytes of the other images of the run, decoded.

        Raises:
            UserError: `always`, and the device cannot hold them.
        """
        size, memory = images.num_bytes, devices.get_device_memory(mesh)
        is_kept = images.decoded or options.keeps_in_memory(size + beside)
        fits = size <= RESIDENT_SHARE * memory
        fits = fits and (is_kept or not devices.lie_in_host_memory(mesh))
        self.is_resident = options.resident == "always" or (
            options.resident == "auto" and fits
        )
        self.mesh = mesh
        self.labels = as_stored(images.labels)
        self.image_shape = images.shape
        self.image_bytes = images.num_bytes // len(images)
        if not self.is_resident:
            is_read = reads and is_kept and not images.decoded
            self._images = images.in_memory() if is_read else images
            return
        if size > memory:
            raise UserError(
                f"--resident=always: the images take {size / 2**30:.1f} GiB, a device "
                f"has {memory / 2**30:.1f} GiB; use --resident=never"
            )
        if not reads:
            return
        self._on_device = devices.put(devices.replicated(mesh), images.read_all())

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def resident(self) -> dict[str, jax.Array]:
        """Return `images` uint8 [N, H, W, C] and `labels` on the device."""
        return {"images": self._on_device, "labels": jax.numpy.asarray(self.labels)}

    def fill(self, positions: np.ndarray, **arrays: np.ndarray) -> dict[str, Any]:
        """Fill one chunk.

        Args:
            positions: int32 [S, B], which images.
            **arrays: more arrays [S, B, …] of the chunk.

        Returns:
            `images` uint8 [S, B, H, W, C], `labels` [S, B] or [S, B, K] and `arrays`,
            on the devices, batches split over them.
        """
        sharding = devices.split_batches(self.mesh, positions.shape[1])
        chunk = devices.put(sharding, {"labels": self.labels[positions], **arrays})
        if self.is_resident:
            everywhere = devices.replicated(self.mesh)
            positions = devices.put(everywhere, positions)
            images = _gather(self._on_device, positions, sharding)
        else:
            images = self._stream(positions, sharding)
        return chunk | {"images": images}

    def describe(self, steps: int, **arrays: np.ndarray) -> dict[str, Any]:
        """Describe a chunk as `fill` makes it; nothing is read.

        Args:
            steps: S.
            **arrays: more arrays [T, B, …] whose parts it holds; at least one.

        Returns:
            Shapes, types and places of the arrays.
        """
        batch_size = next(iter(arrays.values())).shape[1]
        sharding = devices.split_batches(self.mesh, batch_size)
        batch = {
            "images": (self.image_shape, np.uint8),
            "labels": (self.labels.shape[1:], self.labels.dtype),
            **{name: (x.shape[2:], x.dtype) for name, x in arrays.items()},
        }
        return {
            name: jax.ShapeDtypeStruct(
                (steps, batch_size, *shape), dtype, sharding=sharding
            )
            for name, (shape, dtype) in batch.items()
        }

    def _stream(self, positions: np.ndarray, sharding: NamedSharding) -> jax.Array:
        """Read those images of a chunk that this process's devices hold."""
        held = sharding.addressable_devices_indices_map(positions.shape).values()
        columns = np.arange(positions.shape[1])
        own = np.unique(np.concatenate([columns[index[1]] for index in held]))
        flat = self._images.read(positions[:, own].reshape(-1))
        images = flat.reshape(len(positions), len(own), *self._images.shape)

        def take(index: tuple[slice, ...]) -> np.ndarray:
            first, last = np.searchsorted(own, columns[index[1]][[0, -1]])
            return images[:, first : last + 1]

        shape = (*positions.shape, *self._images.shape)
        return jax.make_array_from_callback(shape, sharding, take)


def iterate_chunks(
    loader: Loader, steps: int, arrays: dict[str, np.ndarray], first: int = 0
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Yield the chunks of an epoch, the next being filled while one is used.

    A thread fills them, a file or a chunk at a time; see `background`.

    Args:
        steps: S, the batches of a chunk; the last chunk is filled up with repeats of
            position 0 that must not be run.
        arrays: `positions` int32 [T, B], and more arrays [T, B] of the chunks.
        first: the batch to begin with; chunks begin at multiples of S all the same.

    Yields:
        First batch, last batch (exclusive), counted over the epoch, and the chunk.

    Raises:
        Failed: the thread has, or an image cannot be read.
        Interrupted: a signal arrived while a chunk was waited for.
    """
    total = len(arrays["positions"])
    starts = range(first // steps * steps, total, steps)

    def fill(start: int) -> dict[str, Any]:
        background.note(f"batch {start + 1} of {total}")
        part = {name: array[start : start + steps] for name, array in arrays.items()}
        missing = steps - len(part["positions"])
        part = {
            name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
            for name, array in part.items()
        }
        return loader.fill(part.pop("positions"), **part)

    def begin(start: int) -> background.Job:
        return background.start("reads images", fill, start)

    upcoming = begin(starts[0]) if len(starts) else None
    for start in starts:
        try:
            chunk = upcoming.result()
        except (UserError, OSError) as error:
            raise background.Failed(str(error)) from error
        if start + steps < total:
            upcoming = begin(start + steps)
        yield max(start, first), min(start + steps, total), chunk


@functools.partial(jax.jit, static_argnums=2)
def _gather(images: jax.Array, positions: jax.Array, to: NamedSharding) -> jax.Array:
    return jax.lax.with_sharding_constraint(images[positions], to)
