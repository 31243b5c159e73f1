"""The feature cache: what the head sees, computed once while the head alone trains.

View v of the training images is varied as the epoch v would vary them, so that with
as many views as epochs every epoch sees what it would see without the cache.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnn import devices, steps
from cnn.augment.views import make_views
from cnn.data.chunks import Loader, choose_chunk_steps, iterate_chunks
from cnn.data.images import Images
from cnn.data.order import make_eval_order
from cnn.interrupt import Stop
from cnn.ops import scaling
from cnn.optimizer import Hyperparameters
from cnn.steps import Batch, Task
from cnn.transfer.trunk import watch_head

if TYPE_CHECKING:
    from cnn.config import Config


class FeatureLoaders(Mapping[str, Loader]):
    """Loaders of features by split, each computed when first asked for.

    That of the training set holds view after view.
    """

    def __init__(
        self,
        config: "Config",
        task: Task,
        loaders: Mapping[str, Loader],
        get_inputs: Callable[[], tuple[Any, Hyperparameters]],
        mesh: Mesh,
        stop: Stop,
    ) -> None:
        """Compute nothing yet.

        Args:
            config: every option.
            task: of the phase in which the head alone trains.
            loaders: of images.
            get_inputs: returns `params` and `batch_stats`, and the numbers.
            mesh: the devices.
            stop: looked at between chunks.
        """
        self._config, self._loaders, self._get_inputs = config, loaders, get_inputs
        self._mesh, self._stop = mesh, stop
        self._program = jax.jit(
            make_feature_chunk(task),
            static_argnums=0,
            out_shardings=devices.replicated(mesh),
        )
        self._made: dict[str, Loader] = {}
        self.views = max(1, config.transfer.cached_views)

    def __getitem__(self, split: str) -> Loader:
        """Return a split's features; Interrupted when a signal arrives meanwhile."""
        if split not in self._made:
            views = self.views if split == "train" else 1
            features = np.concatenate([self._compute(split, v) for v in range(views)])
            labels = np.tile(self._loaders[split].labels, views)
            images = Images(labels, features.shape[1:], features.__getitem__, True, 4)
            self._made[split] = Loader(images, self._config.data, self._mesh)
        return self._made[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def clear(self) -> None:
        """Forget what was computed with other weights or numbers."""
        self._made.clear()

    def _compute(self, split: str, view: int) -> np.ndarray:
        """Compute the features of one view, float32 [N, …]."""
        loader, batch_size = self._loaders[split], self._config.step.batch_size
        variables, numbers = self._get_inputs()
        positions, mask = make_eval_order(len(loader), batch_size)
        size = choose_chunk_steps(len(positions), batch_size, loader.image_bytes)
        arrays, found = {"positions": positions, "ids": positions}, []
        for first, last, chunk in iterate_chunks(loader, size, arrays):
            is_varied, number = split == "train", np.int32(view)
            features = self._program(is_varied, variables, chunk, numbers, number)
            found.append(np.asarray(features)[: last - first])
            self._stop.check()
        whole = np.concatenate(found)
        return whole.reshape(-1, *whole.shape[2:])[: int(mask.sum())]


def make_feature_chunk(task: Task) -> Callable[..., jax.Array]:
    """Make the program that computes the features of a chunk.

    Args:
        task: of the phase in which the head alone trains.

    Returns:
        A function of (whether images are varied, variables, chunk, hyperparameters,
        epoch) that returns features float32 [S, B, …].
    """

    def compute(
        is_varied: bool,
        variables: Any,
        chunk: Batch,
        hyperparameters: Hyperparameters,
        epoch: jax.Array,
    ) -> jax.Array:
        def see(batch: Batch) -> jax.Array:
            if is_varied:
                prepared = steps.prepare_batch(task, epoch, batch, hyperparameters)
                images = prepared["images"]
            else:
                images = make_views(batch["images"], "none", task.image_size)[0]
                images = scaling.scale_images(images, task.mean, task.std)
            seen: dict[str, Any] = {}
            with nn.intercept_methods(watch_head(seen)):
                task.model.apply(variables, images, train=False)
            return seen["features"].astype(jnp.float32)

        return jax.lax.map(see, dict(chunk))

    return compute
