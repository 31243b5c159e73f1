"""How large activations are, by layer, over the width of a model and the steps taken.

Source: the coordinate check of Yang and Hu et al. 2022, section D.1,
    https://arxiv.org/abs/2203.03466
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn import train
from cnn.config import Config, Numbers
from cnn.data import order
from cnn.errors import UserError
from cnn.models.layers import Conv, Dense
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.training import setup as training_setup
from cnn.training import steps
from cnn.training.setup import Setup
from cnn.training.state import TrainState, create_state
from cnn.training.steps import Structure

PARAMETRIZATIONS = ("standard", "mup")
# Every step at the peak rate: the first ones are what is looked at.
PLAIN = {"schedule": "constant", "warmup_epochs": 0.0}
STEPS, SEEDS = 4, 3


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Mean absolute values of what layers return, in training.

    Attributes:
        widths: the values of `--width_multiplier`, W.
        layers: paths of convolutions and dense layers in the order in which they run,
            L; the last returns the logits.
        sizes: by parametrization, float64 [STEPS + 1, L, W], geometric means over
            SEEDS seeds; the first before any step.
    """

    widths: tuple[float, ...]
    layers: tuple[str, ...]
    sizes: dict[str, np.ndarray]

    def fit_slopes(self, parametrization: str, step: int) -> dict[str, float]:
        """Fit the power of the width that each layer's values grow with, by layer."""
        logs = np.log(self.sizes[parametrization][step])
        powers = np.polyfit(np.log(self.widths), logs.T, 1)[0]
        return dict(zip(self.layers, powers.tolist(), strict=True))


def check_coordinates(
    config: Config, widths: Sequence[float], terminal: Terminal
) -> Coordinates:
    """Take the first steps of a run at several widths, standard and mup.

    Args:
        config: of the run, whatever its width and parametrization.
        widths: values of `--width_multiplier`.

    Raises:
        UserError: as training would, at one of the widths; or as `_check`.
    """
    _check(config, widths)
    at_width = [{"width_multiplier": float(width)} for width in sorted(set(widths))]
    setup = train.make_setup(config.change(at_width[0] | PLAIN), {}, terminal, Stop())
    layers, sizes = (), {}
    for name in PARAMETRIZATIONS:
        columns = []
        for changes in at_width:
            own = config.change(PLAIN | changes | {"parametrization": name})
            found = _measure_seeds(setup, own)
            paths = [layer["path"] for layer in setup.description["layers"]]
            layers = tuple(path for path in paths if path in found)
            columns.append(np.stack([found[path] for path in layers], axis=-1))
        sizes[name] = np.stack(columns, axis=-1)
    return Coordinates(tuple(x["width_multiplier"] for x in at_width), layers, sizes)


def _check(config: Config, widths: Sequence[float]) -> None:
    """Refuse a model that has no width, or widths through which no line goes.

    Raises:
        UserError: naming the flag.
    """
    if config.find_unread(["width_multiplier"], "train"):
        raise UserError(
            f"--pictures=coordinate_check is for models that --width_multiplier is "
            f"for, as simple_cnn, wrn_16_2 and resnet20; --model={config.model.model} "
            "has none"
        )
    if len(set(widths)) < 2:
        raise UserError("--coordinate_widths: give two widths or more, as 1,2,4,8")


def _measure_seeds(setup: Setup, config: Config) -> dict[str, np.ndarray]:
    """Measure one width: float64 [STEPS + 1] by layer.

    Args:
        setup: of any width, whose images are taken.
    """
    pixels = setup.structure.mean, setup.structure.std
    structure = training_setup.make_structure(config, setup.dataset, pixels)
    run = jax.jit(functools.partial(_measure_steps, structure, setup.image_shape))
    logs = []
    for number in range(SEEDS):
        seed = config.train.seed + number
        numbers = config.change({"seed": seed}).make_numbers()
        found = jax.device_get(run(numbers, _draw_batches(setup, seed)))
        logs.append({path: np.log(x, dtype=np.float64) for path, x in found.items()})
    return {x: np.exp(np.mean([one[x] for one in logs], axis=0)) for x in logs[0]}


def _measure_steps(
    structure: Structure,
    image_shape: tuple[int, int, int],
    numbers: Numbers,
    batches: dict[str, jax.Array],
) -> dict[str, jax.Array]:
    """Measure before each step of a run, always on its first batch."""
    first = jax.tree.map(lambda x: x[0], batches)

    def take(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        found = measure(structure, state, first, numbers)
        return steps.train_step(structure, state, batch, numbers)[0], found

    state = create_state(structure.model, image_shape, structure.rule, numbers)
    return jax.lax.scan(take, state, batches)[1]


def _draw_batches(setup: Setup, seed: int) -> dict[str, np.ndarray]:
    """Draw the batches of the first STEPS + 1 steps of a run, [STEPS + 1, B, ...]."""
    train_set, options, epochs, length = setup.dataset.train, setup.config.step, [], 0
    how = options.batch_size, options.sampling, options.repeats_in_batch
    while length <= STEPS:
        drawn = order.draw_epoch(seed, len(epochs), train_set.labels, *how)
        length += len(drawn["ids"])
        epochs.append(drawn)
    drawn = {
        name: np.concatenate([one[name] for one in epochs])[: STEPS + 1]
        for name in epochs[0]
    }
    images = np.stack([train_set.read(ids) for ids in drawn["ids"]])
    return drawn | {"images": images, "labels": train_set.labels[drawn["ids"]]}


def measure(
    structure: Structure, state: TrainState, batch: Any, numbers: Numbers
) -> dict[str, jax.Array]:
    """Compute the mean absolute value of what each layer returns in training.

    Args:
        batch: as of `steps.train_step`, of the first epoch.

    Returns:
        float32 [] by path.
    """
    found: dict[str, jax.Array] = {}

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        x = call(*args, **kwargs)
        if isinstance(context.module, Conv | Dense):
            size = jnp.mean(jnp.abs(x.astype(jnp.float32)))
            found["/".join(context.module.path)] = size
        return x

    images = steps.prepare_batch(structure, 0, batch, numbers)["images"]
    with nn.intercept_methods(note):
        structure.model.apply(
            {"params": state.params, "batch_stats": state.batch_stats},
            images,
            train=True,
            mutable=["batch_stats", "auxiliary"],
        )
    return found
