"""Averaged weights against plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.optim import weight_averaging
from cnn.optim.options import AveragingOptions
from cnn.optim.schedules import Clock

LENGTH = 7


def look_ahead(path, decay, power, every, start):
    """Follow Lookahead as its source has it: a copy made late, lerped, copied back.

    `path` are the updates; returns the fast and the slow weights after each step.
    """
    fast, slow, found, steps = 1.0, None, [], len(path)
    for i, update in enumerate(path):
        fast, taken = fast + update, i + 1
        if i // LENGTH >= start and taken % every == 0:
            if slow is None:
                slow = fast
            else:
                keep = decay**every * (taken / steps) ** power
                slow = fast = keep * slow + (1 - keep) * fast
        if slow is not None and taken % LENGTH == 0:
            fast = slow
        found.append((fast, slow))
    return found


@pytest.mark.parametrize("every, start", [(5, 1), (3, 0), (1, 2), (9, 1)])
def test_lookahead_equals_a_loop(make_numbers, every, start):
    numbers = make_numbers(
        lookahead_decay=0.95,
        lookahead_power=3.0,
        lookahead_every_steps=every,
        lookahead_start_epochs=float(start),
        epochs=4,
    )
    path = np.random.default_rng(0).normal(size=4 * LENGTH)

    @jax.jit
    def step(slow, fast, i, update):
        fast = {"w": fast["w"] + update}
        fast, slow = weight_averaging.update(
            AveragingOptions(), None, Clock(i, LENGTH), numbers, slow, fast
        )
        return slow, fast

    fast = slow = {"w": jnp.ones(2)}
    for i, (one, other) in enumerate(look_ahead(path, 0.95, 3.0, every, start)):
        slow, fast = step(slow, fast, jnp.int32(i), jnp.float32(path[i]))
        np.testing.assert_allclose(fast["w"], one, rtol=1e-5, atol=1e-5)
        expected = one if other is None else other
        np.testing.assert_allclose(slow["w"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("step, decay", [(0, 0.1), (8, 0.5), (1000, 0.75)])
def test_ema_trusts_early_averages_less(step, decay, make_numbers):
    old, new = {"w": jnp.float32([1.0])}, {"w": jnp.float32([3.0])}
    clock, numbers = Clock(jnp.int32(step), 5), make_numbers(ema_decay=0.75)
    _, found = weight_averaging.update(
        AveragingOptions(), None, clock, numbers, old, new
    )
    np.testing.assert_allclose(found["w"], [decay + 3 * (1 - decay)], rtol=1e-6)


def test_ema_leaves_training_alone(make_numbers):
    numbers, weights = make_numbers(ema_decay=0.5), {"w": jnp.float32([3.0])}
    clock, average = Clock(jnp.int32(9), 5), {"w": jnp.zeros(1)}
    found, _ = weight_averaging.update(
        AveragingOptions(), None, clock, numbers, average, weights
    )
    np.testing.assert_array_equal(found["w"], weights["w"])
