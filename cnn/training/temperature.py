"""The temperature of a run's probabilities, kept beside it for the weights it fits.

`calibration.json` in a run's directory holds, by step of the checkpoint, the
`temperature` that `--calibrate` has fitted, `weights_sha256` of the weights that it was
fitted for (the averaged ones where averaging is on), and on which images. For other
weights it is never used.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cnn.checkpoints import proof, workdir
from cnn.errors import UserError
from cnn.text import show_line
from cnn.training.trained import Trained

CALIBRATION_FILE = "calibration.json"
_REMEDY = "remove it, and fit it again by --mode=evaluate --calibrate"


def apply(
    trained: Trained, directory: Path, calibration: str = "auto"
) -> tuple[Trained, str]:
    """Give a trained model the temperature that is kept for its weights, if any.

    Args:
        trained: the model.
        directory: of the run.
        calibration: `auto`, or `off`: none.

    Returns:
        The model, and a line to print on what was done; empty where nothing is kept.

    Raises:
        UserError: the file is damaged.
    """
    path = directory / CALIBRATION_FILE
    kept = None if calibration == "off" else _read(path).get(str(trained.step))
    if kept is None:
        return trained, ""
    if kept.get("weights_sha256") != proof.hash_variables(trained.variables):
        return trained, (
            f"probabilities are not calibrated: {show_line(str(path))} is of other "
            f"weights of step {trained.step}; fit it to these by --mode=evaluate "
            "--calibrate"
        )
    temperature = kept.get("temperature")
    is_number = isinstance(temperature, float) and math.isfinite(temperature)
    if not is_number or temperature <= 0:
        raise UserError(f"{path} is damaged: temperature is {temperature}; {_REMEDY}")
    found = dataclasses.replace(trained, temperature=temperature)
    return found, f"probabilities calibrated, T={temperature:.4g}"


def format_kept(trained: Trained, directory: Path, about: Mapping[str, Any]) -> str:
    """Write the file with the temperature of a model among those of other steps.

    Args:
        directory: of the run.
        about: on what it was fitted.
    """
    others = _read(directory / CALIBRATION_FILE)
    own = {
        "temperature": trained.temperature,
        "weights_sha256": proof.hash_variables(trained.variables),
        **about,
    }
    return json.dumps({**others, str(trained.step): own}, indent=2) + "\n"


def _read(path: Path) -> dict[str, Any]:
    """Read what is kept, by step; nothing where there is no file."""
    if not path.exists():
        return {}
    try:
        found = workdir.read_json(path)
    except UserError as error:
        raise UserError(f"{error}; {_REMEDY}") from None
    if not isinstance(found, dict) or not all(
        isinstance(one, dict) for one in found.values()
    ):
        raise UserError(f"{path} is damaged; {_REMEDY}")
    return found
