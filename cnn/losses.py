"""Losses of a classifier: [N, K] logits and targets in, one float32 loss each out."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cnn.options import option


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """What training minimises."""

    label_smoothing: float = option(
        0.0,
        "share of the target spread evenly over all classes",
        kind="traced_unless_zero",
        within="[0, 1)",
    )
    class_weights: str = option(
        "none",
        "weight of each class in the loss: none, or balanced: examples / (classes · "
        "examples of the class), so that every class counts the same; with label "
        "smoothing it weighs the smoothed part too, as in PyTorch",
        choices=("none", "balanced"),
    )


def make_targets(
    labels: jax.Array, num_classes: int, label_smoothing: jax.Array | None
) -> jax.Array:
    """Turn labels into target distributions.

    Args:
        labels: int32 [N], each in [0, num_classes).
        num_classes: K.
        label_smoothing: s in [0, 1); None means 0.

    Returns:
        float32 [N, K]: `(1 - s) · onehot + s / K`.

    Source: Szegedy et al. 2016, section 7, https://arxiv.org/abs/1512.00567
    """
    targets = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    if label_smoothing is None:
        return targets
    return (1 - label_smoothing) * targets + label_smoothing / num_classes


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Compute the softmax cross-entropy in nats of each example.

    Args:
        logits: [N, K], any float type; computed in float32.
        targets: float32 [N, K], each row a distribution over the classes, or one
            times the classes' weights.

    Returns:
        float32 [N].
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(targets * log_probabilities, axis=-1)


def compute_class_weights(
    options: LossOptions, labels: np.ndarray, num_classes: int
) -> tuple[float, ...]:
    """Compute the weight of each class's examples.

    Args:
        options: the loss's options.
        labels: int32 [N] of the training set.
        num_classes: K.

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
