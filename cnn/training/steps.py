"""The training step and the evaluation step: pure functions, not jitted here.

Images are uint8 [N, H, W, C], as they were read; labels int32 [N], or of several an
image uint8 [N, K]. A batch is a dict of `images`, `labels` and, in training, `ids`
(positions in the training set), in evaluation, `mask` (False for padding).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn import keys
from cnn.augment import pipeline, resize
from cnn.augment.options import AugmentOptions
from cnn.config import Numbers
from cnn.models import auxiliary, layers, remat
from cnn.models.variables import replace_leaves
from cnn.ops import scaling
from cnn.optim import freezing, optimizer, sharpness, weight_averaging
from cnn.optim.optimizer import Rule
from cnn.optim.schedules import Clock
from cnn.training import distillation, examples, losses, metrics, noise_scale
from cnn.training.state import TrainState
from cnn.training.tasks import MULTICLASS, Task

Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a step is made of besides its numbers; nothing here changes in a phase.

    Equal structures are equal objects, and runs of equal ones share their programs.

    Attributes:
        model: maps float32 images to logits [N, num_classes].
        mean: what is subtracted from each channel of [0, 1] images.
        std: what each channel is then divided by.
        image_size: height and width in pixels of what the model sees, cut from stored
            images: in training at a random place, in evaluation from the centre; 0
            takes them whole.
        resized_to: height and width in pixels that training images are resized to when
            they have been varied; 0 leaves them at `image_size`.
        steps_per_epoch: the length of an epoch.
        augment: the structure of augmentation.
        takes_features: whether a training batch's `images` are what the model takes,
            neither to be varied nor scaled.
        task: what labels are.
        loss: a name of `losses.LOSSES`.
        loss_reduction: over classes, `mean` or `sum`.
        class_weights: K weights of the loss; empty when all are 1.
        teacher: whom the model learns from besides the labels; None: nobody.
        accumulate_steps: pieces a batch is computed in.
        log_noise_scale: whether to compare their gradients with the whole batch's.
        remat: whether the backward pass computes the model's blocks again.
        tracked_examples: N, how many the state keeps numbers of; 0: of none.
        rule: the static part of the update.
        cpu_kernels: what the run takes for them, by which evaluation chooses its own.
    """

    model: nn.Module
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int = 0
    resized_to: int = 0
    steps_per_epoch: int = 1
    augment: AugmentOptions = AugmentOptions()
    takes_features: bool = False
    task: Task = MULTICLASS
    loss: str = "softmax"
    loss_reduction: str = "mean"
    class_weights: tuple[float, ...] = ()
    teacher: distillation.Teacher | None = None
    accumulate_steps: int = 1
    log_noise_scale: bool = False
    remat: bool = False
    tracked_examples: int = 0
    rule: Rule = Rule()
    cpu_kernels: str = "auto"


def train_step(
    structure: Structure, state: TrainState, batch: Batch, numbers: Numbers
) -> tuple[TrainState, Sums, dict[str, jax.Array]]:
    """Take one optimizer step.

    Args:
        batch: `images`, `labels`, `ids`.

    Returns:
        The state after it; the batch's metric sums (`loss`, `count` and what the task
        counts); the step's metrics `loss`, `learning_rate` and `gradient_norm`,
        float32 [], and those of `noise_scale.estimate` where it is logged.
    """
    clock = Clock(state.step, structure.steps_per_epoch)
    prepared = prepare_batch(structure, clock.epoch, batch, numbers)
    gradients, batch_stats, sums = compute_gradients(
        structure, state, prepared, numbers
    )
    noise = {}
    if structure.log_noise_scale:
        count, pieces = batch["labels"].shape[0], structure.accumulate_steps
        of_pieces = sums.pop("piece_square")
        noise = noise_scale.estimate(of_pieces, gradients, count, pieces)
    if structure.tracked_examples:
        state = _note_examples(structure, state, clock.epoch, prepared, sums)
    if numbers.sam_rho is not None:
        near = sharpness.perturb(structure.rule, numbers, state.params, gradients)
        near = state.replace(params=near)
        gradients, *_ = compute_gradients(structure, near, prepared, numbers)
    params, opt_state, rate = optimizer.update(
        structure.rule,
        clock,
        numbers,
        gradients,
        state.params,
        state.opt_state,
        batch_size=batch["labels"].shape[0],
    )
    weights, ema = weight_averaging.update(
        structure.rule.averaging,
        structure.rule.phase,
        clock,
        numbers,
        state.ema,
        {"params": params, "batch_stats": batch_stats},
    )
    step_metrics = {
        "loss": sums["loss"] / sums["count"],
        "learning_rate": rate,
        "gradient_norm": optax.tree.norm(gradients),
        **noise,
    }
    state = state.replace(step=state.step + 1, **weights, opt_state=opt_state, ema=ema)
    return state, sums, step_metrics


def _note_examples(
    structure: Structure,
    state: TrainState,
    epoch: jax.Array,
    prepared: Batch,
    sums: Sums,
) -> TrainState:
    """Keep what was found of a batch's examples, which leaves the sums."""
    are_repeated = "copies" in prepared
    ids, found = prepared["ids"], sums.pop("examples")
    kept = examples.note(state.examples, epoch, ids, found, are_repeated)
    return state.replace(examples=kept)


def prepare_batch(
    structure: Structure, epoch: jax.Array | int, batch: Batch, numbers: Numbers
) -> Batch:
    """Vary, scale and mix a batch: what the model is trained on.

    Args:
        epoch: int32 [], from 0.
        batch: `images`, `labels`, `ids`.

    Returns:
        `images` float32, `targets` float32 [N, K] and `labels`; where examples are
        tracked `ids` and, if one may come several times, `copies`.
    """
    options = structure.augment
    batch = pipeline.repeat_examples(options, batch)
    labels, images = batch["labels"], batch["images"]
    targets = losses.make_targets(
        labels, structure.num_classes, numbers.label_smoothing
    )
    if not structure.takes_features:
        size = structure.image_size
        images = pipeline.augment_images(options, numbers, epoch, batch, size)
        if structure.resized_to:
            images = resize.resize_whole(images, structure.resized_to)
        images = scaling.scale_images(images, structure.mean, structure.std)
        images, targets = pipeline.mix_batch(
            options, numbers, epoch, batch, images, targets
        )
    if structure.loss == "bce" and numbers.bce_threshold is not None:
        targets = losses.harden_targets(targets, numbers.bce_threshold)
    prepared = {"images": images, "targets": targets, "labels": labels}
    if structure.tracked_examples:
        prepared |= {name: batch[name] for name in ("ids", "copies") if name in batch}
    return prepared


def compute_gradients(
    structure: Structure, state: TrainState, batch: Batch, numbers: Numbers
) -> tuple[Any, Any, Sums]:
    """Differentiate the batch's mean loss, in one piece or several.

    Args:
        batch: of `prepare_batch`.

    Returns:
        Gradients of the parameters that train, running statistics, metric sums, where
        they are tracked with `examples` as of `examples.measure`; where the noise scale
        is logged, among these `piece_square`, the mean over the pieces
        of the squared norm of a piece's mean gradient.
    """
    key = keys.dropout_key(numbers.seed, state.step)
    trained = freezing.select_trained(structure.rule.phase, state.params)
    differentiate = functools.partial(
        jax.grad(compute_loss, has_aux=True), trained, state
    )

    def add_piece(carry: Any, numbered_piece: Any) -> tuple[Any, Any]:
        gradients, batch_stats, sums = carry
        number, piece = numbered_piece
        piece_key = jax.random.fold_in(key, number)
        more, (batch_stats, piece_sums) = differentiate(
            batch_stats, piece, piece_key, structure, numbers
        )
        found = piece_sums.pop("examples", None)
        gradients = jax.tree.map(jnp.add, gradients, more)
        if structure.log_noise_scale:
            piece_sums["piece_square"] = optax.tree.norm(more, squared=True)
        return (gradients, batch_stats, metrics.add_sums(sums, piece_sums)), found

    if structure.accumulate_steps == 1:
        gradients, (batch_stats, sums) = differentiate(
            state.batch_stats, batch, key, structure, numbers
        )
    else:
        pieces = structure.accumulate_steps
        split = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, pieces, *x.shape[1:]), 1, 0), batch
        )
        nothing = jax.tree.map(jnp.zeros_like, trained)
        first_sums = create_train_sums(structure.task, structure.num_classes)
        if structure.log_noise_scale:
            first_sums["piece_square"] = jnp.zeros((), jnp.float32)
        start = (nothing, state.batch_stats, first_sums)
        (gradients, batch_stats, sums), found = jax.lax.scan(
            add_piece, start, (jnp.arange(pieces), split)
        )
        if found is not None:
            sums["examples"] = examples.join_pieces(found)
    are_mixed = (numbers.mixup_alpha, numbers.cutmix_alpha) != (None, None)
    scale = 1 / losses.sum_weights(
        structure.loss, structure.class_weights, batch["labels"], are_mixed
    )
    if structure.log_noise_scale:
        sums["piece_square"] *= structure.accumulate_steps * scale**2
    return jax.tree.map(lambda x: x * scale, gradients), batch_stats, sums


def compute_loss(
    trained: Any,
    state: TrainState,
    batch_stats: Any,
    piece: Batch,
    key: jax.Array,
    structure: Structure,
    numbers: Numbers,
) -> tuple[jax.Array, tuple[Any, Sums]]:
    """Compute what training minimises, over a batch or a piece of one.

    Args:
        trained: the parameters that train, which are differentiated.
        state: holds the others, and the teacher's variables.
        batch_stats: running statistics before.
        piece: `images` float32, scaled; `targets` [N, K]; `labels`.
        key: what dropout is drawn from.

    Returns:
        The sum of the examples' losses, weighted by class and shared with what the
        teacher says, and those of auxiliary classifiers; the running statistics after;
        the metric sums, whose `loss` is the model's own, without weights by class or
        difficulty and not shared: what evaluation computes.
    """
    labels, targets = piece["labels"], piece["targets"]
    params = replace_leaves(state.params, trained)
    frozen = freezing.hold_statistics(structure.rule.phase)
    with frozen, remat.recompute_blocks(structure.remat):
        logits, updated = structure.model.apply(
            {"params": params, "batch_stats": batch_stats},
            piece["images"],
            train=True,
            **layers.select_rates(structure.model, vars(numbers)),
            rngs={"dropout": key},
            mutable=["batch_stats", "auxiliary"],
        )
    compute = losses.make_loss(structure.loss, structure.loss_reduction)
    focus = losses.get_focus(structure.loss, numbers)
    example_losses = compute(logits, targets)
    sums = {
        "loss": jnp.sum(example_losses),
        **structure.task.count(logits, labels),
        "count": jnp.full((), labels.shape[0], jnp.int32),
    }
    if structure.tracked_examples:
        sums["examples"] = examples.measure(logits, labels, example_losses)
    loss, weights = sums["loss"], None
    if structure.class_weights:
        weights = jnp.asarray(structure.class_weights, jnp.float32)
    if structure.class_weights or focus:
        loss = jnp.sum(compute(logits, targets, weights, **focus))
    if structure.teacher is not None:
        learnt = _distil(structure, state, piece, logits, numbers)
        loss += numbers.distillation_share * (learnt - loss)
    for weight, more in _weigh_auxiliary(structure, updated, numbers):
        loss += weight * jnp.sum(compute(more, targets, weights, **focus))
    return loss, (updated.get("batch_stats", {}), sums)


def _distil(
    structure: Structure,
    state: TrainState,
    piece: Batch,
    logits: jax.Array,
    numbers: Numbers,
) -> jax.Array:
    """Sum the examples' losses against the teacher, each weighted by its class."""
    teacher = structure.teacher
    taught = distillation.compute_logits(teacher, state.teacher, piece["images"])
    compute = distillation.LOSSES[teacher.kind]
    found = compute(logits, taught, numbers.distillation_temperature)
    if structure.class_weights:
        found *= jnp.asarray(structure.class_weights, jnp.float32)[piece["labels"]]
    return jnp.sum(found)


def _weigh_auxiliary(
    structure: Structure, updated: Mapping[str, Any], numbers: Numbers
) -> list[tuple[jax.Array, jax.Array]]:
    """Return weight and logits of each auxiliary classifier that trains.

    A frozen one adds no loss: it may be random, as where the head alone is new.
    """
    given, phase = numbers.auxiliary_weight, structure.rule.phase
    logits = {
        auxiliary.name_layer(name): x[-1]
        for name, x in updated.get("auxiliary", {}).items()
    }
    trained = [x for layer, x in logits.items() if phase is None or phase.trains(layer)]
    if given is None or not trained:
        return []
    weight = jnp.where(given < 0, structure.model.auxiliary_weight, given)
    return [(weight, x) for x in trained]


def predict_step(
    structure: Structure, variables: Mapping[str, Any], images: jax.Array
) -> jax.Array:
    """Compute logits, float32 [N, K], of uint8 images [N, H, W, C] or of features."""

    def predict(images: jax.Array) -> jax.Array:
        if not structure.takes_features:
            images = scaling.scale_images(images, structure.mean, structure.std)
        logits = structure.model.apply(variables, images, train=False)
        return logits.astype(jnp.float32)

    if structure.takes_features:
        return predict(images)
    size = structure.image_size
    tta, average = structure.augment.tta, structure.task.average
    return pipeline.average_views(predict, images, tta, size, average)


def eval_step(structure: Structure, variables: Mapping[str, Any], batch: Batch) -> Sums:
    """Sum the metrics of one batch.

    Args:
        variables: `params` and `batch_stats`.
        batch: `images`, `labels`, `mask`.

    Returns:
        Sums as of `Task.create_sums`; the loss is neither smoothed nor weighted, by
        class or difficulty.
    """
    return eval_examples(structure, variables, batch)[0]


def eval_examples(
    structure: Structure, variables: Mapping[str, Any], batch: Batch
) -> tuple[Sums, dict[str, jax.Array]]:
    """Sum the metrics of one batch, and keep what they are sums of.

    Args:
        batch: as of `eval_step`.

    Returns:
        Sums as of `eval_step`, and of each example `logits` float32 [N, K] and `loss`
        float32 [N].
    """
    labels, mask = batch["labels"], batch["mask"]
    logits = predict_step(structure, variables, batch["images"])
    targets = losses.make_targets(labels, structure.num_classes, None)
    compute = losses.make_loss(structure.loss, structure.loss_reduction)
    example_losses = compute(logits, targets)
    sums = structure.task.compute_sums(logits, labels, example_losses, mask)
    return sums, {"logits": logits, "loss": example_losses}


def create_train_sums(task: Task = MULTICLASS, num_classes: int = 0) -> Sums:
    """Create the sums that a training epoch keeps, over no examples, on the host."""
    counts = task.create_counts(num_classes)
    zero = np.zeros((), np.int32)
    return {"loss": np.zeros((), np.float32), **counts, "count": zero}
