"""Trained models from Python, wherever their weights come from.

import cnn
model = cnn.load("runs/digits")
probabilities = model.classify(images)  # uint8 [N, H, W, C] -> float32 [N, K]
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.ops import scaling
from cnn.option import check, read_group
from cnn.runtime.interrupt import Stop
from cnn.runtime.options import DeviceOptions
from cnn.runtime.terminal import Terminal
from cnn.training import canary as device_check
from cnn.training import multilabel, tasks, temperature
from cnn.training.classify_files import choose_intake, classify_files
from cnn.training.image_arrays import make_checked_classifier
from cnn.training.trained import Trained, load_trained
from cnn.transfer import any_trained

_FILES = 64  # that are decoded and classified at a time


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of an image file.

    Attributes:
        path: as it was given.
        class_name: of the most probable class.
        probability: its own.
        probabilities: of all classes, float32 [K].
        labels: names of the classes that the image is said to have: those whose
            probability is at least their threshold, of one class an image that one.
    """

    path: str
    class_name: str
    probability: float
    probabilities: np.ndarray
    labels: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A trained model: its variables, and what computes with them.

    Attributes:
        trained: everything that is known of it.
    """

    trained: Trained

    @property
    def model(self) -> nn.Module:
        """The module of Flax: scaled images float32 [N, H, W, C] to logits [N, K]."""
        return self.trained.structure.model

    @property
    def params(self) -> dict[str, Any]:
        """Its parameters, nested by layer."""
        return self.trained.variables["params"]

    @property
    def batch_stats(self) -> dict[str, Any]:
        """Running statistics of its normalisations; maybe empty."""
        return self.trained.variables["batch_stats"]

    @property
    def apply(self) -> Callable[..., Any]:
        """Apply the model to variables and scaled images, as Flax's modules do."""
        return self.model.apply

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes, in the order of the outputs."""
        return self.trained.class_names

    @property
    def thresholds(self) -> np.ndarray | None:
        """Probabilities from which classes are labels, float64 [K].

        None of a model of one class an image.
        """
        if self.trained.structure.task is not tasks.MULTILABEL:
            return None
        count = len(self.class_names)
        tuned = self.trained.thresholds or (multilabel.THRESHOLD,) * count
        return np.array(tuned)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How images become what the model takes.

        `image_shape` (H, W, C), `mean` and `std` of each channel of images in [0, 1],
        and how files are brought to that size: `resize_mode`, `resize_size`,
        `resize_interpolation`.
        """
        structure, data = self.trained.structure, self._data
        return {
            "image_shape": self.trained.image_shape,
            "mean": structure.mean,
            "std": structure.std,
            "resize_mode": data.resize_mode,
            "resize_size": data.resize_size,
            "resize_interpolation": data.resize_interpolation,
        }

    def scale(self, images: Any) -> jax.Array:
        """Scale uint8 images [N, H, W, C] to the float32 that `apply` takes."""
        structure = self.trained.structure
        return scaling.scale_images(jnp.asarray(images), structure.mean, structure.std)

    def classify(self, images: Any) -> np.ndarray:
        """Compute probabilities, float32 [N, K], of uint8 images [N, H, W, C]."""
        return self._classify(images)

    def features(self, images: Any) -> dict[str, np.ndarray]:
        """Compute what each stage makes of uint8 images [N, H, W, C].

        Returns:
            [N, h, w, channels], or [N, units] of dense layers, by stage, in order; and
            `logits` [N, K].
        """
        found = self._features(self.trained.variables, self.scale(images))
        return {name: np.asarray(x) for name, x in found.items()}

    def predict_files(self, paths: Iterable[str | Path]) -> list[Prediction]:
        """Classify image files, which become images as in `--mode=predict`.

        Raises:
            UserError: a file cannot be read, or the model takes one size alone, which
                is not square and which the file does not have.
        """
        names = [str(path) for path in paths]
        size = self._data.image_size
        structure = dataclasses.replace(self.trained.structure, image_size=size)
        trained = dataclasses.replace(self.trained, structure=structure)
        intake, quiet = choose_intake(trained, self._data), Terminal()
        quiet.console.quiet = True
        rows = np.zeros((len(names), len(self.class_names)), np.float32)
        classified = classify_files(
            trained, intake, names, _FILES, math.inf, quiet, Stop()
        )
        with contextlib.closing(classified):
            for some in classified:
                for position, problem in some.problems.items():
                    raise UserError(
                        f"{names[position]}: {problem}; mend it, or leave it out"
                    )
                rows[some.positions] = some.probabilities
        classes, best = self.class_names, rows.argmax(1).tolist()
        chosen = [[k] for k in best]
        if self.thresholds is not None:
            chosen = [np.flatnonzero(row >= self.thresholds).tolist() for row in rows]
        labels = [tuple(classes[i] for i in own) for own in chosen]
        return [
            Prediction(name, classes[k], float(row[k]), row, own)
            for name, k, row, own in zip(names, best, rows, labels, strict=True)
        ]

    @functools.cached_property
    def _data(self) -> DataOptions:
        return read_group(DataOptions, self.trained.options).for_evaluation()

    @functools.cached_property
    def _classify(self) -> Callable[[Any], np.ndarray]:
        return make_checked_classifier(self.trained)

    @functools.cached_property
    def _features(self) -> Callable[[Any, jax.Array], dict[str, jax.Array]]:
        @jax.jit
        def compute(variables: Any, images: jax.Array) -> list[jax.Array]:
            logits, updated = self.apply(variables, images, mutable=["features"])
            found = traverse_util.flatten_dict(dict(updated.get("features", {})))
            names[:] = ["/".join(path).removesuffix("_out") for path in found]
            return [x[-1] for x in found.values()] + [logits]

        # A compiled function returns dicts sorted by name, not in their order.
        names: list[str] = []
        return lambda variables, images: _name(compute(variables, images), names)


def _name(values: list[jax.Array], names: list[str]) -> dict[str, jax.Array]:
    return dict(zip([*names, "logits"], values, strict=True))


def load(
    source: str | Path,
    which: str = "latest",
    calibration: str = "auto",
    canary: str = "on",
    **options: Any,
) -> Loaded:
    """Load a trained model, on devices that compute right.

    Args:
        source: a run's directory, one of its checkpoints, or whatever `--init_from`
            takes: PyTorch's files, orbax, msgpack, npz, safetensors, `hf:OWNER/NAME`.
        which: `latest`, `best` or a step, where the source holds several.
        calibration: of a run, as `--calibration`: `auto` or `off`.
        canary: as `--canary`: `on`, or `off` for no check of the devices.
        **options: for sources that are no run, what `--mode=convert` takes, by flag
            name: `model="resnet50"`, `num_classes`, `class_names`, `mean`, `init_key`.

    Raises:
        UserError: there are no such weights, or they do not fit; or options are given
            for a run, which has its own; or a device computes wrong numbers.
    """
    # Nothing is trained here, so that kernels of training need no check.
    asked = DeviceOptions(cpu_kernels="xla", canary=canary)
    check(asked)
    loaded = _load(source, which, calibration, options)
    precision = read_group(DeviceOptions, loaded.trained.options).precision
    device_check.check(dataclasses.replace(asked, precision=precision))
    return loaded


def _load(
    source: str | Path, which: str, calibration: str, options: dict[str, Any]
) -> Loaded:
    """Load as `load` does, without a look at the devices."""
    path = Path(source).expanduser()
    if not any_trained.is_ours(path, "source"):
        return Loaded(any_trained.load_theirs(source, which, **options))
    if options:
        raise UserError(
            f"{path} is a run, which has its own options: leave out "
            f"{', '.join(options)}"
        )
    directory, which = any_trained.locate(path, which)
    trained = load_trained(directory, which)
    return Loaded(temperature.apply(trained, directory, calibration)[0])
