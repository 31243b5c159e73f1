"""Running statistics of batch normalisation, computed again for given weights.

Training leaves a moving average over weights that have changed since, and averaged
weights have statistics of none. Here they are means over N batches: of the batches'
means, and of their variances. The batches are those that training would take in the N
steps after a given one, varied and mixed as there, whole (`--accumulate_steps` divides
none), dropout included: a pure function of the weights, the images, seed and step.
Where evaluation has another size of images, training images are seen as there, not
varied.

Source: Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, and PyTorch's
    `torch.optim.swa_utils.update_bn`; Touvron et al. 2019 (at another size),
    https://arxiv.org/abs/1906.06423
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnn import keys
from cnn.augment.options import AugmentOptions
from cnn.config import Numbers
from cnn.data.chunks import Loader, choose_chunk_steps, iterate_chunks
from cnn.data.order import draw_epoch
from cnn.errors import UserError
from cnn.models import layers
from cnn.optim import freezing
from cnn.optim.freezing import Phase
from cnn.optim.schedules import Clock
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop
from cnn.training import epoch, steps
from cnn.training.setup import Setup
from cnn.training.state import TrainState, get_variables
from cnn.training.steps import Batch, Structure


def check(count: int, phases: Sequence[Phase | None]) -> None:
    """Refuse to compute statistics that are all frozen.

    Args:
        count: `--recompute_statistics`.
        phases: of the run's plan.

    Raises:
        UserError: none moves in the last phase.
    """
    if count and phases[-1] is not None and not phases[-1].moving:
        raise UserError(
            f"--recompute_statistics={count} would have no effect: no batch "
            "normalisation has statistics that move in the end (--freeze_statistics, "
            "--freeze, --freeze_through, --train_only); leave it out"
        )


def renew(setup: Setup, phase: int, state: TrainState, stop: Stop) -> TrainState:
    """Compute the statistics of the weights that are evaluated.

    Args:
        phase: the number of the run's phase; what it freezes stays.
        state: at the end of training.

    Returns:
        The state with them: of the averaged weights where averaging is on, else of the
        others. As it is where no statistics move: nothing normalises batches, or the
        phase in which early stopping has ended the run freezes them all; or without
        `--recompute_statistics`.
    """
    variables, structure = get_variables(state), setup.phases[phase].structure
    held = structure.rule.phase is not None and not structure.rule.phase.moving
    count = setup.config.train.recompute_statistics
    if not count or held or not variables["batch_stats"]:
        return state
    found = compute(setup, structure, variables, int(state.step), stop)
    if state.ema is not None:
        return state.replace(ema=state.ema | {"batch_stats": found})
    return state.replace(batch_stats=found)


def compute(
    setup: Setup, structure: Structure, variables: Any, step: int, stop: Stop
) -> Any:
    """Compute the statistics of weights over `--recompute_statistics` batches.

    Args:
        setup: of the run, whose training images and numbers are taken.
        structure: of its steps.
        variables: `params` and `batch_stats`, of which the frozen ones stay.
        step: the number of steps before the first batch.

    Returns:
        The new `batch_stats`, on the devices.

    Raises:
        Interrupted: a signal arrived.
        UserError: the device has too little memory.
    """
    loader, structure, numbers = _choose_images(setup, structure)
    drawn = _draw(setup, step, setup.config.train.recompute_statistics, stop)
    count, batch_size = drawn["ids"].shape
    size = choose_chunk_steps(count, batch_size, loader.image_bytes)
    everywhere = devices.replicated(setup.mesh)
    means = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    program = make_chunk_program(structure, setup.mesh)

    def make_arguments(chunk: epoch.Chunk, first: int, last: int) -> tuple:
        bounds = epoch.make_bounds(first % size, last - first)
        start = np.int32(first // size * size), np.int32(step)
        placed = devices.put(everywhere, (numbers, bounds, start))
        return variables, means, chunk, *placed

    chunks = iterate_chunks(loader, size, {"positions": drawn["ids"], **drawn})
    last = 0
    with contextlib.closing(chunks):
        for _, last, means, _ in epoch.run_chunks(  # noqa: B007
            program, chunks, make_arguments, stop, epoch.Pace()
        ):
            pass
    epoch.check_whole(last, count)
    return means


@functools.lru_cache(epoch.PROGRAMS_KEPT)
def make_chunk_program(structure: Structure, mesh: Mesh) -> Callable[..., Any]:
    """Make the program that adds some batches of a chunk to the means.

    Returns:
        `add_chunk`, jitted, of (variables, means, chunk, numbers, bounds, start).
    """
    return jax.jit(functools.partial(add_chunk, structure, mesh))


def add_chunk(
    structure: Structure,
    mesh: Mesh,
    variables: Any,
    means: Any,
    chunk: epoch.Chunk,
    numbers: Numbers,
    bounds: tuple[jax.Array, jax.Array],
    start: tuple[jax.Array, jax.Array],
) -> Any:
    """Add some batches of a chunk to the means of statistics; pure.

    Args:
        variables: `params` and `batch_stats`.
        means: over the batches before them, as `batch_stats`.
        bounds: the first batch of the chunk and the one after the last, int32 [].
        start: the number of batches before the chunk, and of steps before all.

    Returns:
        The means with them.
    """
    everywhere = devices.replicated(mesh)
    variables = jax.lax.with_sharding_constraint(variables, everywhere)

    def body(i: jax.Array, means: Any) -> Any:
        done = start[0] + i
        batch = epoch.take_batch(chunk, i)
        found = measure(structure, variables, batch, numbers, start[1] + done)
        # In this form the mean of equal values is that value, to the bit.
        return jax.tree.map(lambda m, x: m + (x - m) / (done + 1), means, found)

    return devices.place_state(mesh, jax.lax.fori_loop(*bounds, body, means))


def measure(
    structure: Structure,
    variables: Any,
    batch: Batch,
    numbers: Numbers,
    step: jax.Array,
) -> Any:
    """Measure the statistics of one training batch, as `batch_stats`.

    Args:
        batch: `images`, `labels`, `ids`.
        step: int32 [], that of which it is the batch.
    """
    clock = Clock(step, structure.steps_per_epoch)
    images = steps.prepare_batch(structure, clock.epoch, batch, numbers)["images"]
    with freezing.hold_statistics(structure.rule.phase):
        _, updated = _forget(structure.model).apply(
            variables,
            images,
            train=True,
            **layers.select_rates(structure.model, vars(numbers)),
            rngs={"dropout": keys.dropout_key(numbers.seed, step)},
            mutable=["batch_stats", "auxiliary"],
        )
    return updated["batch_stats"]


def _forget(model: nn.Module) -> nn.Module:
    """Return a model whose running statistics are those of the last batch alone."""
    return model.clone(layers=dataclasses.replace(model.layers, momentum=0.0))


def _choose_images(
    setup: Setup, structure: Structure
) -> tuple[Loader, Structure, Numbers]:
    """Return the training images, and the structure and numbers they are seen with."""
    seen = setup.config.data.for_evaluation()
    if seen.image_size in (0, structure.resized_to or structure.image_size):
        return setup.loaders["train"], structure, setup.numbers
    train = setup.dataset.train
    loader = Loader(train.refit(seen) if train.refit else train, seen, setup.mesh)
    plain = dataclasses.replace(setup.config, augment=AugmentOptions())
    structure = setup.for_evaluation(structure)
    structure = dataclasses.replace(structure, augment=plain.make_static().augment)
    return loader, structure, plain.make_numbers()


def _draw(setup: Setup, step: int, count: int, stop: Stop) -> dict[str, np.ndarray]:
    """Draw the examples of `count` batches after a step, as of `draw_epoch`."""
    length, seed = setup.structure.steps_per_epoch, setup.config.train.seed
    labels, options = setup.loaders["train"].labels, setup.config.step
    how = options.batch_size, options.sampling, options.repeats_in_batch
    number, done = divmod(step, length)
    drawn, available = [], -done
    while available < count:
        stop.check()  # a million batches of a small set take minutes
        drawn.append(draw_epoch(seed, number, labels, *how))
        number, available = number + 1, available + length
    last = slice(done, done + count)
    return {
        name: np.concatenate([one[name] for one in drawn])[last] for name in drawn[0]
    }
