"""Mode describe: what the same command would train, checked and in numbers.

Every check that training makes before it compiles is made here too, on the run's own
data set. Parameters, shapes and the bytes of the state follow from shapes, at once;
`--measure_memory` compiles the training step and reports the rest. Nothing is written
but `describe.json`, and `bad_images.txt` where files cannot be read; what `--pictures`
names is drawn beside them, by `cnn.visualize`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn import models, train
from cnn.checkpoints import atomic, checkpoint, manifest, workdir
from cnn.config import Config
from cnn.data.chunks import Loader
from cnn.data.images import Images
from cnn.models import catalogue, summary
from cnn.models.family import DIGITS
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.training import epoch, memory, report, same_data, steps, tasks
from cnn.training.setup import PhaseSetup, Setup
from cnn.transfer import features
from cnn.transfer.source import check_same_source
from cnn.weights import preprocessing

# What stands for a mean or std that training computes from the images: no check and
# nothing that is described depends on it.
_ANY_SCALING = (0.5,)


def describe(config: Config, directory: Path, terminal: Terminal) -> dict:
    """Check the run that the config would train, print it and write `describe.json`.

    Of a well-known dataset that is not on this machine what was published is described,
    and that is said. Images are looked at only as far as loading checks them. For
    --model=list the table of all models is printed, and nothing is written.

    Args:
        directory: of the run; made if need be.

    Returns:
        As `summary.describe_model`, with `model`, `dataset`, `examples` by split,
        `num_classes`, `total_steps`, and `memory`: bytes of `parameters`,
        `batch_stats`, `optimizer_state`, `averaged_weights`, `images` (those that stay
        on the device, and two chunks: one is filled while the other is used), with
        --measure_memory `temporary` (activations, gradients and workspace), their sum,
        `total`, and what the `device` has. Where layers are unfrozen later, it is that
        of the end of the run; where images change their size, of the largest. With
        several sizes there is `sizes`: `use` (training, evaluation), `first_epoch`,
        `image_size` and `macs` of each.

    Raises:
        UserError: as training would.
    """
    if config.model.model == models.LIST:
        for title, table in catalogue.make_catalogue():
            terminal.say(title)
            terminal.show(table)
        return {}
    setup = _check(config, directory, terminal)
    found = {
        "model": config.model.model,
        "dataset": setup.dataset.name,
        "examples": {split: len(x) for split, x in setup.loaders.items()},
        "num_classes": len(setup.dataset.class_names),
        "total_steps": setup.total_steps,
        **setup.description,
    }
    sizes = _list_sizes(setup)
    found |= {"sizes": sizes} if sizes else {}
    found["memory"], advice = _count_memory(setup)
    directory.mkdir(parents=True, exist_ok=True)
    atomic.write_json(directory / "describe.json", found)
    same_data.write_bad(directory, setup.dataset.name, setup.dataset.excluded)
    report.announce(setup, terminal)
    height, width, channels = setup.image_shape
    terminal.say(
        f"{config.model.model} on {height}x{width}x{channels}: "
        f"{found['num_parameters']:,} parameters ({found['parameter_bytes'] / 1e6:.1f} "
        f"MB), {found['num_batch_stats']:,} batch statistics, "
        f"{found['macs'] / 1e9:.4f} GMACs"
    )
    for row in sizes:
        since = f" from epoch {row['first_epoch']}" if row["first_epoch"] else ""
        terminal.say(
            f"  {row['use']}{since} on {row['image_size']}x{row['image_size']}: "
            f"{row['macs'] / 1e9:.4f} GMACs"
        )
    for line in [
        *_list_memory(config, found["memory"]),
        *advice,
        *_name_input(found, config.model.stem),
    ]:
        terminal.say(line)
    terminal.say_written(directory / "describe.json")
    return found


def _check(config: Config, directory: Path, terminal: Terminal) -> Setup:
    """Check what training checks before it compiles, and make what it would run."""
    workdir.check_place(directory)
    workdir.check_place(directory / "checkpoints")
    config = preprocessing.resolve(config, directory, terminal)
    config = tasks.resume(config, directory)
    defaults = Config().to_flat()
    respelled = workdir.check_same_run(directory, config.select_run_options(), defaults)
    newest, damaged = manifest.find_finished(directory / "checkpoints")
    for line in damaged:
        terminal.say(line)
    stored = manifest.read_description(newest) if newest else {}
    stored |= {"step": int(newest.name)} if newest else {}
    setup = train.make_setup(
        _fill_scaling(config),
        stored,
        terminal,
        Stop(),
        preview=True,
        directory=directory,
    )
    before = respelled.get("init_from", "")
    check_same_source(config, before, stored, directory, terminal)
    profiler = Profiler(config.profile, setup.total_steps, writes=False)
    if newest:
        profiler.check_ahead(int(newest.name))
    return setup


def _fill_scaling(config: Config) -> Config:
    """Give numbers for those that training would compute from all images."""
    data = config.data
    is_given = bool(data.mean or data.std)
    if data.scaling != "standardize" or (config.transfer.init_from and not is_given):
        return config
    return config.change(
        {"mean": data.mean or _ANY_SCALING, "std": data.std or _ANY_SCALING}
    )


def _name_input(found: Mapping[str, Any], stem: str) -> list[str]:
    """Name the flags for what the model was published for, where the run differs."""
    published = models.get_published_input(found["model"], stem)
    height, *here = *found["input_shape"], found["num_classes"]
    if published == DIGITS or (height, published) == (here[0], tuple(here)):
        return []
    size, channels, num_classes = published
    made = "published" if stem == "imagenet" else "with this stem"
    return [
        f"{made} for {size}x{size}x{channels} and {num_classes} classes: "
        f"--image_size={size} --channels={channels} --num_classes={num_classes}"
    ]


def _list_sizes(setup: Setup) -> list[dict[str, Any]]:
    """List the sizes of images with what the model computes; none of a single one."""
    sizes, size = setup.config.data.sizes, setup.eval_shape[0]
    rows = [{"use": "training", "first_epoch": n, "image_size": x} for n, x in sizes]
    if len(sizes) == 1 and size == setup.image_shape[0]:
        return []
    rows.append({"use": "evaluation", "first_epoch": 0, "image_size": size})
    for row in rows:
        shape = (row["image_size"], row["image_size"], setup.image_shape[2])
        row["macs"] = summary.describe_model(setup.structure.model, shape)["macs"]
    return rows


def _find_largest(setup: Setup) -> PhaseSetup:
    """Return the phase with the largest images, the last of several."""
    return max(setup.phases, key=lambda phase: (phase.image_size, phase.first_epoch))


def _count_memory(setup: Setup) -> tuple[dict[str, int], list[str]]:
    """Count the bytes that training takes of one device; advise when it is too much."""
    phase, mesh = _find_largest(setup), setup.mesh
    state = jax.eval_shape(phase.create, setup.numbers, {})
    sizes = {
        "parameters": state.params,
        "batch_stats": state.batch_stats,
        "optimizer_state": state.opt_state,
        "averaged_weights": state.ema,
    }
    if state.examples is not None:
        sizes["examples"] = state.examples
    if setup.teacher is not None:
        sizes["teacher"] = setup.teacher.variables
    found = {name: memory.count_bytes(tree) for name, tree in sizes.items()}
    loaders = {*setup.loaders.values(), *(inputs := _make_loaders(setup)).values()}
    batch_size = setup.config.step.batch_size
    chunk = phase.chunk_steps * batch_size * inputs["train"].image_bytes
    found["images"] = 2 * chunk // mesh.shape["data"]
    found["images"] += sum(len(x) * x.image_bytes for x in loaders if x.is_resident)
    capacity, total = devices.get_device_memory(mesh), sum(found.values())
    if not setup.config.describe.measure_memory:
        advice = ["--measure_memory compiles, and adds activations and gradients"]
        return found | {"total": total, "device": capacity}, advice
    call = phase.train_chunk, _make_arguments(setup, state, inputs["train"])
    found["temporary"] = memory.measure_temporary(*call) or 0
    total, advice = sum(found.values()), []
    if total > capacity:
        pieces = phase.structure.accumulate_steps
        advice = [memory.describe_shortage(*call, memory.REMEDIES, pieces)]
    return found | {"total": total, "device": capacity}, advice


def _make_loaders(setup: Setup) -> Mapping[str, Loader]:
    """Make what fills the chunks of the last phase, for its sizes alone."""
    phase, data = _find_largest(setup), setup.config.data
    if not phase.structure.takes_features:
        return setup.loaders
    shape = features.cut_before_head(setup.structure, setup.image_shape).shape
    loaders = {}
    for split, loader in setup.loaders.items():
        views = phase.views if split == "train" else 1
        labels = np.concatenate([loader.labels] * views)
        images = Images(labels, shape, lambda positions: positions, True, 4)
        loaders[split] = Loader(images, data, setup.mesh, reads=False)
    return loaders


def _make_arguments(setup: Setup, state: Any, loader: Loader) -> tuple:
    """Make the shapes that the last phase's training program is called with.

    Args:
        state: shapes of the state.
    """
    phase, mesh = _find_largest(setup), setup.mesh
    batches = phase.chunk_steps, setup.config.step.batch_size
    split, whole = devices.split_batches(mesh, batches[1]), devices.replicated(mesh)
    dtype = jnp.float32 if phase.structure.takes_features else jnp.uint8
    chunk = {
        "images": jax.ShapeDtypeStruct((*batches, *loader.image_shape), dtype),
        "labels": jax.ShapeDtypeStruct(
            (*batches, *loader.labels.shape[1:]), loader.labels.dtype
        ),
        "ids": jax.ShapeDtypeStruct(batches, jnp.int32),
    }
    step = setup.config.step
    if step.sampling != "uniform" or step.repeats_in_batch > 1:
        chunk["copies"] = chunk["ids"]
    structure = phase.structure
    sums = jax.eval_shape(
        lambda: steps.create_train_sums(structure.task, structure.num_classes)
    )
    rest = setup.numbers, epoch.make_bounds(0, 1)
    return (
        checkpoint.abstract(state, devices.split_leaves(mesh, state)),
        checkpoint.abstract(sums, whole),
        checkpoint.abstract(chunk, split),
        *checkpoint.abstract(rest, whole),
        checkpoint.abstract(setup.teacher_variables, whole),
    )


def _list_memory(config: Config, found: dict[str, int]) -> list[str]:
    """Write out the bytes that training takes, a line each."""
    lines = [
        f"training with --batch_size={config.step.batch_size} takes of a device's "
        f"{found['device'] / 2**20:,.1f} MiB:"
    ]
    for name, size in found.items():
        if name != "device":
            lines.append(f"  {name.replace('_', ' '):20}{size / 2**20:14,.1f} MiB")
    return lines
