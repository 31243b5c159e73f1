"""Losses of a classifier: [N, K] logits and targets in, one float32 loss each out.

A new one is a function here, a line in `LOSSES` and its name in `LossOptions`.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cnn.training.options import LossOptions


def make_targets(
    labels: jax.Array, num_classes: int, label_smoothing: jax.Array | None
) -> jax.Array:
    """Turn labels into target distributions.

    Args:
        labels: int32 [N], each in [0, num_classes).
        label_smoothing: s in [0, 1); None means 0.

    Returns:
        float32 [N, K]: `(1 - s) · onehot + s / K`.

    Source: Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567
    """
    targets = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    if label_smoothing is None:
        return targets
    return (1 - label_smoothing) * targets + label_smoothing / num_classes


def softmax(
    logits: jax.Array, targets: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Compute the softmax cross-entropy in nats of each example.

    Args:
        logits: [N, K], any float type; computed in float32.
        targets: float32 [N, K], each row a distribution over the classes.
        weights: float32 [K], of the classes; None: 1.

    Returns:
        float32 [N].
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(_weigh(targets, weights) * log_probabilities, axis=-1)


def bce(
    logits: jax.Array, targets: jax.Array, weights: jax.Array | None = None
) -> jax.Array:
    """Compute the binary cross-entropy in nats of each example, mean over classes.

    Each class is a decision of its own: `-t log s(x) - (1 - t) log s(-x)`, s the
    logistic function, as `torch.nn.BCEWithLogitsLoss` has it.

    Args:
        logits: [N, K], any float type; computed in float32.
        targets: float32 [N, K] in [0, 1].
        weights: float32 [K], of the classes; None: 1.

    Returns:
        float32 [N].

    Source: Wightman et al. 2021, https://arxiv.org/abs/2110.00476
    """
    logits = logits.astype(jnp.float32)
    there, absent = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -jnp.mean(
        _weigh(targets, weights) * there + _weigh(1 - targets, weights) * absent, -1
    )


# By the name of --loss: each maps logits, targets and class weights to losses [N].
LOSSES = {
    "softmax": softmax,
    "bce": bce,
}


def _weigh(targets: jax.Array, weights: jax.Array | None) -> jax.Array:
    return targets if weights is None else targets * weights[None]


def compute_class_weights(
    options: LossOptions, labels: np.ndarray, num_classes: int
) -> tuple[float, ...]:
    """Compute the weight of each class's examples.

    Args:
        options: the loss's options.
        labels: int32 [N] of the training set.

    Returns:
        K weights; empty when all are 1. A class without examples weighs 0.
    """
    if options.class_weights == "none":
        return ()
    counts = np.bincount(labels, minlength=num_classes)
    present = max(1, np.count_nonzero(counts))
    weights = np.where(counts > 0, len(labels) / (present * np.maximum(counts, 1)), 0)
    return tuple(float(weight) for weight in weights)


def sum_weights(class_weights: tuple[float, ...], labels: jax.Array) -> jax.Array:
    """Sum the weights of a batch's examples, each that of its own class.

    Args:
        class_weights: K weights, or none where all are 1.
        labels: int32 [N].

    Returns:
        float32 [].
    """
    if not class_weights:
        return jnp.full((), labels.shape[0], jnp.float32)
    weights = jnp.asarray(class_weights, jnp.float32)[labels]
    return jnp.maximum(jnp.sum(weights), jnp.finfo(jnp.float32).tiny)
