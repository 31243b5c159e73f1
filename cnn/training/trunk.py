"""The trunk of a run: its first steps, which are the same however long it is.

A run of more epochs that is given the trunk's last state takes the same steps from
there as if it had begun at the start. `--extend` and sweeps over `epochs` do that.
"""

import dataclasses
import itertools

from cnn.config import Config
from cnn.optim.schedules import SHORTEST_DECAY
from cnn.training.course import find_start

DECAYS = "stable_then_decay"
# Schedules whose rate at a step does not depend on the length of the run.
ENDLESS = ("constant", "step", "exponential", "cosine_restarts", "plateau")


def find_trunk(config: Config, steps_per_epoch: int) -> int:
    """Find the last end of an epoch before a rate that depends on the run's length.

    Returns:
        The steps taken until then; 0 where nothing is before it.
    """
    options, epochs = config.schedule, config.train.epochs
    if options.schedule in ENDLESS:
        return epochs * steps_per_epoch
    if options.schedule != DECAYS:
        return 0
    length = 1 if options.rate_every == "epoch" else steps_per_epoch
    decaying = (epochs - find_start(options)) * length
    decay = max(SHORTEST_DECAY, round(options.decay_share * decaying))
    # The step that begins here is the decay's first, which has the peak rate still.
    return max(0, epochs * length - decay) // length * steps_per_epoch


def find_shortest(config: Config, steps_per_epoch: int, step: int) -> int:
    """Find the fewest epochs of a run like this whose trunk has so many steps."""
    for epochs in itertools.count(max(1, step // steps_per_epoch)):
        train = dataclasses.replace(config.train, epochs=epochs)
        longer = dataclasses.replace(config, train=train)
        if find_trunk(longer, steps_per_epoch) >= step:
            break
    return epochs
