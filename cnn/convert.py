"""Mode convert: PyTorch's weights become an ordinary checkpoint of step 0."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from cnn import checkpoint, devices, manifest, models, steps, workdir
from cnn.errors import UserError
from cnn.options import option
from cnn.run import Records
from cnn.state import create_variables, flatten_paths, make_state
from cnn.weights import exchange, names, preprocessing

if TYPE_CHECKING:
    from cnn.config import Config
    from cnn.progress import Terminal


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Where converted weights come from."""

    source: str = option(
        "",
        "convert: file of PyTorch's weights, .pth, .th, .pt or .safetensors",
        changes_run=False,
    )
    class_names: str = option(
        "",
        "convert: text file with a class name a line, in the order of the logits; "
        "empty: numbers",
        changes_run=False,
    )


def convert(config: "Config", directory: Path, terminal: "Terminal") -> Path:
    """Convert weights into a run that evaluate, predict and the rest take.

    What --image_size, --channels and --num_classes leave open is what the model was
    published for, the classes those of the file. --mean and --std travel with it.

    Args:
        config: every option; `source` is the file, `model` what it holds.
        directory: the run's directory; made if need be.
        terminal: where to print.

    Returns:
        The checkpoint's directory.

    Raises:
        UserError: the file is damaged or does not fit the model, or the directory
            holds a run already. Nothing was written.
    """
    source = config.convert.source
    if not source:
        raise UserError("--mode=convert needs --source=FILE")
    if manifest.list_steps(directory / "checkpoints"):
        raise UserError(
            f"--workdir={directory} holds a run already; name another directory"
        )
    state_dict = exchange.load_file(Path(source))
    size, channels, classes = models.get_published_input(config.model.model)
    size, channels = config.data.image_size or size, config.data.channels or channels
    classes = config.data.num_classes or _count_classes(config, state_dict) or classes
    named = _read_class_names(config.convert.class_names, classes)
    mean, std = preprocessing.choose_scaling(config.data, config.model.model, channels)
    shape = (size, size, channels)
    variables = _import(config, state_dict, shape, classes)
    config = _fill_data(config, size, channels, mean, std)
    description = {
        "options": config.to_flat(),
        "class_names": named or list(map(str, range(classes))),
        "classes_are_named": bool(named),
        "image_shape": list(shape),
        "mean": list(mean),
        "std": list(std),
        "records": dataclasses.asdict(Records()),
        "num_batches_tracked": _get_counter(state_dict),
    }
    with workdir.lock(directory):
        _write(config, directory, variables, description)
    path = directory / "checkpoints" / "0"
    terminal.say(
        f"{source}: {len(state_dict)} tensors converted to {config.model.model} with "
        f"{classes} classes\nwritten to {path}"
    )
    return path


def _import(
    config: "Config",
    state_dict: dict[str, np.ndarray],
    shape: tuple[int, int, int],
    classes: int,
) -> Any:
    """Bring a file's tensors into the variables of the model; refuses what differs."""
    model = models.create_model(config.make_static().model, classes)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, shape))
    name, source = config.model.model, config.convert.source
    return exchange.import_state_dict(name, shapes, state_dict, source)


def _fill_data(
    config: "Config",
    size: int,
    channels: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> "Config":
    """Return the options with what they leave open of the images."""
    filled = {"image_size": size, "channels": channels}
    if config.data.scaling == "standardize":
        filled |= {"mean": mean, "std": std}
    data = dataclasses.replace(config.data, **filled)
    return dataclasses.replace(config, data=data)


def _write(
    config: "Config", directory: Path, variables: Any, description: dict
) -> None:
    everywhere = devices.replicated(devices.make_mesh())
    state = make_state(
        jax.device_put(variables, everywhere),
        config.make_static().optimizer,
        config.make_hyperparameters(),
    )
    state = jax.device_put(state, everywhere)
    sums = jax.device_put(steps.create_train_sums(), everywhere)
    writer = checkpoint.CheckpointWriter(directory / "checkpoints", 1)
    writer.save(state, sums, description, best_step=-1)
    writer.wait()
    workdir.write_json(directory / workdir.CONFIG_FILE, config.to_flat())


def _count_classes(config: "Config", state_dict: dict[str, np.ndarray]) -> int:
    """Read the number of classes off the head's bias; 0 where there is none."""
    size, channels, classes = models.get_published_input(config.model.model)
    size, channels = config.data.image_size or size, config.data.channels or channels
    model = models.create_model(config.make_static().model, classes)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (size, size, channels)))
    name = config.model.model
    entries = exchange.choose_spelling(name, flatten_paths(shapes), state_dict)
    for entry in entries:
        if entry.path == "params/head/bias" and entry.name in state_dict:
            return state_dict[entry.name].size
    return 0


def _get_counter(state_dict: dict[str, np.ndarray]) -> int:
    """Return how many batches PyTorch's running statistics say they have seen."""
    suffix = names.COUNTER
    found = [
        x for name, x in state_dict.items() if name.endswith(suffix) and x.size == 1
    ]
    return max((int(x.item()) for x in found), default=0)


def _read_class_names(file: str, classes: int) -> list[str]:
    if not file:
        return []
    try:
        found = Path(file).read_text().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--class_names={file} cannot be read ({error})") from None
    found = [line.strip() for line in found if line.strip()]
    if len(found) != classes:
        raise UserError(
            f"--class_names={file} has {len(found)} names for {classes} classes; give "
            "one a line"
        )
    return found
