"""Mode convert: PyTorch's weights become an ordinary checkpoint of step 0."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from cnn import models
from cnn.checkpoints import checkpoint, manifest, workdir
from cnn.config import Config
from cnn.data.names import check_class_names, normalise
from cnn.errors import UserError
from cnn.models.variables import create_variables, flatten_paths
from cnn.optim.optimizer import Rule
from cnn.runtime import devices
from cnn.runtime.terminal import Terminal
from cnn.training import steps
from cnn.training.progress import Counters
from cnn.training.state import make_state, to_items
from cnn.weights import exchange, names


def convert(config: Config, directory: Path, terminal: Terminal) -> Path:
    """Convert weights into a run that evaluate, predict and the rest take.

    What --image_size, --channels and --num_classes leave open is what the model was
    published for, the classes those of the file. --mean and --std travel with it.

    Args:
        config: `source` is the file, `model` what it holds.

    Returns:
        The checkpoint's directory.

    Raises:
        UserError: the file is damaged or does not fit the model, or the directory
            holds a run already. Nothing was written.
    """
    source, model = config.convert.source, config.model.model
    if not source:
        raise UserError("--mode=convert needs --source=FILE")
    if manifest.list_steps(directory / "checkpoints"):
        raise UserError(
            f"--workdir={directory} holds a run already; name another directory"
        )
    state_dict = exchange.load_file(Path(source))
    size, channels, classes = models.get_published_input(model)
    size, channels = config.data.image_size or size, config.data.channels or channels
    shape = (size, size, channels)
    if config.data.num_classes:
        classes = config.data.num_classes
    else:
        shapes = flatten_paths(_find_shapes(config, shape, classes))
        classes = exchange.count_classes(model, shapes, state_dict) or classes
    named = _read_class_names(config.convert.class_names, classes)
    mean, std = exchange.choose_scaling(config.data, model, channels)
    shapes = _find_shapes(config, shape, classes)
    variables = exchange.import_state_dict(model, shapes, state_dict, source)
    config = _fill_data(config, size, channels, (mean, std))
    description = {
        "options": config.to_flat(),
        "class_names": named or list(map(str, range(classes))),
        "classes_are_named": bool(named),
        "image_shape": list(shape),
        "mean": list(mean),
        "std": list(std),
        "records": dataclasses.asdict(Counters()),
        "num_batches_tracked": _get_counter(state_dict),
    }
    with workdir.lock(directory):
        _write(config, directory, variables, description)
    path = directory / "checkpoints" / "0"
    terminal.say(
        f"{source}: {len(state_dict)} tensors converted to {model} with "
        f"{classes} classes"
    )
    terminal.say_written(path)
    return path


def _find_shapes(config: Config, shape: tuple[int, int, int], classes: int) -> Any:
    """Return the shapes of the model's variables for images [H, W, C] and K classes."""
    model = models.create_model(config.make_static().model, classes)
    return jax.eval_shape(lambda: create_variables(model, 0, shape))


def _fill_data(
    config: Config, size: int, channels: int, scaling: exchange.Scaling
) -> Config:
    """Return the options with what they leave open of the images."""
    filled = {"image_size": size, "channels": channels}
    if config.data.scaling == "standardize":
        filled |= {"mean": scaling[0], "std": scaling[1]}
    data = dataclasses.replace(config.data, **filled)
    return dataclasses.replace(config, data=data)


def _write(config: Config, directory: Path, variables: Any, description: dict) -> None:
    everywhere = devices.replicated(devices.make_mesh())
    static = config.make_static()
    rule = Rule(static.optimizer, static.schedule)
    placed = jax.device_put(variables, everywhere)
    state = make_state(rule, config.make_numbers(), placed)
    state = jax.device_put(state, everywhere)
    sums = jax.device_put(steps.create_train_sums(), everywhere)
    writer = checkpoint.CheckpointWriter(directory / "checkpoints", 1)
    writer.save(to_items(state, sums), 0, description)
    writer.wait()
    workdir.write_json(directory / workdir.CONFIG_FILE, config.to_flat())


def _get_counter(state_dict: dict[str, np.ndarray]) -> int:
    """Return how many batches PyTorch's running statistics say they have seen."""
    found = [x for name, x in state_dict.items() if name.endswith(names.COUNTER)]
    return max((int(x.item()) for x in found if x.size == 1), default=0)


def _read_class_names(file: str, classes: int) -> list[str]:
    if not file:
        return []
    try:
        found = Path(file).read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UserError(f"--class_names={file} cannot be read ({error})") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"--class_names={file} is no text in UTF-8 ({error}); save it as such"
        ) from None
    found = [normalise(line.strip()) for line in found if line.strip()]
    if len(found) != classes:
        raise UserError(
            f"--class_names={file} has {len(found)} names for {classes} classes; give "
            "one a line"
        )
    check_class_names(f"--class_names={file}", found)
    return found
