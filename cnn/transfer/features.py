"""The feature cache: what the head sees, computed once while the head alone trains.

A model is cut in two before its head where its trunk can be computed once. View v of
the training images is varied as the epoch v would vary them, so that with as many views
as epochs every epoch sees what it would see without the cache.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnn.augment import pipeline
from cnn.augment.pipeline import make_views
from cnn.config import Config, Numbers
from cnn.data.chunks import Loader, choose_chunk_steps, iterate_chunks
from cnn.data.images import Images
from cnn.data.order import make_eval_order
from cnn.errors import UserError
from cnn.ops import scaling
from cnn.runtime import devices, xla
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.training import epoch, steps
from cnn.training.epoch import Chunk, Pace
from cnn.training.setup import PhaseSetup, Setup
from cnn.training.steps import Batch, Structure

HEAD = "head"


def cache_features(setup: Setup, terminal: Terminal, stop: Stop) -> Setup:
    """Let phases in which the head alone trains compute on cached features.

    Prints what is cached, and why something is not.

    Raises:
        UserError: `--cache_features=always`, and the first phase cannot.
    """
    phases = [_cache_phase(setup, phase, terminal, stop) for phase in setup.phases]
    return dataclasses.replace(setup, phases=tuple(phases))


def _cache_phase(
    setup: Setup, phase: PhaseSetup, terminal: Terminal, stop: Stop
) -> PhaseSetup:
    config, images = setup.config, setup.dataset.train
    trunk, line = choose_cache(config, phase.structure, images, setup.image_shape)
    if line and phase.first_epoch == 0:
        terminal.say(line)
    if trunk is None:
        return phase
    structure = dataclasses.replace(
        phase.structure, model=trunk.head, takes_features=True
    )
    options = xla.choose_compiler_options(config.device.cpu_kernels, setup.mesh, 0)
    return dataclasses.replace(
        phase,
        structure=structure,
        train_chunk=epoch.make_train_chunk(structure, setup.mesh, options),
        compiler_options=options,
        chunk_steps=choose_chunk_steps(
            structure.steps_per_epoch,
            config.step.batch_size,
            4 * int(np.prod(trunk.shape)),
        ),
        make_loaders=functools.partial(FeatureLoaders, setup, phase.structure, stop),
        views=max(1, config.transfer.cached_views),
    )


class FeatureLoaders(Mapping[str, Loader]):
    """Loaders of features by split, each computed when first asked for.

    That of the training set holds view after view.
    """

    def __init__(
        self,
        setup: Setup,
        structure: Structure,
        stop: Stop,
        get_weights: Callable[[], Any],
        numbers: Numbers,
    ) -> None:
        """Compute nothing yet.

        Args:
            structure: of the phase in which the head alone trains, on images.
            get_weights: returns `params` and `batch_stats`; the head alone trains.
        """
        self._setup, self._structure, self._stop = setup, structure, stop
        self._get_weights = get_weights
        self._numbers = numbers
        self._made: dict[str, Loader] = {}

    def __getitem__(self, split: str) -> Loader:
        """Return a split's features; raises Interrupted when a signal arrives."""
        if split not in self._made:
            config = self._setup.config
            views = max(1, config.transfer.cached_views) if split == "train" else 1
            features = np.concatenate([self._compute(split, v) for v in range(views)])
            labels = np.concatenate([self._setup.loaders[split].labels] * views)
            images = Images(labels, features.shape[1:], features.__getitem__, True, 4)
            self._made[split] = Loader(images, config.data, self._setup.mesh)
        return self._made[split]

    def __iter__(self) -> Iterator[str]:
        return iter(self._setup.loaders)

    def __len__(self) -> int:
        return len(self._setup.loaders)

    def _compute(self, split: str, view: int) -> np.ndarray:
        """Compute the features of one view, float32 [N, …]."""
        loader = self._setup.loaders[split]
        batch_size = self._setup.config.step.batch_size
        positions, mask = make_eval_order(len(loader), batch_size)
        size = choose_chunk_steps(len(positions), batch_size, loader.image_bytes)
        everywhere, variables = (
            devices.replicated(self._setup.mesh),
            self._get_weights(),
        )
        inputs = devices.put(everywhere, (self._numbers, np.int32(view)))

        def make_arguments(chunk: Chunk, first: int, last: int) -> tuple:
            bounds = epoch.make_bounds(first % size, last - first)
            bounds = devices.put(everywhere, bounds)
            return variables, inputs, chunk, bounds

        is_varied, structure = split == "train", self._structure
        if not is_varied:
            structure = self._setup.for_evaluation(structure)
        program = make_feature_chunk(structure, self._setup.mesh, is_varied)
        order = {"positions": positions, "ids": positions}
        with contextlib.closing(iterate_chunks(loader, size, order)) as chunks:
            found = [
                np.asarray(features[first % size : (last - 1) % size + 1])
                for first, last, features, _ in epoch.run_chunks(
                    program, chunks, make_arguments, self._stop, Pace()
                )
            ]
        epoch.check_whole(sum(map(len, found)), len(positions))
        whole = np.concatenate(found)
        return whole.reshape(-1, *whole.shape[2:])[: int(mask.sum())]


@functools.lru_cache(epoch.PROGRAMS_KEPT)
def make_feature_chunk(
    structure: Structure, mesh: Mesh, is_varied: bool
) -> Callable[..., jax.Array]:
    """Make the program that computes the features of some batches of a chunk.

    Args:
        structure: of the phase in which the head alone trains, on images.
        mesh: the devices, each of which gets the features whole.
        is_varied: whether images are varied, as those of the training set.

    Returns:
        A jitted function of (variables, (numbers, epoch), chunk, bounds) that returns
        features float32 [S, B, …], filled between the bounds.
    """

    def see(variables: Any, inputs: tuple, batch: Batch) -> jax.Array:
        numbers, number = inputs
        if is_varied:
            images = steps.prepare_batch(structure, number, batch, numbers)["images"]
        else:
            images = make_views(batch["images"], "none", structure.image_size)[0]
            images = scaling.scale_images(images, structure.mean, structure.std)
        seen: dict[str, Any] = {}
        with nn.intercept_methods(watch_head(seen)):
            structure.model.apply(variables, images, train=False)
        return seen["features"].astype(jnp.float32)

    def feature_chunk(
        variables: Any, inputs: tuple, chunk: Chunk, bounds: tuple[jax.Array, jax.Array]
    ) -> jax.Array:
        def compute(i: jax.Array) -> jax.Array:
            return see(variables, inputs, epoch.take_batch(chunk, i))

        def body(i: jax.Array, filled: jax.Array) -> jax.Array:
            return filled.at[i].set(compute(i))

        like = jax.eval_shape(compute, bounds[0])
        empty = jnp.zeros((chunk["ids"].shape[0], *like.shape), like.dtype)
        return jax.lax.fori_loop(*bounds, body, empty)

    return jax.jit(feature_chunk, out_shardings=devices.replicated(mesh))


class HeadAlone(nn.Module):
    """A model of nothing but a head; takes what the whole model's head is given."""

    head: nn.Module

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False, **rates: Any) -> jax.Array:
        """Map features [N, …] to logits [N, K]."""
        del train, rates
        return self.head(x)


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A model cut in two before its head.

    Attributes:
        head: the head as a model of its own, with the same parameters.
        shape: of one image's features.
    """

    head: HeadAlone
    shape: tuple[int, ...]


def choose_cache(
    config: Config,
    structure: Structure,
    images: Images,
    image_shape: tuple[int, int, int],
) -> tuple[Trunk | None, str]:
    """Decide whether a phase works on cached features.

    Args:
        image_shape: (H, W, C) of what the model sees.

    Returns:
        The trunk whose features are cached, None to work on images; and a line to
        print about it, empty where more than the head trains.

    Raises:
        UserError: `--cache_features=always`, and the first phase cannot; or
            `--cached_views` are asked for where there are none.
    """
    wish, phase = config.transfer.cache_features, structure.rule.phase
    is_head = phase is not None and {x.split("/")[0] for x in phase.trained} == {HEAD}
    views = config.transfer.cached_views
    if not is_head:
        is_first = phase is None or phase.first_epoch == 0
        if is_first and (wish == "always" or views):
            given = f"cached_views={views}" if views else "cache_features=always"
            raise UserError(
                f"--{given}: more than the head trains from the beginning; give "
                "--train_only=head"
            )
        return None, ""
    if wish == "never":
        return None, ""
    trunk = cut_before_head(structure, image_shape)
    obstacle = _find_obstacle(config, trunk, images.shape)
    if trunk is None or obstacle:
        if wish == "always":
            raise UserError(f"--cache_features=always is not possible: {obstacle}")
        return None, f"features  are not cached: {obstacle}"
    if views and not pipeline.varies(
        config.augment, images.shape, config.data.training_size
    ):
        raise UserError(
            f"--cached_views={views}: training images do not vary, and all views "
            "would be one; leave it out, or vary them, as by --flip_probability=0.5"
        )
    views = max(1, views)
    size = 4 * int(np.prod(trunk.shape)) * len(images) * views
    if wish == "auto" and not config.data.fits_in_memory(size):
        return None, f"features  are not cached: they would take {size:,} bytes"
    return trunk, f"features  are computed once: {views} view(s), {size:,} bytes"


def cut_before_head(
    structure: Structure, image_shape: tuple[int, int, int]
) -> Trunk | None:
    """Cut a model before its head.

    Returns:
        None where the head is not the last that the model computes.
    """
    seen: dict[str, Any] = {}

    def run() -> None:
        images = jnp.zeros((1, *image_shape), jnp.float32)
        with nn.intercept_methods(watch_head(seen)):
            logits, _ = structure.model.init_with_output(jax.random.key(0), images)
        seen["is_last"] = seen.get("output") is logits

    jax.eval_shape(run)
    if not seen["is_last"]:
        return None
    head = HeadAlone(seen["module"].clone(parent=None, name=None))
    return Trunk(head, seen["features"].shape[1:])


def _find_obstacle(
    config: Config, trunk: Trunk | None, stored: tuple[int, int, int]
) -> str:
    """Say why the head's features cannot be computed once.

    Args:
        stored: (H, W, C) of the stored images.

    Returns:
        The reason; empty when they can.
    """
    options, size = config.augment, config.data.training_size
    if trunk is None:
        return f"--model={config.model.model} computes on after its head"
    if config.data.image_size_schedule:
        return "they depend on the size of images, which --image_size_schedule changes"
    if config.distillation.teacher:
        return "--teacher sees images, not features"
    model = config.model
    if model.dropout_rate or model.stochastic_depth_rate or model.dropblock_rate:
        return "dropout differs from step to step"
    if options.mixup_alpha or options.cutmix_alpha:
        return "mixing differs from step to step"
    if options.augment_repeats > 1:
        return "--augment_repeats varies an image several times an epoch"
    if options.tta != "none":
        return "--tta averages several views"
    if not config.transfer.cached_views and pipeline.varies(options, stored, size):
        return "images vary from epoch to epoch; --cached_views=K caches K views"
    return ""


def watch_head(seen: dict[str, Any]) -> Callable[..., Any]:
    """Make an interceptor that notes the head, what it is given and what it returns."""

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        output = call(*args, **kwargs)
        if context.module.path == (HEAD,) and context.method_name == "__call__":
            seen.update(module=context.module, features=args[0], output=output)
        return output

    return note
