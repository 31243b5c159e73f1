"""The teacher of a run: loaded from any source and matched with what the run sees."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cnn import models
from cnn.checkpoints import proof
from cnn.config import Config
from cnn.data.images import Dataset
from cnn.data.names import show
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import count_parameters
from cnn.option import read_group
from cnn.runtime import devices
from cnn.runtime.terminal import Terminal
from cnn.training import same_data
from cnn.training.distillation import Teacher
from cnn.training.options import DistillationOptions
from cnn.training.setup import LoadedTeacher, Setup
from cnn.training.steps import Structure
from cnn.training.tasks import MULTILABEL
from cnn.training.trained import Trained, check_image_shape, get_class_names
from cnn.transfer import any_trained
from cnn.transfer.source import find_run

# What --mode=convert calls the options of a teacher that is a file, --teacher_NAME.
_OF_FILES = ("model", "mean", "std")
_SAID_OTHERWISE = {
    "--scaling=unit": "--teacher_mean=0 --teacher_std=1",
    "; nothing was written": "",
    ", with its options, or --num_classes": (
        ", or turn it with its options into a run by --mode=convert, and give that"
    ),
}


def open_teacher(options: DistillationOptions) -> Trained | None:
    """Load the model that `--teacher` names, before any image is decoded.

    Raises:
        UserError: there is none, it is damaged, or what is given does not fit it.
    """
    source = options.teacher
    if not source:
        return None
    values = options.teacher_model, options.teacher_mean, options.teacher_std
    given = {n: x for n, x in zip(_OF_FILES, values, strict=True) if x}
    if not any_trained.is_ours(source, "--teacher"):
        if not options.teacher_model:
            raise UserError(
                f"--teacher={source} is a file of weights; say with --teacher_model="
                "NAME of which architecture, one of --model"
            )
        try:
            return any_trained.load_theirs(source, **given)
        except UserError as error:
            raise UserError(_rewrite(source, str(error))) from None
    if given:
        names = ", ".join(f"--teacher_{name}" for name in given)
        raise UserError(
            f"--teacher={source} is a run, which knows its own architecture and "
            f"scaling; leave out {names}"
        )
    try:
        return any_trained.load_run(source)
    except UserError as error:
        raise UserError(f"--teacher={source}: {error}") from None


def _rewrite(source: str, message: str) -> str:
    """Write what `--mode=convert` refuses in the flags of a teacher."""
    for name in _OF_FILES:
        message = message.replace(f"--{name}=", f"--teacher_{name}=")
    for theirs, ours in _SAID_OTHERWISE.items():
        message = message.replace(theirs, ours)
    return message if source in message else f"--teacher={source}: {message}"


def add_teacher(
    config: Config,
    trained: Trained | None,
    stored: Mapping[str, Any],
    structure: Structure,
    dataset: Dataset,
    image_shape: tuple[int, int, int],
    like: Setup | None,
    terminal: Terminal,
) -> tuple[Structure, LoadedTeacher | None]:
    """Let a run learn from a teacher, and print from which.

    Args:
        trained: the teacher; None without.
        stored: the description of the run's newest checkpoint; empty without one.
        structure: of the run's steps.
        image_shape: (H, W, C) of what the run's model sees, of the largest size.
        like: a run on the same data, whose teacher is shared if it is the same.

    Returns:
        The structure with the teacher, and its variables.

    Raises:
        UserError: the teacher does not know a class, does not take the images, or is
            not the one that the run had.
    """
    if trained is None:
        return structure, None
    options, source = config.distillation, config.distillation.teacher
    if MULTILABEL in (structure.task, trained.structure.task):
        raise UserError(
            f"--teacher={source}: what is learnt are probabilities of one class among "
            "all, and here an image may have several labels; leave --teacher out"
        )
    sizes = {size for _, size in config.data.sizes if size}
    shapes = sorted({image_shape, *((x, x, image_shape[2]) for x in sizes)})
    try:
        for shape in shapes:
            check_image_shape(trained, shape)
    except UserError as error:
        raise UserError(f"--teacher={source}: {error}") from None
    about = _describe(trained, source)
    _check_same(about, stored)
    scaling = zip(structure.mean, structure.std, *_get_scaling(trained), strict=True)
    pairs = [
        (std / its_std, (mean - its) / its_std) for mean, std, its, its_std in scaling
    ]
    scale, shift = zip(*pairs, strict=True)
    teacher = Teacher(
        model=models.create_model(
            read_group(ModelOptions, trained.options),
            trained.structure.num_classes,
            devices.get_dtype(config.device),
        ),
        scale=scale,
        shift=shift,
        classes=_match_classes(trained, source, dataset),
        kind=options.distillation,
    )
    if like and like.teacher and like.teacher.about == about:
        loaded = like.teacher
    else:
        everywhere = devices.replicated(devices.make_mesh(config.device.mesh))
        variables = devices.put(everywhere, jax.device_get(trained.variables))
        loaded = LoadedTeacher(variables, about)
        _print(trained, about, dataset, shapes, terminal)
    return dataclasses.replace(structure, teacher=teacher), loaded


def _get_scaling(trained: Trained) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return trained.structure.mean, trained.structure.std


def _describe(trained: Trained, source: str) -> dict[str, Any]:
    """Describe a teacher as checkpoints do; the digest is as of `Source.sha256`."""
    return {
        "source": source,
        "model": trained.options["model"],
        "mean": list(trained.structure.mean),
        "std": list(trained.structure.std),
        "sha256": proof.hash_variables(trained.variables),
    }


def _check_same(about: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Refuse to resume a run with another teacher; its place does not matter."""
    before = stored.get("teacher")
    if not before:
        return
    if any(before[name] != about[name] for name in about if name != "source"):
        raise UserError(
            f"This run learns from --teacher={before['source']}, {_name(before)}, and "
            f"--teacher={about['source']} holds {_name(about)} now. Put its own back "
            "to resume it, or give another --workdir to start from scratch"
        )


def _name(about: Mapping[str, Any]) -> str:
    return f"{about['model']} with weights {about['sha256'][:12]}"


def _match_classes(trained: Trained, source: str, dataset: Dataset) -> tuple[int, ...]:
    """Find each of a dataset's classes among the teacher's by name, as evaluation does.

    Returns:
        Their places; empty when both have the same classes in the same order.
    """
    here = dataset.class_names
    known = get_class_names(trained, here)
    if known == here:
        return ()
    if unknown := [name for name in here if name not in known]:
        raise UserError(
            f"--teacher={source} does not know {_count(unknown)} of "
            f"--dataset={dataset.name}; it knows {_count(known)}. Name classes in the "
            "data as the teacher does, leave them out with --classes, or take another "
            "teacher"
        )
    return tuple(known.index(name) for name in here)


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' * (len(names) > 1)} ({show(names)})"


def _print(
    trained: Trained,
    about: Mapping[str, Any],
    dataset: Dataset,
    shapes: Sequence[tuple[int, int, int]],
    terminal: Terminal,
) -> None:
    """Print whom a run learns from, and what of that is worth knowing."""
    source, step = about["source"], f", step {trained.step}" * bool(trained.step)
    count = count_parameters(trained.variables["params"])
    terminal.say(f"teacher   {source}{step}: {_name(about)}, {count:,} parameters")
    there, *seen = ("x".join(map(str, x[:2])) for x in (trained.image_shape, *shapes))
    if others := [here for here in seen if here != there]:
        terminal.say(
            f"warning   the teacher was trained on images of {there} and sees "
            f"{', '.join(others)}, "
            "of which it may know less"
        )
    if not trained.classes_are_named and dataset.class_names != trained.class_names:
        terminal.say(
            "note      the teacher does not name its classes; they are taken to be in "
            "this dataset's order"
        )
    if run := find_run(source):
        same_data.warn_of_trained(run, trained.data, dataset, terminal)
