"""A command: a mode and its options, before a preset's or a run's are put below them.

`main.py` makes one of flags, `cnn.from_python` of keywords; both are checked alike.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cnn import config as config_module
from cnn import train
from cnn.checkpoints import naming, workdir
from cnn.config import Config
from cnn.data import forget_dataset, use_evaluation_sizes
from cnn.data.options import SIZES, DataOptions
from cnn.errors import Problems, UserError
from cnn.models import LIST
from cnn.option import read_group
from cnn.replay import blaming
from cnn.runtime import background, devices, processes, xla
from cnn.runtime.options import DeviceOptions
from cnn.runtime.terminal import Terminal
from cnn.sweep import sweep
from cnn.sweep.options import SweepOptions
from cnn.training import canary, same_data
from cnn.transfer import extend
from cnn.visualize import visualize
from cnn.visualize.options import VisualizeOptions

DEFAULT_PRESET = "digits"


@dataclasses.dataclass(frozen=True)
class Command:
    """What a user has asked for.

    Attributes:
        mode: of the program.
        given: the options that were given, by flag name, each of its type.
        preset: of `--config`; None where none was given.
        workdir: of `--workdir`; empty where none was given.
    """

    mode: str
    given: Mapping[str, Any]
    preset: str | None = None
    workdir: str = ""

    @property
    def is_about_training(self) -> bool:
        """Whether it takes the options of a run that is to be trained."""
        return self.mode in ("train", "describe", "find_rate")

    def make_config(self) -> Config:
        """Make the config of what was given alone, all else at its default."""
        return config_module.make_config(self.given)

    def load_preset(self) -> dict[str, Any]:
        """Load the preset's options, or those of the default one."""
        given = self.preset is not None
        return config_module.load_preset(self.preset if given else DEFAULT_PRESET)

    def refuse_preset(self, why: str) -> None:
        """Refuse a preset where the options come from elsewhere."""
        if self.preset is not None:
            raise UserError(f"--config={self.preset} would have no effect: {why}")

    def check_files(self) -> None:
        """Refuse what is wrong with a run to be trained, where some flags are wrong.

        Raises:
            UserError: options are not read, or name what is not there.
        """
        if not self.is_about_training or "from_trial" in self.given:
            return
        config = config_module.make_config(self.load_preset(), self.given)
        config = _find_model(config, *map(Path, filter(None, [self.workdir])))
        problems = Problems()
        with problems.note():
            config.check_read(self.given, self.mode)
        problems.found += train.find_problems(config)
        problems.check()

    def choose_directory(self, terminal: Terminal) -> Path:
        """Choose its default directory, and say so if it is an earlier one."""
        fields, mode = config_module.list_fields(), self.mode
        own = SweepOptions().select_identity() if mode == "sweep" else {}
        apart = {"mode": mode} if mode == "inspect" else {}  # from the run's
        named = {
            name: value
            for name, value in self.given.items()
            if fields[name].metadata["changes_run"] or name in own
        }
        preset = Path(self.preset or DEFAULT_PRESET).stem
        name = self.make_config().naming.name
        both = naming.name_directory(preset, apart | named, name)
        directory, said = naming.choose_directory(both)
        if said:
            terminal.say(f"note: {said}")
        return directory

    def compose(self, directory: Path) -> Config:
        """Compose its options; refuse those given that it does not read.

        Args:
            directory: of the run.
        """
        if self.mode == "describe" and self.given.get("model") == LIST:
            self._refuse_options_of_runs(f"--model={LIST} describes no run")
        base = self._read_base(directory)
        config = config_module.make_config(base, self.given)
        config = _find_model(config, directory)
        if self.mode != "sweep":  # there each trial has a say
            config.check_read(self.given, self.mode)
        return config

    def _read_base(self, directory: Path) -> dict[str, Any]:
        """Return the options that those given change: a run's, or the preset's."""
        asked, mode, given = self.make_config(), self.mode, self.given
        if mode in ("evaluate", "predict", "export", "average"):
            self.refuse_preset(f"--mode={mode} takes the options of the run")
            return _read_run(directory, given)
        if mode == "replay":
            self.refuse_preset("--mode=replay takes the options of the run")
            return _read_run(directory, given, keeps_mesh=True)
        if mode == "visualize" and self._is_of_run(directory, asked):
            self.refuse_preset("these --pictures take the options of the run")
            own = {field.name for field in dataclasses.fields(VisualizeOptions)}
            stored = _read_run(directory, given)
            return {name: x for name, x in stored.items() if name not in own}
        if mode == "visualize" and set(asked.visualize.pictures) == {"lecture"}:
            self.refuse_preset("--pictures=lecture takes no options of a run")
        if self.is_about_training and asked.sweep.from_trial:
            self.refuse_preset("--from_trial takes the options of the trial")
            return sweep.read_trial(asked.sweep.from_trial)
        if self.is_about_training and asked.transfer.extend:
            self.refuse_preset("--extend takes the options of the run")
            return extend.read_options(Path(asked.transfer.extend), directory, given)
        return self.load_preset()

    def _is_of_run(self, directory: Path, asked: Config) -> bool:
        """Return whether pictures are of the run that lies in a directory."""
        pictures = asked.visualize.pictures
        is_named = bool(self.workdir) and workdir.holds_run(directory)
        is_of_any = set(pictures) == {"lecture"}
        return visualize.needs_run(pictures) or (is_named and not is_of_any)

    def _refuse_options_of_runs(self, why: str) -> None:
        """Refuse what was given but the model, and what is of this machine."""
        self.refuse_preset(why)
        read = {"model", *(field.name for field in dataclasses.fields(DeviceOptions))}
        for name in self.given.keys() - read:
            raise UserError(f"--{name} would have no effect: {why}")


@contextlib.contextmanager
def prepare(config: Config) -> Iterator[None]:
    """Set the compiler, join the other processes, open and check the devices."""
    background.allow_silence(config.device)
    xla.configure(config.device)
    with processes.join(config.processes):
        devices.open_backend()
        canary.check(config.device)
        yield


def train_run(
    config: Config, directory: Path, terminal: Terminal, began: float | None = None
) -> dict[str, Any]:
    """Train a run, as `train.train`; a step at which it stops is looked into."""
    with blaming.replaying(directory, terminal):
        return train.train(config, directory, terminal, began)


def _find_model(config: Config, *directories: Path) -> Config:
    """Find the user's own model in the run or sweep, or in what it starts from."""
    start = config.transfer.init_from
    places = [place for x in directories for place in (x, x / "sweep")]
    places += [Path(start)] if start else []
    model = workdir.spell_own_model(config.model.model, *places)
    return config if model == config.model.model else config.change({"model": model})


def _read_run(
    directory: Path, given: Mapping[str, Any], keeps_mesh: bool = False
) -> dict[str, Any]:
    """Return a run's options but those of its machines, or of data not its own.

    Args:
        keeps_mesh: whether its devices are laid out as the run's, for equal bits.
    """
    names = ("distributed",) if keeps_mesh else ("mesh", "distributed")
    stored = workdir.read_config(directory)
    for name in stored:
        if name not in config_module.list_fields():
            raise UserError(
                f"{directory / workdir.CONFIG_FILE} has the option {name}, which this "
                "version of the code does not; use the version that wrote the run"
            )
    stored = {name: x for name, x in stored.items() if name not in names}
    try:
        config_module.make_config({n: x for n, x in stored.items() if n not in given})
    except UserError as error:  # of an option that may change, which the run had not
        raise UserError(f"{directory / workdir.CONFIG_FILE}: {error}") from None
    if given.keys() & SIZES:  # they are those of the images that are looked at
        stored = use_evaluation_sizes(stored)
    if "dataset" not in given:
        return stored
    options = read_group(DataOptions, {**stored, **given})
    stored |= {"dataset": same_data.find_moved(directory, options)["dataset"]}
    return forget_dataset(stored, given["dataset"])
