"""What a run keeps of each training example, so that wrong ones are found.

`--track_examples` adds arrays [N], one number for each training example by its id, to
the state; each step writes those of its batch, from logits that it computes anyway. Of
an example that stands several times in a batch, each time varied differently, this is
one presentation: its loss and margin are the means over the copies, its answer that of
the copy with the least margin. Hence it is right where all copies are.

| array | what it holds |
|---|---|
| `seen` | int32, presentations so far |
| `loss`, `margin` | float32, their sums over the presentations |
| `first_learnt` | int32, the epoch of the first right answer, from 1; 0: none yet |
| `forgotten` | int32, right answers that the next presentation did not repeat |
| `predicted` | int32, the class that was last predicted; -1: none yet |
| `instead` | int32, what was predicted most of wrong classes, if more often than all \
others together; else one of them; -1: none yet |
| `votes` | int32, by which `instead` is ahead |

Source: Toneva et al. 2019, https://arxiv.org/abs/1812.05159 (forgetting); Pleiss et al.
    2020, https://arxiv.org/abs/2001.10528 (margin); Boyer and Moore 1991, MJRTY, a fast
    majority vote algorithm (`instead`)
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Examples = dict[str, jax.Array]


def create(count: int) -> Examples | None:
    """Create the arrays of so many examples, none seen; None for none."""
    if not count:
        return None
    zeros, none = jnp.zeros((count,), jnp.int32), jnp.full((count,), -1, jnp.int32)
    sums = jnp.zeros((count,), jnp.float32)
    return {
        "seen": zeros,
        "loss": sums,
        "margin": sums,
        "first_learnt": zeros,
        "forgotten": zeros,
        "predicted": none,
        "instead": none,
        "votes": zeros,
    }


def measure(logits: jax.Array, labels: jax.Array, losses: jax.Array) -> Examples:
    """Measure the examples of a batch.

    Args:
        logits: [B, K].
        labels: int32 [B].
        losses: float32 [B].

    Returns:
        Arrays [B]: `label`; `loss`; `margin`, the logit of the label less the highest
        other one; `right`, whether that is above 0; `predicted`, the class of the
        highest logit, equal ones not being right.
    """
    logits = logits.astype(jnp.float32)
    is_label = jnp.arange(logits.shape[-1])[None, :] == labels[:, None]
    own = jnp.max(jnp.where(is_label, logits, -jnp.inf), axis=-1)
    others = jnp.where(is_label, -jnp.inf, logits)
    margin = own - jnp.max(others, axis=-1)
    right = margin > 0
    other = jnp.argmax(others, axis=-1).astype(jnp.int32)
    return {
        "label": labels,
        "loss": losses,
        "margin": margin,
        "right": right,
        "predicted": jnp.where(right, labels, other),
    }


def join_pieces(found: Examples) -> Examples:
    """Put what is found of the pieces of a batch, [pieces, n], in its order."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1), found)


def note(
    examples: Examples,
    epoch: jax.Array,
    ids: jax.Array,
    found: Examples,
    are_repeated: bool,
) -> Examples:
    """Write down what a step has found of its batch.

    Args:
        epoch: int32 [], from 0.
        ids: int32 [B], positions in the arrays.
        found: of `measure`.
        are_repeated: whether one of `ids` may come several times.
    """
    if are_repeated:
        found = _join_copies(ids, found)
    before = {name: x[ids] for name, x in examples.items()}
    after = _add_presentation(before, epoch, found)
    # Of equal ids equal numbers are written, so their order has no say.
    return {name: x.at[ids].set(after[name]) for name, x in examples.items()}


def _join_copies(ids: jax.Array, found: Examples) -> Examples:
    """Make one presentation of the copies of an example; each place gets it."""
    are_same = ids[:, None] == ids[None, :]
    count = jnp.sum(are_same, axis=1)

    def average(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(are_same, x[None, :], 0.0), axis=1) / count

    margin = found["margin"]
    worst = jnp.argmin(jnp.where(are_same, margin[None, :], jnp.inf), axis=1)
    joined = {"loss": average(found["loss"]), "margin": average(margin)}
    return {name: x[worst] for name, x in found.items()} | joined


def _add_presentation(
    before: Mapping[str, jax.Array], epoch: jax.Array, found: Examples
) -> Examples:
    """Add one presentation to the numbers of some examples, each [B]."""
    right, predicted = found["right"], found["predicted"]
    is_first = right & (before["first_learnt"] == 0)
    was_right = before["predicted"] == found["label"]
    is_new = ~right & (before["votes"] == 0)
    agrees = is_new | (before["instead"] == predicted)
    return {
        "seen": before["seen"] + 1,
        "loss": before["loss"] + found["loss"],
        "margin": before["margin"] + found["margin"],
        "first_learnt": jnp.where(is_first, epoch + 1, before["first_learnt"]),
        "forgotten": before["forgotten"] + (was_right & ~right),
        "predicted": predicted,
        "instead": jnp.where(is_new, predicted, before["instead"]),
        "votes": before["votes"] + jnp.where(right, 0, jnp.where(agrees, 1, -1)),
    }
