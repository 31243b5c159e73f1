"""Config: every option of the project, composed of the groups beside their code.

Flag names are the field names of the groups, flat and unique. A preset is a file
`configs/NAME.py` whose `options` holds what differs from the defaults. `Numbers` are
the options that reach a compiled step as arrays.
"""

import dataclasses
import functools
import json
import runpy
import sys
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from cnn import condition, own_code
from cnn import option as declared
from cnn.augment.options import AugmentOptions
from cnn.checkpoints.options import CheckpointOptions, NamingOptions
from cnn.data.options import DataOptions
from cnn.errors import Problems, UserError, suggest
from cnn.ledger.options import LedgerOptions
from cnn.models.options import ModelOptions
from cnn.optim.options import (
    AveragingOptions,
    FreezingOptions,
    OptimizerOptions,
    ScheduleOptions,
)
from cnn.option import free_option
from cnn.place import PRESETS
from cnn.runtime.options import (
    DeviceOptions,
    ProcessOptions,
    ProfileOptions,
    ProgressOptions,
)
from cnn.sweep.options import SweepOptions
from cnn.training.options import (
    DistillationOptions,
    LossOptions,
    StepOptions,
    TrainOptions,
)
from cnn.transfer.options import TransferOptions
from cnn.visualize.options import VisualizeOptions
from cnn.weights.options import ConvertOptions, ExportOptions


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """What is evaluated."""

    modes: ClassVar[str] = "evaluate visualize"

    split: str = free_option(
        "test",
        "what evaluate and visualize look at",
        choices=("train", "validation", "test", "all"),
        only_for="mode!=visualize or pictures=all|mistakes|kernels|features|patches|"
        "maximisation|invariance|playground or pictures=saliency and not picture_files",
    )
    threshold: float = free_option(
        0.0,
        "of several labels an image: probability from which a class is one of them; 0: "
        "each class's own, tuned on validation data, or 0.5 where there was none",
        within="[0, 1]",
        modes="evaluate predict",
    )
    per_image: bool = free_option(
        False,
        "evaluate: write a CSV file beside the evaluation's: path or id, label, "
        "prediction, loss and probabilities of every image",
        modes="evaluate",
    )
    ensemble: bool = free_option(
        False,
        "evaluate: average the probabilities of all runs of --workdir=A,B,C, or of the "
        "trials of a sweep, as one model, and write ensemble.json into the first run, "
        "or beside the sweep's tables",
        modes="evaluate",
    )
    members: str = free_option(
        "all",
        "evaluate: trials of a sweep that are averaged, of those whose weights it has "
        "kept (--keep_trials): all, or seeds: those of the best setting",
        choices=("all", "seeds"),
        only_for="ensemble",
        modes="evaluate",
    )
    calibrate: bool = free_option(
        False,
        "evaluate: fit the temperature by which logits are divided on the validation "
        "images of the run, and keep it in its calibration.json",
        modes="evaluate",
    )
    calibration: str = free_option(
        "auto",
        "temperature of probabilities: auto (the one that --calibrate has kept for the "
        "weights, if any) or off (logits as they are)",
        choices=("auto", "off"),
        only_for="mode=predict or not calibrate",
        modes="evaluate predict",
    )


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """What is predicted."""

    modes: ClassVar[str] = "predict"

    predict_images: str = free_option(
        "",
        "image files to classify: files, directories (searched to the bottom) and "
        "patterns such as 'photos/*.jpg', separated by commas",
        is_path=True,
    )
    predict_batch_size: int = free_option(
        0,
        "images computed at a time; 0: --batch_size, or fewer that have as many pixels "
        "as 64 of 256x256",
        within="[0, 16777216]",
    )
    predict_top: int = free_option(
        5,
        "most probable classes that are written of each image; all, where there are "
        "not so many",
        within="[1, 2147483647]",
    )


@dataclasses.dataclass(frozen=True)
class AverageOptions:
    """How weights of several runs are averaged."""

    modes: ClassVar[str] = "average"

    soup: str = free_option(
        "uniform",
        "which of the runs of --workdir=A,B,C are averaged: uniform: all; greedy: from "
        "the best on, each that does not make the mean's validation metric "
        "(--select_by of the first run) worse",
        choices=("uniform", "greedy"),
    )


@dataclasses.dataclass(frozen=True)
class DescribeOptions:
    """What is described of the run that the same command would train."""

    modes: ClassVar[str] = "describe"

    measure_memory: bool = free_option(
        False,
        "describe: compile the training step and report the bytes that it takes of a "
        "device, as the compiler says",
    )


@dataclasses.dataclass(frozen=True)
class FindRateOptions:
    """Which learning rates are tried on the run that the same command would train."""

    modes: ClassVar[str] = "find_rate"

    find_rate_min: float = free_option(
        1e-5, "the --learning_rate of the first step", within="(0, inf)"
    )
    find_rate_max: float = free_option(
        10.0, "the --learning_rate of the last step", within="(0, inf)"
    )
    find_rate_steps: int = free_option(
        200,
        "steps, over which the rate grows by the same factor each; fewer are taken "
        "where the loss diverges",
        within="[20, 10000]",
    )


@dataclasses.dataclass(frozen=True)
class ReplayOptions:
    """Which step of a run is taken again and looked into."""

    modes: ClassVar[str] = "replay"

    step: int = free_option(
        0,
        "the step of --workdir, counted from 1 as in metrics.jsonl",
        within="[0, 2147483647]",
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """All options of a run."""

    model: ModelOptions = ModelOptions()
    data: DataOptions = DataOptions()
    augment: AugmentOptions = AugmentOptions()
    loss: LossOptions = LossOptions()
    distillation: DistillationOptions = DistillationOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    averaging: AveragingOptions = AveragingOptions()
    step: StepOptions = StepOptions()
    train: TrainOptions = TrainOptions()
    transfer: TransferOptions = TransferOptions()
    freezing: FreezingOptions = FreezingOptions()
    sweep: SweepOptions = SweepOptions()
    naming: NamingOptions = NamingOptions()
    checkpoint: CheckpointOptions = CheckpointOptions()
    progress: ProgressOptions = ProgressOptions()
    profile: ProfileOptions = ProfileOptions()
    device: DeviceOptions = DeviceOptions()
    processes: ProcessOptions = ProcessOptions()
    evaluate: EvaluateOptions = EvaluateOptions()
    predict: PredictOptions = PredictOptions()
    convert: ConvertOptions = ConvertOptions()
    export: ExportOptions = ExportOptions()
    visualize: VisualizeOptions = VisualizeOptions()
    average: AverageOptions = AverageOptions()
    describe: DescribeOptions = DescribeOptions()
    find_rate: FindRateOptions = FindRateOptions()
    ledger: LedgerOptions = LedgerOptions()
    replay: ReplayOptions = ReplayOptions()

    def to_flat(self) -> dict[str, Any]:
        """Return every option's value by flag name, as JSON has it."""
        flat = {}
        for group in dataclasses.fields(self):
            flat |= vars(getattr(self, group.name))
        return json.loads(json.dumps(flat))

    def make_numbers(self) -> "Numbers":
        """Make the traced numbers of a run.

        Returns:
            Each an array (float32, or int32 for whole numbers), or None for one that
            is absent at its value 0 or without names.
        """
        flat, traced = self.to_flat(), {}
        for name, field in list_fields().items():
            kind = field.metadata["kind"]
            if kind in ("traced_unless_zero", "traced_by_name") and not flat[name]:
                traced[name] = None
            elif kind == "traced_by_name":
                numbers = declared.split_numbers(name, flat[name])[1]
                traced[name] = np.asarray(numbers, np.float32)
            elif kind != "static":
                dtype = np.int32 if field.type is int else np.float32
                traced[name] = np.asarray(flat[name], dtype)
        return Numbers(**traced)

    def make_static(self) -> "Config":
        """Return the config with every traced number at its default, or at 1 by name.

        Runs whose static parts are equal, and whose traced numbers are present alike,
        are one program.
        """
        groups = {}
        for group in dataclasses.fields(self):
            group_options, traced = getattr(self, group.name), {}
            for field in dataclasses.fields(group.type):
                if field.metadata["kind"] == "traced_by_name":
                    texts = getattr(group_options, field.name)
                    names = declared.split_numbers(field.name, texts)[0]
                    traced[field.name] = tuple(f"{name}=1" for name in names)
                elif field.metadata["kind"] != "static":
                    traced[field.name] = field.default
            groups[group.name] = dataclasses.replace(group_options, **traced)
        return Config(**groups)

    def make_program_key(self) -> tuple["Config", tuple]:
        """Return what is equal for runs that are one program.

        Returns:
            The static part, and the shape of every traced number, None where absent.
        """
        numbers = vars(self.make_numbers()).items()
        shapes = tuple((n, None if x is None else x.shape) for n, x in numbers)
        return self.make_static(), shapes

    def change(self, changes: Mapping[str, Any]) -> "Config":
        """Return the config with other values of some options, by flag name.

        Raises:
            UserError: as `make_config`.
        """
        return make_config(self.to_flat(), changes)

    def select_run_options(self) -> dict[str, Any]:
        """Return those options, by flag name, of which a change makes another run."""
        fields, flat = list_fields(), self.to_flat()
        return {n: v for n, v in flat.items() if fields[n].metadata["changes_run"]}

    def find_unread(self, names: Iterable[str], mode: str) -> list[str]:
        """Return those of some options that are not read under these choices."""
        flat = self.to_flat() | {"mode": mode}
        return [n for n in names if not condition.is_read(n, list_conditions(), flat)]

    def check_read(self, given: Mapping[str, Any], mode: str) -> None:
        """Refuse options that were given and are not read under these choices.

        Args:
            given: options by flag name.
            mode: of the program.

        Raises:
            UserError: naming each, and the choice that would read it.
        """
        problems = []
        for name in self.find_unread(given, mode):
            flat = self.to_flat() | {"mode": mode}
            why = condition.explain(name, list_conditions(), flat)
            shown = declared.format_value(given[name])
            problems.append(
                f"--{name}={shown} would have no effect: it is only for {why}. Leave "
                "it out, or change that"
            )
        if problems:
            raise UserError(*problems)

    def select_shared_options(self) -> dict[str, Any]:
        """Return those options that processes of one run must have alike.

        What and when a process saves or traces decides what it computes with the
        others, so these are all but its number and the paths on its own machine.
        """
        own = ("distributed", "data_dir", "compilation_cache", "storage_cache")
        return {n: v for n, v in self.to_flat().items() if n not in own}


@functools.cache
def list_fields() -> dict[str, dataclasses.Field]:
    """Return every option's field by flag name, in the order of `--help`."""
    fields: dict[str, dataclasses.Field] = {}
    for group in dataclasses.fields(Config):
        for field in dataclasses.fields(group.type):
            assert field.name not in fields, f"two options are named {field.name}"
            fields[field.name] = field
    return fields


@functools.cache
def list_modes() -> dict[str, tuple[str, ...]]:
    """Return the modes that read each option.

    As describe, find_rate takes the command line of the run that it is about.
    """
    found = {}
    for group in dataclasses.fields(Config):
        for field in dataclasses.fields(group.type):
            modes = (field.metadata["modes"] or group.type.modes).split()
            is_of_runs = {"train", "describe"} <= set(modes)
            found[field.name] = (*modes, "find_rate") if is_of_runs else (*modes,)
    return found


@functools.cache
def list_conditions() -> dict[str, tuple[str, ...]]:
    """Return the conditions under which each option is read, all of which must hold."""
    found = {}
    for group in (field.type for field in dataclasses.fields(Config)):
        for field in dataclasses.fields(group):
            of_mode = f"mode={'|'.join(list_modes()[field.name])}"
            is_apart = field.name in getattr(group, "apart", ())
            of_group = "" if is_apart else getattr(group, "only_for", "")
            texts = of_mode, of_group, field.metadata["only_for"]
            found[field.name] = tuple(filter(None, texts))
    return found


def _make_numbers_class() -> type:
    """Make the class of the traced numbers: a pytree with a field for each of them."""
    fields = list_fields().items()
    names = [name for name, field in fields if field.metadata["kind"] != "static"]
    types = [(name, jax.Array | None) for name in sorted(names)]
    about = (
        "The traced numbers of a run, by flag name; None where absent.\n\n"
        "Generated from the options; a misspelt name is an AttributeError."
    )
    namespace = {"__doc__": about, "__module__": __name__}
    made = dataclasses.make_dataclass(
        "Numbers", types, frozen=True, eq=False, namespace=namespace
    )
    return jax.tree_util.register_dataclass(made, sorted(names), [])


Numbers = _make_numbers_class()


def make_config(*layers: Mapping[str, Any]) -> Config:
    """Compose a config from mappings by flag name, later ones winning.

    Raises:
        UserError: an unknown name, a wrong type or a value out of range.
    """
    flat: dict[str, Any] = {}
    for layer in layers:
        flat |= layer
    known = list_fields()
    for name in flat:
        if name not in known:
            raise UserError(f"There is no option {name}{suggest(name, known)}")
    groups = {
        group.name: declared.read_group(group.type, flat)
        for group in dataclasses.fields(Config)
    }
    problems = Problems()
    for group in groups.values():
        with problems.note():
            declared.check(group)
    problems.check()
    return Config(**groups)


def check_stored(options: Mapping[str, Any]) -> None:
    """Check the options that a file of a run holds; unknown ones are left alone.

    Those that may change when it is resumed need only be of their type: what is
    allowed may have changed too.

    Raises:
        UserError: a wrong type, or a value out of range.
    """
    fields = list_fields()
    known = {name: x for name, x in options.items() if name in fields}
    for name, value in known.items():
        declared.convert(fields[name], value)
    is_fixed = {name: fields[name].metadata["changes_run"] for name in known}
    make_config({name: x for name, x in known.items() if is_fixed[name]})


def load_preset(name: str) -> dict[str, Any]:
    """Load a preset's options.

    Args:
        name: of a file in `configs/`, or the path of a user's own `.py` file.

    Raises:
        UserError: there is none, it defines no `options`, or one of them is wrong or
            has no effect.
    """
    name = declared.expand_path("config", name)
    path = Path(name) if name.endswith(".py") else PRESETS / f"{name}.py"
    if not path.is_file():
        known = [file.stem for file in PRESETS.glob("*.py")]
        raise UserError(
            f"--config={name} is unknown{suggest(name, known)} "
            "(or give the path of your own .py file)"
        )
    _offer_presets()
    try:
        found = runpy.run_path(str(path)).get("options")
    except (Exception, SystemExit) as error:
        raise UserError(f"--config={path} fails: {error!r}") from error
    if not isinstance(found, dict):
        raise UserError(
            f"--config={path} must set options = {{...}}, as configs/digits.py does"
        )
    own_code.keep_copy(path.parent, found.get("model"))
    _check_preset(path, found)
    return found


def _offer_presets() -> None:
    """Let a preset start from another, `from configs import NAME`, from anywhere."""
    package = types.ModuleType("configs")
    package.__path__ = [str(PRESETS)]
    sys.modules.setdefault("configs", package)


def _check_preset(path: Path, options: Mapping[str, Any]) -> None:
    """Refuse what a preset sets and training would not read, were it given alone."""
    config = make_config(options)
    if config.sweep.sweep:  # each trial has a say
        return
    of_training = {n: x for n, x in options.items() if "train" in list_modes()[n]}
    try:
        config.check_read(of_training, "train")
    except UserError as error:
        raise UserError(f"--config={path}: {error}") from None
