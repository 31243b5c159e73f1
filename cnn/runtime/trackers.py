"""Other programs that keep the numbers of runs: wandb, mlflow, trackio.

Each class opens a run of its program, or resumes the one of that identity, and hands
numbers on. Nothing leaves the machine unless the program's own environment variables
say so: WANDB_MODE, MLFLOW_TRACKING_URI, TRACKIO_SPACE_ID; what mlflow and wandb report
to their makers is off unless their variables turn it on. `train_loss` is `train/loss`
there, so that what belongs together stands together.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cnn.errors import UserError
from cnn.text import show_line

PROJECT = "cnn"
SPLITS = ("train", "validation", "test")
_AT_ONCE = 100  # parameters that mlflow takes in one call
_LONGEST = 500  # characters of a parameter of mlflow


def explain_absence(name: str, package: str, error: Exception) -> UserError:
    """Say that a tracker cannot be imported, and what to install."""
    reason = show_line(str(error) or type(error).__name__)
    return UserError(
        f"--track={name} needs {package}, which cannot be imported ({reason}): pip "
        f"install -U {package}, or leave it out"
    )


def split_name(name: str) -> tuple[str, str]:
    """Return the split of a name and the rest: `train`, `loss` of train_loss."""
    split, _, rest = name.partition("_")
    return (split, rest) if split in SPLITS and rest else ("", name)


def _join_names(values: Mapping[str, float]) -> dict[str, float]:
    return {"/".join(filter(None, split_name(n))): x for n, x in values.items()}


class Wandb:
    """A run of wandb, in the run's `wandb/`; offline unless WANDB_MODE is set."""

    forgets = False

    @staticmethod
    def load() -> Any:
        """Import wandb."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except Exception as error:
            raise explain_absence("wandb", "wandb", error) from None
        return wandb

    def __init__(self, workdir: Path, run: str, options: Mapping[str, Any]) -> None:
        """Open or resume a run; see `cnn.runtime.tracking`."""
        self._wandb = self.load()
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=show_line(workdir.name),
            id=run or None,
            resume="allow",
            dir=str(workdir),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=dict(options),
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self.run = self._run.id

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers of a step, by name."""
        self._run.log(_join_names(values), step=step)

    def add_result(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of result.json, after the last step."""
        del step
        self._run.summary.update(dict(values))

    def add_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add images, uint8 [H, W, 3], by name."""
        made = {name: self._wandb.Image(image) for name, image in images.items()}
        self._run.log(made, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()


class Mlflow:
    """A run of mlflow, in its own store: that of MLFLOW_TRACKING_URI."""

    forgets = False

    @staticmethod
    def load() -> Any:
        """Import mlflow."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import
        try:
            import mlflow
        except Exception as error:
            raise explain_absence("mlflow", "mlflow", error) from None
        return mlflow

    def __init__(self, workdir: Path, run: str, options: Mapping[str, Any]) -> None:
        """Open or resume a run; see `cnn.runtime.tracking`."""
        self._mlflow = self.load()
        self._client = self._mlflow.MlflowClient()
        self.run = run
        if run:
            self._client.update_run(run, status="RUNNING")
            return
        project = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(project)
        number = (
            found.experiment_id if found else self._client.create_experiment(project)
        )
        made = self._client.create_run(number, run_name=show_line(workdir.name))
        self.run = made.info.run_id
        texts = {name: str(value)[:_LONGEST] for name, value in options.items()}
        parameter = self._mlflow.entities.Param
        for some in _cut([parameter(*pair) for pair in texts.items()]):
            self._client.log_batch(self.run, params=some)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers of a step, by name."""
        now, metric = int(time.time() * 1000), self._mlflow.entities.Metric
        made = [metric(n, x, now, step) for n, x in _join_names(values).items()]
        self._client.log_batch(self.run, metrics=made)

    def add_result(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of result.json, after the last step."""
        self.add(step, {f"result/{name}": x for name, x in values.items()})

    def add_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add images, uint8 [H, W, 3], by name."""
        del step
        for name, image in images.items():
            self._client.log_image(self.run, image, f"{name}.png")

    def close(self) -> None:
        """Write that the run is over, until it is resumed."""
        self._client.set_terminated(self.run)


def _cut(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]


class Trackio:
    """A run of trackio, in its own folder: that of TRACKIO_DIR."""

    forgets = False

    @staticmethod
    def load() -> Any:
        """Import trackio."""
        try:
            import trackio
        except Exception as error:
            raise explain_absence("trackio", "trackio", error) from None
        return trackio

    def __init__(self, workdir: Path, run: str, options: Mapping[str, Any]) -> None:
        """Open or resume a run; see `cnn.runtime.tracking`."""
        self._trackio = self.load()
        # It knows runs by their names, which those of directories are not.
        self.run = run or f"{show_line(workdir.name)}-{uuid.uuid4().hex[:6]}"
        self._run = self._trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=self.run,
            resume="allow",
            config=dict(options),
            embed=False,
            auto_log_cpu=False,
            auto_log_gpu=False,
        )

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers of a step, by name."""
        self._run.log(_join_names(values), step=step)

    def add_result(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of result.json, after the last step."""
        named = {f"result/{name}": x for name, x in values.items()}
        self._run.log(named, step=step)

    def add_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Add images, uint8 [H, W, 3], by name."""
        made = {name: self._trackio.Image(image) for name, image in images.items()}
        self._run.log(made, step=step)

    def close(self) -> None:
        """Write what is left."""
        self._run.finish()
