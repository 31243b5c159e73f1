"""The training step and the evaluation step: pure functions, not jitted here.

Images are uint8 [N, H, W, C], as they were read; labels int32 [N]. A batch is a dict
of `images`, `labels` and, in training, `ids` (positions in the training set), in
evaluation, `mask` (False for padding).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnn import augment, averaging, keys, losses, metrics, optimizer, schedules
from cnn.models import remat
from cnn.ops import scaling
from cnn.optimizer import Hyperparameters
from cnn.options import option
from cnn.state import TrainState, replace_leaves
from cnn.task import Batch, Sums, Task
from cnn.transfer import freezing, rates

__all__ = ["Batch", "StepOptions", "Sums", "Task", "eval_step", "train_step"]


@dataclasses.dataclass(frozen=True)
class StepOptions:
    """How a step computes its gradient."""

    batch_size: int = option(
        128, "examples that one update of the weights sees", within="[1, inf)"
    )
    accumulate_steps: int = option(
        1,
        "pieces in which a batch's gradient is computed, one after the other, to save "
        "memory; the update stays that of the whole batch",
        within="[1, inf)",
    )


def train_step(
    task: Task, state: TrainState, batch: Batch, hyperparameters: Hyperparameters
) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
    """Take one optimizer step.

    Args:
        task: the static part.
        state: before the step.
        batch: `images`, `labels`, `ids`.
        hyperparameters: every number, traced; None where absent.

    Returns:
        The state after it; the batch's metric sums (`loss`, `correct`, `count`);
        a record of `loss`, `learning_rate` and `gradient_norm`, float32 [].
    """
    epoch = state.step // task.steps_per_epoch
    prepared = prepare_batch(task, epoch, batch, hyperparameters)
    gradients, batch_stats, sums = _compute_gradients(
        task, state, prepared, hyperparameters
    )
    when = state.step, task.steps_per_epoch, hyperparameters
    size = batch["labels"].shape[0]
    rate = optimizer.compute_learning_rate(task.optimizer, *when, size)
    schedule = schedules.compute_schedule(task.optimizer, *when)
    chain = optimizer.make_optimizer(task.optimizer, rate, hyperparameters, schedule)
    scale = functools.partial(rates.scale, task.rates, hyperparameters)
    is_decoupled = task.optimizer.decoupled_rates
    trained = freezing.select_trained(task.phase, state.params)
    scaled = scale(gradients) if is_decoupled else gradients
    updates, opt_state = chain.update(scaled, state.opt_state, trained)
    updates = updates if is_decoupled else scale(updates)
    updates = rates.stop(task.rates, hyperparameters, epoch, updates)
    params = replace_leaves(state.params, optax.apply_updates(trained, updates))
    weights, ema = {"params": params, "batch_stats": batch_stats}, state.ema
    if ema is not None:
        averaged = averaging.update_average(ema, weights, *when)
        # A weighted mean of x and x is not always x to the bit.
        ema = freezing.keep_frozen(task.phase, ema, averaged)
        weights = averaging.pull_back(ema, weights, *when)
    record = {
        "loss": sums["loss"] / sums["count"],
        "learning_rate": rate,
        "gradient_norm": optax.tree.norm(gradients),
    }
    state = TrainState(state.step + 1, **weights, opt_state=opt_state, ema=ema)
    return state, sums, record


def prepare_batch(
    task: Task,
    epoch: jax.Array | int,
    batch: Batch,
    hyperparameters: Hyperparameters,
) -> Batch:
    """Vary, scale and mix a batch: what the model is trained on.

    Args:
        task: the static part.
        epoch: int32 [], from 0.
        batch: `images`, `labels`, `ids`.
        hyperparameters: every number, traced; None where absent.

    Returns:
        `images` float32, `targets` float32 [N, K] and `labels`.
    """
    batch = augment.repeat_examples(task.augment, batch)
    labels, images = batch["labels"], batch["images"]
    smoothing = hyperparameters["label_smoothing"]
    targets = losses.make_targets(labels, task.num_classes, smoothing)
    if not task.takes_features:
        images = augment.augment_images(
            task.augment, hyperparameters, epoch, batch, task.image_size
        )
        images = scaling.scale_images(images, task.mean, task.std)
        images, targets = augment.mix_batch(
            task.augment, hyperparameters, epoch, batch, images, targets
        )
    return {"images": images, "targets": targets, "labels": labels}


def predict_step(
    task: Task, variables: Mapping[str, Any], images: jax.Array
) -> jax.Array:
    """Compute logits, float32 [N, K], of uint8 images [N, H, W, C] or of features."""
    if task.takes_features:
        return task.model.apply(variables, images, train=False).astype(jnp.float32)

    def predict(images: jax.Array) -> jax.Array:
        images = scaling.scale_images(images, task.mean, task.std)
        return task.model.apply(variables, images, train=False).astype(jnp.float32)

    tta, size = task.augment.tta, task.image_size
    return augment.average_views(predict, images, tta, size)


def eval_step(task: Task, variables: Mapping[str, Any], batch: Batch) -> Sums:
    """Sum the metrics of one batch.

    Args:
        task: the static part.
        variables: `params` and `batch_stats`.
        batch: `images`, `labels`, `mask`.

    Returns:
        Sums as of `metrics.create_sums`; the loss is the plain cross-entropy.
    """
    logits = predict_step(task, variables, batch["images"])
    targets = losses.make_targets(batch["labels"], task.num_classes, None)
    example_losses = losses.cross_entropy(logits, targets)
    return metrics.compute_sums(logits, batch["labels"], example_losses, batch["mask"])


def create_train_sums() -> Sums:
    """Create the sums that a training epoch keeps, over no examples."""
    zero = jnp.zeros((), jnp.int32)
    return {"loss": jnp.zeros((), jnp.float32), "correct": zero, "count": zero}


def compute_loss(
    trained: Any,
    params: Any,
    batch_stats: Any,
    piece: Batch,
    key: jax.Array,
    task: Task,
    hyperparameters: Hyperparameters,
) -> tuple[jax.Array, tuple[Any, Sums]]:
    """Compute what training minimises, over a batch or a piece of one.

    Args:
        trained: the parameters that train, which are differentiated.
        params: all of them.
        batch_stats: running statistics before.
        piece: `images` float32, scaled; `targets` [N, K]; `labels`.
        key: what dropout is drawn from.
        task: the static part.
        hyperparameters: the numbers.

    Returns:
        The sum of the examples' losses, weighted by class; the running statistics
        after; the metric sums, whose `loss` is not weighted.
    """
    labels, targets = piece["labels"], piece["targets"]
    params = replace_leaves(params, trained)
    with freezing.hold_statistics(task.phase), remat.recompute_blocks(task.remat):
        logits, updated = task.model.apply(
            {"params": params, "batch_stats": batch_stats},
            piece["images"],
            train=True,
            dropout_rate=hyperparameters["dropout_rate"],
            stochastic_depth_rate=hyperparameters["stochastic_depth_rate"],
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
    example_losses = losses.cross_entropy(logits, targets)
    sums = {
        "loss": jnp.sum(example_losses),
        "correct": jnp.sum(jnp.argmax(logits, -1) == labels, dtype=jnp.int32),
        "count": jnp.full((), labels.shape[0], jnp.int32),
    }
    loss = sums["loss"]
    if task.class_weights:
        weights = jnp.asarray(task.class_weights, jnp.float32)[None]
        loss = jnp.sum(losses.cross_entropy(logits, targets * weights))
    return loss, (updated.get("batch_stats", {}), sums)


def _compute_gradients(
    task: Task, state: TrainState, batch: Batch, hyperparameters: Hyperparameters
) -> tuple[Any, Any, Sums]:
    """Differentiate the batch's mean loss, in one piece or several."""
    key = keys.dropout_key(hyperparameters["seed"], state.step)
    trained = freezing.select_trained(task.phase, state.params)
    differentiate = functools.partial(
        jax.grad(compute_loss, has_aux=True), trained, state.params
    )

    def add_piece(carry: Any, numbered_piece: Any) -> tuple[Any, None]:
        gradients, batch_stats, sums = carry
        number, piece = numbered_piece
        piece_key = jax.random.fold_in(key, number)
        more, (batch_stats, piece_sums) = differentiate(
            batch_stats, piece, piece_key, task, hyperparameters
        )
        gradients = jax.tree.map(jnp.add, gradients, more)
        return (gradients, batch_stats, metrics.add_sums(sums, piece_sums)), None

    if task.accumulate_steps == 1:
        gradients, (batch_stats, sums) = differentiate(
            state.batch_stats, batch, key, task, hyperparameters
        )
    else:
        pieces = task.accumulate_steps
        split = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, pieces, *x.shape[1:]), 1, 0), batch
        )
        nothing = jax.tree.map(jnp.zeros_like, trained)
        start = (nothing, state.batch_stats, create_train_sums())
        (gradients, batch_stats, sums), _ = jax.lax.scan(
            add_piece, start, (jnp.arange(pieces), split)
        )
    scale = 1 / losses.sum_weights(task.class_weights, batch["labels"])
    return jax.tree.map(lambda x: x * scale, gradients), batch_stats, sums
