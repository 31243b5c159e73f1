"""Distillation: a student learns from a trained teacher too, not from labels alone.

Logits are [N, K], the teacher's of the student's classes in its order; a loss is
float32 [N]. The teacher is in evaluation mode and no gradient passes through it.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn.training import losses


@dataclasses.dataclass(frozen=True)
class Teacher:
    """What is static of a teacher; its variables are arguments of the step.

    Attributes:
        model: maps float32 images, scaled as it was trained, to logits.
        scale: what each channel of the student's scaled images is multiplied by.
        shift: what is then added, to make it one of the teacher's scaled images.
        classes: the place of each of the student's classes among the teacher's; empty
            when both are the same.
        kind: a name of `LOSSES`.
    """

    model: nn.Module
    scale: tuple[float, ...]
    shift: tuple[float, ...]
    classes: tuple[int, ...] = ()
    kind: str = "soft"


def compute_logits(teacher: Teacher, variables: Any, images: jax.Array) -> jax.Array:
    """Compute what a teacher makes of the images that the student sees.

    Args:
        variables: the teacher's `params` and `batch_stats`.
        images: float32 [N, H, W, C], scaled as the student's.

    Returns:
        float32 [N, K].
    """
    scale, shift = (
        jnp.asarray(x, jnp.float32)[None, None, None]
        for x in (teacher.scale, teacher.shift)
    )
    logits = teacher.model.apply(variables, images * scale + shift, train=False)
    if teacher.classes:
        logits = logits[:, jnp.asarray(teacher.classes)]
    return jax.lax.stop_gradient(logits.astype(jnp.float32))


def soft(logits: jax.Array, taught: jax.Array, temperature: jax.Array) -> jax.Array:
    """Compute `T² · KL(p || q)`, p of the teacher and q of the student, both at T.

    Args:
        logits: the student's; computed in float32.
        taught: the teacher's.
        temperature: T, which logits are divided by before the softmax. By T² the size
            of the gradient hardly depends on it.

    Source: Hinton et al. 2015, section 2, https://arxiv.org/abs/1503.02531
    """
    ours = jax.nn.log_softmax(logits.astype(jnp.float32) / temperature)
    theirs = jax.nn.log_softmax(taught / temperature)
    return temperature**2 * jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)


def hard(logits: jax.Array, taught: jax.Array, temperature: jax.Array) -> jax.Array:
    """Compute the cross-entropy with the teacher's most probable class.

    Args:
        logits: the student's.
        taught: the teacher's.
        temperature: not used: it changes no most probable class.

    Source: Touvron et al. 2021, section 4, https://arxiv.org/abs/2012.12877
    """
    del temperature
    labels = jnp.argmax(taught, axis=-1)
    targets = losses.make_targets(labels, taught.shape[-1], None)
    return losses.softmax(logits, targets)


# By the name of --distillation.
LOSSES = {
    "soft": soft,
    "hard": hard,
}
