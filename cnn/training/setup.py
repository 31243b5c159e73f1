"""What a run is made of, built once from its options and then fixed.

The parts are built by functions of their own: the images, the step's structure, the
programs of each phase. `cnn.train.make_setup` puts them together.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from cnn import models
from cnn.augment import pipeline
from cnn.config import Config, Numbers
from cnn.data import labels as labelled
from cnn.data import load_dataset
from cnn.data.chunks import Loader, choose_chunk_steps
from cnn.data.files import describe_bad
from cnn.data.images import Dataset
from cnn.data.statistics import compute_scaling
from cnn.errors import UserError
from cnn.models import own
from cnn.optim import freezing, mup, optimizer, schedules, weight_averaging
from cnn.optim.freezing import Phase
from cnn.optim.layer_rates import Rates
from cnn.optim.optimizer import Rule
from cnn.runtime import devices
from cnn.runtime.terminal import Terminal
from cnn.training import epoch, losses, trunk
from cnn.training.same_data import Seen
from cnn.training.state import TrainState, create_state
from cnn.training.steps import Structure
from cnn.training.tasks import MULTICLASS, Task, find_task

Loaders = Mapping[str, Loader]
Shape = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run starts from, and what of it trains when.

    Attributes:
        phases: what trains when; (None,) for everything always.
        rates: each parameter's place among the learning rates by layer.
        taken: `params` and `batch_stats` that are not drawn: from other weights, or
            the whitening kernel; `opt_state` and `average` of `--keep_optimizer`.
        about: what checkpoints say of these weights: `source`, `source_sha256`.
    """

    phases: tuple[Phase | None, ...] = (None,)
    rates: Rates = ()
    taken: dict[str, Any] = dataclasses.field(default_factory=dict)
    about: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedTeacher:
    """A trained model that a run learns from.

    Attributes:
        variables: its `params` and `batch_stats`, on every device.
        about: what checkpoints say of it: `source`, `model`, `mean`, `std`, and the
            `sha256` of its variables.
    """

    variables: Any
    about: dict[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class PhaseSetup:
    """What computes while the same leaves train, on images of one size.

    Attributes:
        structure: of its steps.
        first_epoch: its first.
        create: from (numbers, taken) to the state before the first step.
        train_chunk: the compiled steps.
        compiler_options: of `xla.choose_compiler_options`, theirs.
        chunk_steps: steps of a chunk.
        make_loaders: from (a function that returns `params` and `batch_stats`, numbers)
            to what fills chunks, by split.
        views: how often the training set stands in its loader, each time varied
            otherwise; above 1 for cached features alone.
    """

    structure: Structure
    first_epoch: int
    create: Callable[[Numbers, Any], TrainState]
    train_chunk: Callable[..., Any]
    compiler_options: tuple
    chunk_steps: int
    make_loaders: Callable[[Callable[[], Any], Numbers], Loaders]
    views: int = 1

    @property
    def image_size(self) -> int:
        """Height and width in pixels of what the model trains on; 0: as stored."""
        return self.structure.resized_to or self.structure.image_size


@dataclasses.dataclass(frozen=True, eq=False)
class Setup:
    """What is fixed in a run.

    Attributes:
        numbers: those of its options that are traced.
        seen: what identifies the images.
        loaders: of the images, by split.
        image_shape: (H, W, C) of what the model trains on, of the largest size.
        description: of the model on these, as of `summary.describe_model`.
        structure: of the step, when everything trains.
        plan: what it starts from, and what trains when.
        phases: what computes, from one change of what trains, or of the size of
            images, to the next.
        provenance: of `provenance.describe`, for the result.
        teacher: whom the run learns from besides the labels; None: nobody.
    """

    config: Config
    numbers: Numbers
    mesh: Mesh
    dataset: Dataset
    seen: Seen
    loaders: Loaders
    image_shape: Shape
    description: dict[str, Any]
    structure: Structure
    plan: Plan
    phases: tuple[PhaseSetup, ...]
    provenance: Mapping[str, Any]
    teacher: LoadedTeacher | None = None

    @property
    def teacher_variables(self) -> Any:
        """Return the last argument of the training programs; None without a teacher."""
        return self.teacher.variables if self.teacher else None

    @property
    def total_steps(self) -> int:
        """Return the number of steps of the whole run."""
        return self.config.train.epochs * self.structure.steps_per_epoch

    @property
    def trunk_step(self) -> int:
        """Return the step whose checkpoint `--extend` takes; 0: the run keeps none."""
        if self.config.schedule.schedule != trunk.DECAYS:
            return 0
        return trunk.find_trunk(self.config, self.structure.steps_per_epoch)

    @property
    def lengths(self) -> tuple[int, int, int]:
        """Return the steps of an epoch, the training images, and their longer side."""
        sides = self.image_shape[:2]
        return self.structure.steps_per_epoch, len(self.dataset.train), max(sides)

    @property
    def checkpoint_interval(self) -> int:
        """Return the steps between checkpoints."""
        options = self.config.checkpoint
        every = min(options.checkpoint_every_epochs, self.config.train.epochs)
        return max(1, round(every * self.structure.steps_per_epoch))

    @property
    def eval_split(self) -> str:
        """Return the split that is evaluated during training."""
        return "validation" if "validation" in self.loaders else "test"

    def find_phase(self, step: int) -> int:
        """Return the phase that took a step, counted from 1, or takes the first."""
        number = max(0, step - 1) // self.structure.steps_per_epoch
        return freezing.find_phase(self.phases, number)

    @property
    def eval_shape(self) -> Shape:
        """Return (H, W, C) of what the model sees in evaluation."""
        size = self.config.data.for_evaluation().image_size
        return (size, size, self.image_shape[2]) if size else self.image_shape

    def for_evaluation(self, structure: Structure) -> Structure:
        """Return the structure of evaluation: of steps, but for the size of images."""
        size = self.config.data.for_evaluation().image_size
        return dataclasses.replace(structure, image_size=size, resized_to=0)

    def with_numbers(self, config: Config) -> "Setup":
        """Return the setup of a run that differs from this one in numbers alone."""
        numbers = config.make_numbers()
        return dataclasses.replace(self, config=config, numbers=numbers)


def load_images(config: Config, terminal: Terminal, preview: bool = False) -> Dataset:
    """Load the images, or a preview of them, and print what there is to say of them."""
    dataset = load_dataset(config.data, preview)
    for note in dataset.notes + describe_bad(dataset.excluded):
        terminal.say(note)
    return dataset


def find_image_shape(config: Config, dataset: Dataset) -> Shape:
    """Return (H, W, C) of what the model trains on, of the largest size."""
    size, shape = config.data.training_size, dataset.train.shape
    return (size, size, shape[2]) if size else shape


def make_loaders(
    config: Config, dataset: Dataset, mesh: Mesh, reads: bool = True
) -> Loaders:
    """Make the loader of each split that there is; resident images are placed."""
    parts = {name: getattr(dataset, name) for name in ("train", "validation", "test")}
    parts = {name: images for name, images in parts.items() if images is not None}
    total = sum(images.num_bytes for images in parts.values())
    return {
        name: Loader(images, config.data, mesh, reads, total - images.num_bytes)
        for name, images in parts.items()
    }


def make_structure(
    config: Config,
    dataset: Dataset,
    pixels: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
) -> Structure:
    """Make the static part of a run's steps.

    Args:
        pixels: mean and std of each channel; None: as the options say.

    Raises:
        UserError: the batch is larger than the training set, does not divide into
            `accumulate_steps`, or early stopping or a plateau has no validation set;
            or a model of the user's computes something else.
    """
    _check_fits(config, dataset)
    data, num_classes = config.data, len(dataset.class_names)
    mean, std = pixels or compute_scaling(
        data.scaling, data.mean, data.std, dataset.train
    )
    structure = make_structure_of_model(
        config, num_classes, find_task(dataset.train.labels)
    )
    shape = find_image_shape(config, dataset)
    own.check_call(config.model, structure.model, num_classes, shape)
    scales = mup.make_scales(config.model, config.optimizer, num_classes, shape)
    return dataclasses.replace(
        structure,
        rule=dataclasses.replace(structure.rule, scales=scales),
        mean=mean,
        std=std,
        steps_per_epoch=len(dataset.train) // config.step.batch_size,
        tracked_examples=len(dataset.train) * config.step.track_examples,
        class_weights=losses.compute_class_weights(
            config.loss, dataset.train.labels, num_classes
        ),
    )


def make_structure_of_model(
    config: Config, num_classes: int, task: Task = MULTICLASS
) -> Structure:
    """Make what of the static part does not depend on the images."""
    static = config.make_static()
    return Structure(
        model=models.create_model(
            static.model, num_classes, devices.get_dtype(config.device)
        ),
        num_classes=num_classes,
        mean=(0.5,),
        std=(0.25,),
        image_size=config.data.training_size,
        augment=static.augment,
        task=task,
        loss=task.choose_loss(config.loss.loss),
        loss_reduction=config.loss.loss_reduction,
        accumulate_steps=config.step.accumulate_steps,
        log_noise_scale=config.step.log_noise_scale,
        remat=config.model.remat == "blocks",
        rule=Rule(static.optimizer, static.schedule, averaging=static.averaging),
        cpu_kernels=config.device.cpu_kernels,
    )


def make_phases(
    config: Config,
    structure: Structure,
    phases: Sequence[Phase | None],
    image_shape: Shape,
    loaders: Loaders,
    compiler_options: tuple,
) -> tuple[PhaseSetup, ...]:
    """Make what computes in each phase on images; nothing is compiled.

    A change of what trains, or of the size of images, begins one.

    Args:
        structure: of the step, when everything trains, on images of the largest size.
        phases: what trains when.
        image_shape: (H, W, C) of what the model sees.
        loaders: of the images.
        compiler_options: of `xla.choose_compiler_options`.
    """
    sizes, made = config.data.sizes, []
    starts = {epoch for epoch, _ in sizes}
    starts |= {0 if phase is None else phase.first_epoch for phase in phases}
    for first in sorted(starts):
        size = [size for epoch, size in sizes if epoch <= first][-1]
        phase = phases[freezing.find_phase(phases, first)]
        rule = dataclasses.replace(structure.rule, phase=phase)
        own = dataclasses.replace(_set_size(config, structure, size), rule=rule)
        batch_size = config.step.batch_size
        made.append(
            make_phase(own, first, image_shape, loaders, batch_size, compiler_options)
        )
    return tuple(made)


def _set_size(config: Config, structure: Structure, size: int) -> Structure:
    """Bring training images to a size: by their crop if that resizes, else after it."""
    if size == structure.image_size:
        return structure
    if config.augment.random_resized_crop_min_area:
        return dataclasses.replace(structure, image_size=size)
    return dataclasses.replace(structure, resized_to=size)


def make_phase(
    structure: Structure,
    first_epoch: int,
    image_shape: Shape,
    loaders: Loaders,
    batch_size: int,
    compiler_options: tuple,
) -> PhaseSetup:
    """Make what computes in a phase on images; nothing is compiled.

    Args:
        structure: of its steps.
        first_epoch: its first.
        image_shape: (H, W, C) of what the model sees.
        loaders: of the images.
        batch_size: of a step.
        compiler_options: of `xla.choose_compiler_options`.
    """
    rule = structure.rule
    mesh, image_bytes = loaders["train"].mesh, loaders["train"].image_bytes
    return PhaseSetup(
        structure=structure,
        first_epoch=first_epoch,
        create=make_create(
            structure.model, image_shape, rule, mesh, structure.tracked_examples
        ),
        train_chunk=epoch.make_train_chunk(structure, mesh, compiler_options),
        compiler_options=compiler_options,
        chunk_steps=choose_chunk_steps(
            structure.steps_per_epoch, batch_size, image_bytes
        ),
        make_loaders=lambda get_weights, numbers: loaders,
    )


@functools.lru_cache(epoch.PROGRAMS_KEPT)
def make_create(
    model: Any, image_shape: Shape, rule: Rule, mesh: Mesh, tracked: int = 0
) -> Callable[[Numbers, Any], TrainState]:
    """Make the program that creates the state before the first step."""

    def create(numbers: Numbers, taken: Any) -> TrainState:
        state = create_state(model, image_shape, rule, numbers, taken, tracked)
        return devices.place_state(mesh, state)

    return jax.jit(create)


def check_repeats(batch_size: int, repeats: int) -> None:
    """Refuse batches of copies of less than two images.

    Raises:
        UserError: naming both flags.
    """
    if repeats > 1 and batch_size < 2 * repeats:
        raise UserError(
            f"--repeats_in_batch={repeats} leaves less than two images to "
            f"--batch_size={batch_size}; give a larger batch or fewer repeats"
        )


def check_pieces(batch_size: int, pieces: int) -> None:
    """Refuse a batch that does not divide into pieces of one size.

    Raises:
        UserError: naming both flags.
    """
    if batch_size % pieces:
        raise UserError(
            f"--accumulate_steps={pieces} does not divide --batch_size={batch_size}"
        )


def _check_tracked(config: Config, are_several: bool) -> None:
    """Refuse to track examples that have not one label each."""
    if are_several:
        raise UserError(
            "--track_examples tells whether the one label of an image is wrong, and "
            "these may have several; leave it out"
        )
    if config.augment.mixup_alpha or config.augment.cutmix_alpha:
        raise UserError(
            "--track_examples needs images of one label, and --mixup_alpha and "
            "--cutmix_alpha mix two; leave it out, or give both as 0"
        )


def _check_fits(config: Config, dataset: Dataset) -> None:
    """Refuse options that do not go with the images or with each other."""
    batch_size, pieces = config.step.batch_size, config.step.accumulate_steps
    if len(dataset.train) < batch_size:
        raise UserError(
            f"--batch_size={batch_size} is larger than the training set of "
            f"{len(dataset.train)} images; give a smaller one"
        )
    check_pieces(batch_size, pieces)
    check_repeats(batch_size, config.step.repeats_in_batch)
    if config.step.log_noise_scale and pieces == 1:
        raise UserError(
            "--log_noise_scale compares the pieces of a batch: divide it into some, as "
            "with --accumulate_steps=4"
        )
    if config.train.early_stop_epochs and dataset.validation is None:
        raise UserError(
            "--early_stop_epochs selects on validation data and there is none; carve "
            "it out of train with --validation_fraction=0.1"
        )
    are_several = labelled.are_several(dataset.train.labels)
    losses.check(config.loss, len(dataset.class_names), are_several)
    if config.schedule.schedule == "plateau" and dataset.validation is None:
        raise UserError(
            "--schedule=plateau looks at validation data and there is none; carve it "
            "out of train with --validation_fraction=0.1"
        )
    if config.step.track_examples:
        _check_tracked(config, are_several)
    schedules.check(config)
    optimizer.check(config.optimizer)
    weight_averaging.check(config.averaging)
    is_apart = config.data.eval_image_size or config.data.eval_resize_size
    if is_apart and config.augment.tta == "crops":
        raise UserError(
            "--tta=crops cuts views from larger images, and images that are evaluated "
            "by --eval_image_size or --eval_resize_size are stored without what lies "
            "around; give --tta=flip, or leave these out"
        )
    pipeline.check(config.augment, dataset.train.shape, config.data.training_size)
