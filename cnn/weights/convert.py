"""Mode convert: weights of others become an ordinary checkpoint of step 0."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import unflatten_dict
from rich.table import Table

from cnn import models
from cnn.checkpoints import checkpoint, manifest, workdir
from cnn.config import Config
from cnn.data.names import check_class_names, normalise
from cnn.errors import UserError
from cnn.models import auxiliary
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables, flatten_paths, select_leaves
from cnn.optim.optimizer import Rule
from cnn.option import format_value
from cnn.runtime import devices, own_files
from cnn.runtime.terminal import Terminal
from cnn.text import show_line
from cnn.training import steps, tasks
from cnn.training.counters import Counters
from cnn.training.state import make_state, to_items
from cnn.weights import (
    beside,
    exchange,
    leaf,
    load,
    lookalikes,
    names,
    preprocessing,
)
from cnn.weights.flax_names import is_flax, split_collection
from cnn.weights.renaming import rename


@dataclasses.dataclass(frozen=True)
class Converted:
    """Weights of others under our names, with all that a run says of its own.

    Attributes:
        config: the options, with what they left open.
        variables: `params` and `batch_stats`, numpy.
        description: as of a checkpoint.
        notes: what is to be said of the source.
        count: of its tensors.
        renamed: names of the source, each with our path.
    """

    config: Config
    variables: dict[str, Any]
    description: dict[str, Any]
    notes: Sequence[str]
    count: int
    renamed: Sequence[tuple[str, str]]


def convert(config: Config, directory: Path, terminal: Terminal) -> Path:
    """Convert weights into a run that evaluate, predict and the rest take.

    What --image_size, --channels and --num_classes leave open is what the model was
    published for, the classes those of the file. --mean and --std travel with it. Of
    published weights all that makes images is as they were evaluated, where it is left
    open (--preprocessing).

    Args:
        config: `source` is the file, `model` what it holds.

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
    workdir.check_own(directory)
    taken = take(config)
    with workdir.lock(directory):
        write_run(taken.config, directory, taken.variables, taken.description)
    path = directory / "checkpoints" / "0"
    for note in taken.notes:
        terminal.say(f"source    {note}")
    if taken.renamed:
        terminal.show(_make_table(taken.renamed))
    called = f"{config.model.model} {_list_choices(config)}".rstrip()
    classes = len(taken.description["class_names"])
    terminal.say(
        f"{source}: {taken.count} tensors converted to {called} with {classes} classes"
    )
    terminal.say_written(path)
    return path


def take(config: Config) -> Converted:
    """Take the weights of a source, as `convert` writes them.

    Raises:
        UserError: the file is damaged or does not fit the model.
    """
    source, model = config.convert.source, config.model.model
    weights = _open(config)
    found, notes = weights.leaves, [*weights.notes]
    config, stated = _take_stated(config, weights, notes)
    size, channels, classes = models.get_published_input(model, config.model.stem)
    size, channels = config.data.image_size or size, config.data.channels or channels
    shape = (size, size, channels)
    classes = config.data.num_classes or classes
    paths = flatten_paths(_find_shapes(config, shape, classes))
    if is_flax(found):
        theirs = list(found)
        found, spelling = exchange.name_leaves(model, paths, found)
        renamed = [x for x in zip(theirs, found, strict=True) if x[0] != x[1]]
        known = list(found)
    else:
        spelling, entries = exchange.choose_spelling(model, paths, found)
        entries = [entry for entry in entries if entry.name in found]
        renamed = [(entry.name, entry.path) for entry in entries]
        known = [entry.path for entry in entries]
    if not config.data.num_classes:
        classes = _count_classes(model, paths, found) or classes
    named = _read_class_names(config.convert.class_names, classes)
    if not named and len(stated) == classes:
        named = list(stated)
    mean, std = exchange.choose_scaling(config.data, config.model, channels)
    shapes = _find_shapes(config, shape, classes)
    take = exchange.import_leaves if is_flax(found) else exchange.import_state_dict
    absent = _find_absent(paths, known, notes)
    wanted = {
        path: x for path, x in flatten_paths(shapes).items() if path not in absent
    }
    variables = take(model, wanted, found, source, _list_choices(config))
    if absent:
        draw = jax.jit(lambda: select_leaves(_create(config, shape, classes), absent))
        leaves = flatten_paths(variables) | flatten_paths(draw())
        variables = {"params": {}, "batch_stats": {}} | unflatten_dict(leaves, sep="/")
    if spelling is not None:
        names.check_spelling(spelling, config.model, source)
    config = _fill_data(config, size, channels, (mean, std))
    description = {
        "options": config.to_flat(),
        "class_names": named or list(map(str, range(classes))),
        "classes_are_named": bool(named),
        "image_shape": list(shape),
        "mean": list(mean),
        "std": list(std),
        "records": dataclasses.asdict(Counters()),
        "num_batches_tracked": 0 if is_flax(found) else _get_counter(found),
    } | _describe_task(config)
    return Converted(config, variables, description, notes, len(found), renamed)


def _describe_task(config: Config) -> dict[str, str]:
    """Return what a checkpoint says of its task; refuse a loss that is not for it."""
    several = config.data.task == tasks.MULTILABEL.name
    described = {"task": config.data.task} if several else {}
    tasks.get_task(described).choose_loss(config.loss.loss)
    return described


def _list_choices(config: Config) -> str:
    """List the model's options that are not their defaults, whoever set them."""
    flat, plain = dataclasses.asdict(config.model), dataclasses.asdict(ModelOptions())
    unread = config.find_unread(flat, "convert")
    return " ".join(
        f"--{name}={format_value(value)}"
        for name, value in flat.items()
        if name not in ("model", *unread) and value != plain[name]
    )


def _make_table(renamed: Sequence[tuple[str, str]]) -> Table:
    """Make the table of names there and here."""
    table = Table(box=None, pad_edge=False)
    for column in ("there", "here"):
        table.add_column(column, overflow="fold")
    for theirs, ours in renamed:
        table.add_row(show_line(theirs), ours)
    return table


def _open(config: Config) -> load.Weights:
    """Open the source, its leaves renamed as is wanted."""
    source = config.convert.source
    which, key = config.checkpoint.checkpoint, config.transfer.init_key
    found = load.load_weights(source, "--source", which, key)
    lookalikes.check(config.model, found.says, source)
    renamed = rename(found.leaves, config.transfer.init_rename)
    return dataclasses.replace(found, leaves=renamed)


def _take_stated(
    config: Config, weights: load.Weights, notes: list[str]
) -> tuple[Config, tuple[str, ...]]:
    """Fill in what is not given of images, as files beside the weights say.

    Where they say nothing, or `--preprocessing` has another say, as was published.

    Args:
        weights: with what is said of them.
        notes: gets what was taken.

    Returns:
        The options, and the names of classes.
    """
    stated = weights.stated or beside.Stated("")
    wanted, says = config.data.preprocessing, stated
    if wanted == preprocessing.AUTO and preprocessing.is_published(config, weights):
        wanted = preprocessing.PUBLISHED
    if wanted == preprocessing.GIVEN:
        says = beside.Stated("")
    elif wanted != preprocessing.AUTO:
        path = preprocessing.find_file(config.convert.source)
        says, wanted = preprocessing.describe(config.model.model, wanted, path)
    data, said = preprocessing.fill(config.data, says)
    data = dataclasses.replace(data, preprocessing=wanted)
    if says.options:
        notes.append(f"{says.file} says: {said or 'nothing of images'}")
    if stated.class_names:
        notes.append(f"{stated.file} has {len(stated.class_names)} names of classes")
    config = dataclasses.replace(config, data=data)
    return config, tuple(normalise(name) for name in stated.class_names)


def _count_classes(model: str, shapes: Any, found: Mapping[str, Any]) -> int:
    if is_flax(found):
        return exchange.count_outputs(found)
    return exchange.count_classes(model, shapes, found)


def _find_absent(
    paths: Iterable[str], known: Iterable[str], notes: list[str]
) -> set[str]:
    """Find the leaves of auxiliary classifiers that the source was written without.

    Args:
        paths: of the model.
        known: those of them that the source holds.
        notes: gets what is drawn in their place.
    """
    inside = {split_collection(path)[1]: path for path in paths}
    absent = auxiliary.list_absent(inside, (split_collection(x)[1] for x in known))
    notes += [
        f"it has no {layer}, which is drawn at random: training alone computes it"
        for layer in sorted(auxiliary.list_layers(absent))
    ]
    return {inside[x] for x in absent}


def _find_shapes(config: Config, shape: tuple[int, int, int], classes: int) -> Any:
    """Return the shapes of the model's variables for images [H, W, C] and K classes."""
    return jax.eval_shape(lambda: _create(config, shape, classes))


def _create(config: Config, shape: tuple[int, int, int], classes: int) -> Any:
    """Create the model's variables for images [H, W, C] and K classes."""
    model = models.create_model(config.make_static().model, classes)
    return create_variables(model, 0, shape)


def _fill_data(
    config: Config, size: int, channels: int, scaling: exchange.Scaling
) -> Config:
    """Return the options with what they leave open of the images."""
    filled = {"image_size": size, "channels": channels}
    if config.data.scaling == "standardize":
        filled |= {"mean": scaling[0], "std": scaling[1]}
    data = dataclasses.replace(config.data, **filled)
    return dataclasses.replace(config, data=data)


def write_run(
    config: Config, directory: Path, variables: Any, description: Mapping[str, Any]
) -> None:
    """Write weights that no step has trained as a run: its checkpoint of step 0.

    Args:
        config: its options.
        directory: of the run, made and locked.
        variables: `params` and `batch_stats`.
        description: of the checkpoint.
    """
    everywhere = devices.replicated(devices.make_mesh())
    static = config.make_static()
    rule = Rule(static.optimizer, static.schedule)
    placed = jax.device_put(variables, everywhere)
    state = make_state(rule, config.make_numbers(), placed)
    state = jax.device_put(state, everywhere)
    task, classes = tasks.get_task(description), len(description["class_names"])
    sums = jax.device_put(steps.create_train_sums(task, classes), everywhere)
    # First: a checkpoint makes it a run, which is then whole if the process is killed.
    workdir.write_config(directory, config.to_flat())
    try:
        writer = checkpoint.CheckpointWriter(directory / "checkpoints", 1)
        writer.save(to_items(state, sums), 0, description)
        writer.wait()
    except UserError:
        (directory / workdir.CONFIG_FILE).unlink()
        raise


def _get_counter(state_dict: Mapping[str, Any]) -> int:
    """Return how many batches PyTorch's running statistics say they have seen."""
    found = [x for name, x in state_dict.items() if name.endswith(names.COUNTER)]
    found = [leaf.read(x) for x in found if tuple(x.shape) in ((), (1,))]
    return max((int(x.item()) for x in found if x.dtype.kind in "iu"), default=0)


def _read_class_names(file: str, classes: int) -> list[str]:
    if not file:
        return []
    try:
        found = own_files.read(Path(file)).decode("utf-8-sig").split("\n")
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
