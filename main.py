"""Train, evaluate and look into convolutional networks.

  python main.py                                   train the preset digits
  python main.py --model=mlp --epochs=20           change any option
  python main.py --config=NAME                     train configs/NAME.py
  python main.py --init_from=DIR --train_only=head fine-tune what a run has learnt
  python main.py --mode=sweep --sweep='learning_rate=log(1e-3,1,8); seed=0:4'
  python main.py --mode=evaluate --workdir=DIR     evaluate a trained run
  python main.py --mode=predict --workdir=DIR --predict_images='*.png'
  python main.py --mode=visualize --workdir=DIR    pictures of what a run has learnt
  python main.py --mode=describe --model=mlp       parameters and operations
  python main.py --mode=convert --source=FILE --model=resnet50 --workdir=DIR

The same command resumes where it was stopped. Options win in this order: command
line, then the run's own (outside training), then the preset, then the default.
"""

import dataclasses
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

from cnn.runtime import interrupt, streams

if __name__ == "__main__":
    streams.keep_open()
    interrupt.leave_on_signals()  # first: the imports below take seconds

from absl import app, flags, logging

from cnn import config as config_module
from cnn import describe, evaluate, predict, train
from cnn.checkpoints import workdir
from cnn.config import Config
from cnn.errors import UserError, suggest
from cnn.models import MODELS
from cnn.option import format_value, parse
from cnn.runtime import processes, xla
from cnn.runtime.terminal import Terminal
from cnn.sweep import sweep
from cnn.sweep.options import SweepOptions
from cnn.visualize import visualize
from cnn.visualize.options import VisualizeOptions
from cnn.weights import convert, export

MODES = {
    "train": "train, or resume a run that was stopped",
    "sweep": "run the trials of --sweep as few programs; resumes likewise",
    "evaluate": "write evaluation.json: loss, accuracy, confusion",
    "predict": "write predictions.csv for --predict_images",
    "convert": "turn PyTorch's weights (--source, --model) into a run",
    "export": "write a run for PyTorch or as StableHLO (--export_format)",
    "visualize": "draw --pictures and report.html of a run, or of --workdir=A,B",
    "describe": "write describe.json: parameters, operations, shapes; trains nothing",
}
TRIALS_FAILED = 1
USAGE_ERROR = 2

flags.DEFINE_string("config", "digits", "preset NAME of configs/, or path of a .py")
flags.DEFINE_string("mode", "train", " | ".join(MODES))
flags.DEFINE_string("workdir", None, "the run's directory; default runs/PRESET,…")
for _name, _field in config_module.list_fields().items():
    define = flags.DEFINE_boolean if _field.type is bool else flags.DEFINE_string
    define(_name, None, _field.metadata["help"])
FLAGS = flags.FLAGS


def main(arguments: list[str]) -> int:
    """Run the mode that the flags name and return the exit code."""
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        if len(arguments) > 1:
            raise UserError(f"{arguments[1]} is no flag; flags are --name=value")
        failed = run_mode(FLAGS.mode, Terminal())
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_ERROR
    except interrupt.Interrupted as stopped:
        interrupt.requeue(stopped)
        return stopped.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return TRIALS_FAILED if failed else 0


def run_mode(mode: str, terminal: Terminal) -> int:
    """Compose the config from preset, run and flags, and call the mode.

    Returns:
        How many trials of a sweep failed; 0 in the other modes.
    """
    if mode not in MODES:
        raise UserError(f"--mode={mode} is unknown{suggest(mode, MODES)}")
    given = _read_flags()
    directory = Path(FLAGS.workdir or workdir.name_workdir(*_name_parts(mode, given)))
    directories = [directory]
    if mode == "visualize" and FLAGS.workdir:
        directories = workdir.split_directories(FLAGS.workdir)
    layers = [_read_base(mode, directories[0], given), given]
    config = config_module.make_config(*layers)
    if mode == "train" and config.sweep.from_trial:
        layers.insert(1, sweep.read_trial(config.sweep.from_trial))
        config = config_module.make_config(*layers)
    xla.configure(config.device)
    if mode != "train" and config.processes.distributed:
        raise UserError(f"--distributed is for --mode=train, not {mode}; leave it out")
    if mode == "train":
        with processes.join(config.processes):
            train.train(config, directory, terminal)
    elif mode == "evaluate":
        evaluate.evaluate(config, directory, terminal)
    elif mode == "sweep":
        return sweep.sweep(config, directory, terminal) or 0
    elif mode == "predict":
        path = predict.predict(config, directory)
        terminal.say(f"written to {path}")
    elif mode == "convert":
        convert.convert(config, directory, terminal)
    elif mode == "export":
        export.export(config, directory, terminal)
    elif mode == "visualize":
        visualize.visualize(config, directories, terminal)
    else:
        describe.describe(config, directory, terminal)
    return 0


def _read_base(mode: str, directory: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Return the options that the command line changes: a run's, or the preset's."""
    if mode in ("evaluate", "predict", "export"):
        return _read_run(directory)
    default = VisualizeOptions().pictures
    if mode == "visualize" and visualize.needs_run(given.get("pictures", default)):
        names = {field.name for field in dataclasses.fields(VisualizeOptions)}
        stored = _read_run(directory)
        return {name: x for name, x in stored.items() if name not in names}
    return config_module.load_preset(FLAGS.config)


def _read_run(directory: Path) -> dict[str, Any]:
    """Return a run's options but those that tell of the machines it ran on."""
    names = ("mesh", "distributed")
    stored = workdir.read_config(directory)
    for name in stored:
        if name not in config_module.list_fields():
            raise UserError(
                f"{directory / workdir.CONFIG_FILE} has the option {name}, which this "
                "version of the code does not; use the version that wrote the run"
            )
    return {name: x for name, x in stored.items() if name not in names}


def _read_flags() -> dict[str, Any]:
    """Return the options given on the command line, parsed, in flag order."""
    given = {}
    for name, field in config_module.list_fields().items():
        value = FLAGS[name].value
        if value is not None:
            given[name] = value if field.type is bool else parse(field, value)
    return given


def _name_parts(mode: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    fields = config_module.list_fields()
    own = SweepOptions().select_identity() if mode == "sweep" else {}
    named = {
        name: value
        for name, value in given.items()
        if fields[name].metadata["changes_run"] or name in own
    }
    return Path(FLAGS.config).stem, named


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse the command line; `--help` prints the manual, or one group, and leaves."""
    for argument in arguments[1:]:
        name, _, group = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name in ("help", "h", "helpfull", "helpshort"):
            print_manual(group)
            raise SystemExit(0)
    return app.parse_flags_with_usage(arguments)


def print_manual(group: str = "") -> None:
    """Print the manual, or a group of it by its name in Config."""
    groups = {field.name: field.type for field in dataclasses.fields(Config)}
    if group and group not in groups:
        message = f"error: --help={group} is unknown{suggest(group, groups)}"
        print(message, file=sys.stderr)
        raise SystemExit(USAGE_ERROR)
    print("\n".join(_format_group(group, groups[group])) if group else format_manual())


def format_manual() -> str:
    """Write the manual: every flag with its default, choices and range, by group."""
    lines = [__doc__.strip(), "", "Modes (--mode)"]
    lines += [f"  {mode:12}{text}" for mode, text in MODES.items()]
    lines += ["", "Models (--model)"]
    lines += textwrap.wrap(
        ", ".join(MODELS), 88, initial_indent="  ", subsequent_indent="  "
    )
    lines += ["", "The run"]
    for name in ("config", "mode", "workdir"):
        lines += _format_flag(name, FLAGS[name].default or "", FLAGS[name].help)
    for group in dataclasses.fields(Config):
        lines += ["", *_format_group(group.name, group.type)]
    return "\n".join(lines)


def _format_group(name: str, group: type) -> list[str]:
    """Write one group's flags, in the order in which they are declared."""
    lines = [f"{group.__doc__.split(chr(10))[0]} (--help={name})"]
    for field in dataclasses.fields(group):
        detail = field.metadata["help"]
        if field.metadata["choices"]:
            detail += f" [{' | '.join(field.metadata['choices'])}]"
        if field.metadata["within"]:
            detail += f" in {field.metadata['within']}"
        lines += _format_flag(field.name, format_value(field.default), detail)
    return lines


def _format_flag(name: str, default: str, detail: str) -> list[str]:
    indent = " " * 6
    wrapped = textwrap.wrap(detail, 88, initial_indent=indent, subsequent_indent=indent)
    return [f"  --{name}={default}", *wrapped]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
