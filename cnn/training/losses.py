"""Losses of a classifier: [N, K] logits and targets in, one float32 loss each out.

A new one is a function here, a line in `LOSSES` and its name in `LossOptions`. Logits
are of any float type and computed in float32. Targets are float32 in [0, 1]; for
`softmax` each row is a distribution. Weights are float32 [K], of the classes, and
multiply each class's term; None: 1. `reduce` is `jnp.mean` or `jnp.sum`, over the
classes.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn.config import Numbers
from cnn.data.labels import count_classes
from cnn.errors import UserError
from cnn.training.options import LossOptions

Reduce = Callable[..., jax.Array]
UNBALANCED = 2  # times as many examples, from which --class_weights=auto weighs
_TINY = float(np.finfo(np.float32).tiny)


def make_targets(
    labels: jax.Array, num_classes: int, label_smoothing: jax.Array | None
) -> jax.Array:
    """Turn labels into target distributions, or into a target for each class.

    Args:
        labels: int32 [N], each in [0, num_classes); or several an image, 0 and 1
            [N, K].
        label_smoothing: s in [0, 1); None means 0.

    Returns:
        float32 [N, K]: `(1 - s) · onehot + s / K`; of several an image
        `(1 - s) · labels + s / 2`, as Keras' `BinaryCrossentropy` documents.

    Source: Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567;
        https://keras.io/api/losses/probabilistic_losses/
    """
    if labels.ndim == 2:
        targets = labels.astype(jnp.float32)
        if label_smoothing is None:
            return targets
        return (1 - label_smoothing) * targets + label_smoothing / 2
    targets = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    if label_smoothing is None:
        return targets
    return (1 - label_smoothing) * targets + label_smoothing / num_classes


def harden_targets(targets: jax.Array, threshold: jax.Array) -> jax.Array:
    """Turn targets above a threshold into 1 and all others into 0.

    Source: Wightman et al. 2021, section 4.1, https://arxiv.org/abs/2110.00476
    """
    return (targets > threshold).astype(targets.dtype)


def softmax(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None = None,
    reduce: Reduce = jnp.sum,
) -> jax.Array:
    """Compute the softmax cross-entropy in nats of each example.

    A class's weight multiplies its term, as in `torch.nn.CrossEntropyLoss`.

    Args:
        reduce: has no say, terms of a distribution are summed.

    Returns:
        float32 [N].
    """
    del reduce
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(_weigh(targets, weights) * log_probabilities, axis=-1)


def bce(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None = None,
    reduce: Reduce = jnp.mean,
) -> jax.Array:
    """Compute the binary cross-entropy in nats of each example.

    Each class is a decision of its own: `-t log s(x) - (1 - t) log s(-x)`, s the
    logistic function; a class's weight multiplies both terms, as that of
    `torch.nn.BCEWithLogitsLoss` does. `reduce=jnp.sum` is `sum_classes` of timm.

    Returns:
        float32 [N].

    Source: Wightman et al. 2021, https://arxiv.org/abs/2110.00476
    """
    logits = logits.astype(jnp.float32)
    there, absent = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -reduce(
        _weigh(targets, weights) * there + _weigh(1 - targets, weights) * absent, -1
    )


def focal(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None = None,
    reduce: Reduce = jnp.mean,
    gamma: jax.Array | None = None,
    alpha: jax.Array | None = None,
) -> jax.Array:
    """Compute the focal loss of each example: that of `bce`, less where it is right.

    Each class's term of `bce` is multiplied by `(1 - p)^gamma`, p the probability of
    what is there, `s(x) t + (1 - s(x)) (1 - t)`, and by `alpha t + (1 - alpha)
    (1 - t)`, as `torchvision.ops.sigmoid_focal_loss` has it, for soft targets too. A
    class's weight multiplies its term.

    Args:
        gamma: float32 [] above 0; None: 0.
        alpha: float32 [] in (0, 1), the weight of what is there; None: all weigh 1.

    Returns:
        float32 [N]; without gamma and alpha, that of `bce`.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002
    """
    logits = logits.astype(jnp.float32)
    factors = 1.0 if alpha is None else alpha * targets + (1 - alpha) * (1 - targets)
    if gamma is not None:
        # Not as 1 - p, which is 0 long before the probability is.
        wrong = targets * jax.nn.sigmoid(-logits)
        wrong += (1 - targets) * jax.nn.sigmoid(logits)
        # Powers below 1 are infinitely steep at 0.
        factors *= jnp.maximum(wrong, _TINY) ** gamma
    there, absent = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    terms = factors * (targets * there + (1 - targets) * absent)
    return -reduce(_weigh(terms, weights), -1)


def mse(
    logits: jax.Array,
    targets: jax.Array,
    weights: jax.Array | None = None,
    reduce: Reduce = jnp.mean,
) -> jax.Array:
    """Compute the squared distance of each example's logits from its targets.

    As `torch.nn.MSELoss` on logits, which has no weights: here a class's weight
    multiplies its term, as in `bce`.

    Returns:
        float32 [N].

    Source: Hui and Belkin 2020, https://arxiv.org/abs/2006.07322
    """
    errors = jnp.square(logits.astype(jnp.float32) - targets)
    return reduce(_weigh(errors, weights), -1)


# By the name of --loss: each maps logits, targets, class weights and `reduce` to
# losses [N].
LOSSES = {
    "softmax": softmax,
    "bce": bce,
    "focal": focal,
    "mse": mse,
}


def make_loss(name: str, reduction: str) -> Callable[..., jax.Array]:
    """Make the function of logits, targets and class weights that evaluation computes.

    Args:
        name: of `LOSSES`.
        reduction: over classes: `mean` or `sum`.
    """
    reduce = jnp.sum if reduction == "sum" else jnp.mean
    return functools.partial(LOSSES[name], reduce=reduce)


def get_focus(name: str, numbers: Numbers) -> dict[str, Any]:
    """Return what training alone gives the loss: examples' weights by difficulty.

    Evaluation leaves them out like class weights, so that runs of several values are
    compared by one measure.

    Args:
        name: of `LOSSES`.
    """
    if name != "focal":
        return {}
    return {"gamma": numbers.focal_gamma, "alpha": numbers.focal_alpha}


def _weigh(targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    return targets if weights is None else targets * weights[None]


def compute_class_weights(
    options: LossOptions, labels: np.ndarray, num_classes: int
) -> tuple[float, ...]:
    """Compute the weight of each class's examples.

    Args:
        options: the loss's options.
        labels: of the training set, as of `cnn.data.labels`.

    Returns:
        K weights; empty when all are 1. A class without examples weighs 0.
    """
    if options.class_weights == "none":
        return ()
    counts = count_classes(labels, num_classes)
    if options.class_weights == "auto" and not is_unbalanced(counts):
        return ()
    present = max(1, np.count_nonzero(counts))
    weights = np.where(counts > 0, counts.sum() / (present * np.maximum(counts, 1)), 0)
    return tuple(float(weight) for weight in weights)


def is_unbalanced(counts: np.ndarray) -> bool:
    """Return whether a class has more than `UNBALANCED` times as many as another.

    Args:
        counts: examples by class; a class without any is left out.
    """
    there = counts[counts > 0]
    return bool(len(there) and there.max() > UNBALANCED * there.min())


def sum_weights(
    loss: str, class_weights: tuple[float, ...], labels: jax.Array, are_mixed: bool
) -> jax.Array:
    """Compute what the sum of a batch's losses is divided by: the mean's denominator.

    Args:
        loss: a name of `LOSSES`.
        class_weights: K weights, or none where all are 1.
        labels: int32 [N], or several an image [N, K].
        are_mixed: whether targets are mixed of several examples'.

    Returns:
        float32 []: for softmax of one label each the sum of the weights of these, as
        `torch.nn.CrossEntropyLoss` has it with labels; else N, as that has it with
        probabilities, and `torch.nn.BCEWithLogitsLoss` always.
    """
    if not class_weights or loss != "softmax" or are_mixed or labels.ndim == 2:
        return jnp.full((), labels.shape[0], jnp.float32)
    weights = jnp.asarray(class_weights, jnp.float32)[labels]
    return jnp.maximum(jnp.sum(weights), _TINY)


def check(options: LossOptions, num_classes: int, are_several: bool) -> None:
    """Refuse a threshold that would make all targets of an example alike.

    Args:
        num_classes: K.
        are_several: whether an image may have several labels.

    Raises:
        UserError: naming the flags to change.
    """
    threshold, smoothing = options.bce_threshold, options.label_smoothing
    if options.loss != "bce" or not threshold:
        return
    low = smoothing / (2 if are_several else num_classes)
    high = 1 - smoothing + low
    if not low <= threshold < high:
        raise UserError(
            f"--bce_threshold={threshold:g} with --label_smoothing={smoothing:g}: "
            f"targets of {num_classes} classes are {low:.4g} and {high:.4g}, and all "
            f"would become {int(threshold < low)}; give a threshold between these"
        )
