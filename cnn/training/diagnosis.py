"""A training step looked into: what it saw and what each layer made of it; pure.

The program is another one than the step's, of the same functions and draws: what it
computes in floating point may differ from the step's in the last digits.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn import keys
from cnn.augment import pipeline
from cnn.config import Numbers
from cnn.models import layers
from cnn.optim import freezing
from cnn.optim.schedules import Clock
from cnn.training import epoch, kernels, losses, steps
from cnn.training.state import TrainState
from cnn.training.steps import Batch, Structure


@functools.lru_cache(epoch.PROGRAMS_KEPT)
def make_program(
    structure: Structure, names: tuple[str, ...], compiler_options: tuple = ()
) -> Callable[..., Any]:
    """Make the program that looks into a step.

    As the step it is the body of a loop, outside of which XLA computes convolutions on
    CPU otherwise.

    Args:
        compiler_options: of `xla.choose_compiler_options`, those of the steps.

    Returns:
        `diagnose`, jitted, of (state, chunk, numbers, count); `count` is 1, int32 [],
        and the first batch of the chunk is looked into.
    """
    structure = kernels.adapt(structure, compiler_options)

    def look(
        state: TrainState, chunk: Batch, numbers: Numbers, count: jax.Array
    ) -> Any:
        def body(i: jax.Array, _: Any) -> Any:
            batch = epoch.take_batch(chunk, i)
            return diagnose(structure, names, state, batch, numbers)

        shapes = jax.eval_shape(lambda: body(np.int32(0), None))
        empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.fori_loop(np.int32(0), count, body, empty)

    return jax.jit(look, compiler_options=dict(compiler_options))


def diagnose(
    structure: Structure,
    names: tuple[str, ...],
    state: TrainState,
    batch: Batch,
    numbers: Numbers,
) -> dict[str, Any]:
    """Compute what a step sees and what its gradient is made of.

    Args:
        names: of the layers that are looked into, by path.
        state: before the step, with the variables of a teacher, if there is one.
        batch: `images`, `labels`, `ids`; of N examples, repeats counted.

    Returns:
        `ids` int32 [N]; `images` float32 [N, H, W, C] and `targets` float32 [N, K], as
        the model is trained on them; `labels`; `losses` float32 [N], those of the
        model's own loss as the step logs their mean; `activations`, by layer the
        largest magnitude of its output, float32 [], inf where a number of it is not
        finite; `gradients` of the parameters that train, before clipping.
    """
    clock = Clock(state.step, structure.steps_per_epoch)
    prepared = steps.prepare_batch(structure, clock.epoch, batch, numbers)
    gradients, *_ = steps.compute_gradients(structure, state, prepared, numbers)
    example_losses, peaks = _apply(structure, names, state, prepared, numbers)
    return {
        "ids": pipeline.repeat_examples(structure.augment, batch)["ids"],
        **prepared,
        "losses": example_losses,
        "activations": peaks,
        "gradients": gradients,
    }


def _apply(
    structure: Structure,
    names: tuple[str, ...],
    state: TrainState,
    batch: Batch,
    numbers: Numbers,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Apply the model as the step does, in pieces; losses [N] and peaks by layer."""
    key, pieces = keys.dropout_key(numbers.seed, state.step), structure.accumulate_steps
    compute = losses.make_loss(structure.loss, structure.loss_reduction)

    def apply(key: jax.Array, piece: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        peaks: dict[str, jax.Array] = {}
        with (
            nn.intercept_methods(_note_peaks(names, peaks)),
            freezing.hold_statistics(structure.rule.phase),
        ):
            logits, _ = structure.model.apply(
                {"params": state.params, "batch_stats": state.batch_stats},
                piece["images"],
                train=True,
                **layers.select_rates(structure.model, vars(numbers)),
                rngs={"dropout": key},
                mutable=["batch_stats", "auxiliary"],
            )
        return compute(logits, piece["targets"]), peaks

    if pieces == 1:
        return apply(key, batch)
    split = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, pieces, *x.shape[1:]), 1, 0), dict(batch)
    )
    piece_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(pieces))
    found, peaks = jax.lax.map(lambda x: apply(*x), (piece_keys, split))
    return found.T.reshape(-1), jax.tree.map(jnp.max, peaks)


def _note_peaks(
    names: tuple[str, ...], peaks: dict[str, jax.Array]
) -> Callable[..., Any]:
    """Return an interceptor that notes the largest magnitude of each layer's output."""

    def note(call: Any, args: tuple, kwargs: dict, context: Any) -> Any:
        output = call(*args, **kwargs)
        name = "/".join(context.module.path)
        if context.method_name == "__call__" and name in names:
            peak = jnp.max(jnp.abs(output)).astype(jnp.float32)
            # Of NaN alone the maximum came out as -inf on CPU (jax 0.12.0.1).
            peak = jnp.where(jnp.all(jnp.isfinite(output)), peak, jnp.inf)
            peaks[name] = jnp.maximum(peaks.get(name, peak), peak)
        return output

    return note
