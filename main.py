"""Train, evaluate and look into convolutional networks.

  python main.py                                   train the preset digits
  python main.py --model=mlp --epochs=20           change any option
  python main.py --config=NAME                     train configs/NAME.py
  python main.py --init_from=DIR --train_only=head  fine-tune what a run has learnt
  python main.py --extend=DIR --epochs=40          train a run for longer
  python main.py --mode=sweep --sweep='learning_rate=log(1e-3,1,8); seed=0:4'
  python main.py --mode=evaluate --workdir=DIR     evaluate a trained run
  python main.py --mode=average --workdir=A,B,C --output=DIR
  python main.py --mode=predict --workdir=DIR --predict_images='*.png'
  python main.py --mode=visualize --workdir=DIR    pictures of what a run has learnt
  python main.py --mode=describe --model=mlp       check it, count its operations
  python main.py --mode=find_rate --model=mlp      try learning rates, suggest one
  python main.py --mode=replay --workdir=DIR --step=N  look into a training step
  python main.py --mode=describe --model=resnet50 --pictures=architecture
  python main.py --mode=describe --model=list      the table of all models
  python main.py --mode=inspect --dataset=folder:DIR   look at images before training
  python main.py --mode=convert --source=FILE --model=resnet50 --workdir=DIR
  python main.py --mode=compare --workdir=A,B      where two runs part
  python main.py --mode=list --where='test_accuracy>0.9'   all runs and sweeps of runs/
  python main.py --version                         this program's, Python's and jax's

The same command resumes where it was stopped. Options win in this order: command
line, then the run's own (outside training), then the preset, then the default.
"""

import dataclasses
import errno
import os
import shutil
import signal
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cnn.runtime import interrupt, mishaps, opening, settings, streams

if __name__ == "__main__":
    streams.keep_open()
    interrupt.leave_on_signals()  # first: the imports below take seconds
    opening.say_starting(sys.argv)
    mishaps.report_uncaught()
    mishaps.check_clock()
    mishaps.check_space()
    settings.pin()
    settings.import_jax()

from absl import app, flags, logging

from cnn import (
    average,
    condition,
    describe,
    find_rate,
    place,
    predict,
)
from cnn.checkpoints import workdir
from cnn.command import Command, prepare, train_run
from cnn.config import Config, list_fields, list_modes, make_config
from cnn.errors import Problems, UserError, suggest
from cnn.errors import describe as describe_error
from cnn.evaluation import evaluate, several
from cnn.inspection import inspect
from cnn.ledger import compare, compared, list_runs
from cnn.models import FAMILIES, own
from cnn.option import expand_path, format_value, parse
from cnn.replay import replay
from cnn.runtime import background, devices, environment, spellings, xla
from cnn.runtime.terminal import Terminal, print_error
from cnn.sweep import members, sweep
from cnn.text import show_line, wrap
from cnn.training import canary
from cnn.visualize import visualize
from cnn.weights import convert, export

MODES = {
    "train": "train, or resume a run that was stopped",
    "sweep": "run the trials of --sweep as few programs; resumes likewise",
    "evaluate": "write evaluation.json of a run, or of each of --workdir='runs/*'",
    "predict": "write predictions.csv for --predict_images",
    "convert": "turn weights of others (--source, --model) into a run",
    "export": "write a run for PyTorch, Flax, ONNX or as StableHLO (--export_format)",
    "average": "average the weights of --workdir=A,B,C into a new run in --output",
    "visualize": "draw --pictures and report.html of a run, or of --workdir=A,B",
    "inspect": "look at --dataset before training: duplicates, leaks, bad files",
    "list": "list the runs and sweeps below --workdir=A,B (default runs), or --prune",
    "compare": "find where two runs part, --workdir=A,B, or two patterns of runs",
    "describe": "check and describe the run that the same command would train: "
    "describe.json",
    "find_rate": "suggest a --learning_rate for the run that the same command would "
    "train: find_rate.png",
    "replay": "take --step of a run again and show its batch, losses and layers",
}
HELP = ("help", "h", "helpfull", "helpshort", "helpxml", "?")
TRIALS_FAILED = 1
USAGE_ERROR = 2
_SHOWN_MODELS = 4
_WIDTH = 88  # of the manual, at most
_SAYING = ("train", "sweep")  # how to resume, when they are stopped

flags.DEFINE_string("config", "digits", "preset NAME of configs/, or path of a .py")
flags.DEFINE_string("mode", "train", " | ".join(MODES))
flags.DEFINE_string("workdir", None, "the run's directory; default runs/PRESET,…")
for _name, _field in list_fields().items():
    if _field.type is bool:
        flags.DEFINE_boolean(_name, None, _field.metadata["help"])
    elif _field.type == tuple[str, ...]:
        flags.DEFINE_multi_string(_name, None, _field.metadata["help"])
    else:
        flags.DEFINE_string(_name, None, _field.metadata["help"])
FLAGS = flags.FLAGS


def main(arguments: list[str]) -> int:
    """Run the mode that the flags name and return the exit code."""
    if not FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    try:
        if len(arguments) > 1:
            raise UserError(f"{arguments[1]} is no flag; flags are --name=value")
        failed = run_mode(FLAGS.mode, Terminal())
        background.check_others()
    except (UserError, OSError) as error:
        message = str(error) if isinstance(error, UserError) else _describe(error)
        print_error(f"error: {message}")
        return USAGE_ERROR
    except interrupt.Interrupted as stopped:
        if stopped.lost:
            print_error(f"error: {stopped.lost}")
        elif FLAGS.mode not in _SAYING:
            print(interrupt.describe_end(stopped.number), file=sys.stderr)
        interrupt.requeue(stopped)
        return stopped.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return TRIALS_FAILED if failed else 0


def _describe(error: OSError) -> str:
    """Say what the system refuses; of a name that is too long, which flag gave it."""
    message = describe_error(error)
    if error.errno != errno.ENAMETOOLONG or error.filename is None:
        return message
    part = max(Path(os.fsdecode(error.filename)).parts, key=len)
    given = [name for name in FLAGS if FLAGS[name].present]
    named = [f"--{name}" for name in given if part in str(FLAGS[name].value)]
    return f"{named[0]}: {message}" if named else message


def run_mode(mode: str, terminal: Terminal) -> int:
    """Compose the config from preset, run and flags, and call the mode.

    Returns:
        How many trials of a sweep failed; 0 in the other modes.
    """
    if mode not in MODES:
        raise UserError(f"--mode={mode} is unknown{suggest(mode, MODES)}")
    command = _make_command(_read_flags())
    if FLAGS.workdir == "":
        raise UserError("--workdir= is empty; name a directory, or leave it out")
    if mode in ("list", "compare"):
        return _read_runs(command, terminal)
    text = command.workdir
    directories = [Path(text) if text else command.choose_directory(terminal)]
    if mode in ("visualize", "evaluate", "average") and text:
        directories = workdir.split_directories(text)
    if mode == "evaluate" and command.given.get("ensemble"):
        among = command.make_config().evaluate.members
        found = members.find_members(directories, among, terminal)
        return _evaluate_runs(found.directories, command, terminal, found.place)
    if mode == "evaluate" and len(directories) > 1:
        return _evaluate_runs(directories, command, terminal)
    config = command.compose(directories[0])
    with prepare(config):
        return _call_mode(command, config, directories, terminal)


def _make_command(given: dict[str, Any]) -> Command:
    """Make a command of the flags."""
    preset = FLAGS.config if FLAGS["config"].present else None
    directory = expand_path("workdir", FLAGS.workdir or "")
    return Command(FLAGS.mode, given, preset, directory)


def _read_runs(command: Command, terminal: Terminal) -> int:
    """Call a mode that reads what runs have written, and computes nothing."""
    command.refuse_preset(f"--mode={command.mode} takes the options of no run")
    config = command.make_config()
    config.check_read(command.given, command.mode)
    if command.mode == "compare":
        compare.compare(FLAGS.workdir or "", terminal)
    else:
        list_runs.list_runs(config, FLAGS.workdir or "runs", terminal)
    return 0


def _call_mode(
    command: Command, config: Config, directories: list[Path], terminal: Terminal
) -> int:
    """Call a mode; return how many trials of a sweep failed, 0 in the others."""
    directory, mode, given = directories[0], command.mode, command.given
    if mode == "train":
        train_run(config, directory, terminal, settings.BEGAN)
    elif mode == "evaluate":
        evaluate.evaluate(config, directories[0], terminal)
    elif mode == "sweep":
        return sweep.sweep(config, directory, terminal, given, settings.BEGAN) or 0
    elif mode == "predict":
        predict.predict(config, directory, terminal)
    elif mode == "convert":
        convert.convert(config, directory, terminal)
    elif mode == "export":
        export.export(config, directory, terminal)
    elif mode == "average":
        average.average(config, directories, terminal)
    elif mode == "inspect":
        inspect.inspect(config, directory, terminal)
    elif mode == "visualize":
        tables = compared.tabulate_runs(directories) if directories[1:] else None
        visualize.visualize(config, directories, terminal, tables)
    elif mode == "find_rate":
        find_rate.find_rate(config, directory, terminal)
    elif mode == "replay":
        replay.replay(config, directory, terminal)
    else:
        _describe_run(config, directory, terminal, given)
    return 0


def _describe_run(
    config: Config, directory: Path, terminal: Terminal, given: Mapping[str, Any]
) -> None:
    """Describe the run that would be trained, with the pictures that were asked for."""
    if "pictures" in given:
        visualize.check_described(config.visualize.pictures)
    found = describe.describe(config, directory, terminal)
    if "pictures" in given:
        visualize.draw_described(config, found, directory, terminal)


def _evaluate_runs(
    directories: Sequence[Path],
    command: Command,
    terminal: Terminal,
    place: Path | None = None,
) -> int:
    """Evaluate several runs, each with its own options; return how many failed.

    Args:
        place: as of `several.evaluate_runs`.
    """

    def compose(directory: Path) -> Config:
        config = command.compose(directory)
        background.allow_silence(config.device)
        if not configured:  # XLA reads its settings once
            xla.configure(config.device)
            devices.open_backend()
            canary.check(config.device)
            configured.append(directory)
        return config

    asked, modes, given = command.make_config(), list_modes(), command.given
    others = {n: x for n, x in given.items() if "evaluate" not in modes[n]}
    asked.check_read(others, "evaluate")
    configured: list[Path] = []
    averages = asked.evaluate.ensemble
    return several.evaluate_runs(directories, compose, averages, terminal, place)


def _read_flags() -> dict[str, Any]:
    """Return the options given on the command line, parsed, in flag order.

    Raises:
        UserError: naming all that is wrong with them, each by itself.
    """
    given, problems = {}, Problems()
    for name, field in list_fields().items():
        value = FLAGS[name].value
        if isinstance(value, list):  # of a flag that may be repeated
            value = ",".join(value)
        if value is not None:
            with problems.note():
                read = value if field.type is bool else parse(field, value)
                make_config({name: read})
                given[name] = read
    if problems.found:
        with problems.note():
            _make_command(given).check_files()
    problems.check()
    return given


def parse_flags(arguments: list[str]) -> list[str]:
    """Parse the command line; `--help` and `--version` print theirs, and leave."""
    for argument in arguments[1:]:
        if argument in ("--version", "-version"):
            print(environment.format_versions())
            raise SystemExit(0)
        name, _, group = argument.lstrip("-").partition("=")
        if argument.startswith("-") and name in HELP:
            print_manual(group)
            raise SystemExit(0)
    problems = Problems()
    try:
        if "--" in arguments[1:]:  # absl would take it away
            raise flags.Error("-- is no flag; flags are --name=value")
        rest = FLAGS(_drop_unknown(arguments, problems))
        if not problems.found:
            _tell_repeated()
            return rest
        with problems.note():  # of the others
            _make_command(_read_flags()).check_files()
    except (flags.Error, ValueError) as error:
        message = str(error)
        if "Non-boolean" in message:
            message = f"{message.partition(': ')[0]}: expected true or false"
        problems.found.append(message)
    print_error(f"error: {UserError(*problems.found)}")
    raise SystemExit(USAGE_ERROR)


def _drop_unknown(arguments: Sequence[str], problems: Problems) -> list[str]:
    """Return a command line without what are no flags, and note those."""
    kept, left = [*arguments[:1]], [*arguments[1:]]
    while left:
        argument = left.pop(0)
        name, given, _ = argument.lstrip("-").partition("=")
        is_switch = name.removeprefix("no") in FLAGS and (
            name not in FLAGS or FLAGS[name].boolean
        )
        if not argument.startswith("-") or not name or name in FLAGS or is_switch:
            kept.append(argument)
            if argument.startswith("-") and not given and not is_switch:
                kept += left[:1]  # its value
                left = left[1:]
            continue
        suggested = spellings.suggest_flag(name, FLAGS)
        problems.found.append(f"--{name} is no flag{suggested}")
        if not given and left and not left[0].startswith("-"):
            left.pop(0)
    return kept


def _tell_repeated() -> None:
    """Print which flags are given several times: the last one counts.

    Those of lists of texts are joined instead, as --freeze=stem --freeze=stage1.
    """
    for name in ("config", "mode", "workdir", *list_fields()):
        count, value = FLAGS[name].present, FLAGS[name].value
        if count > 1 and not isinstance(value, list):
            shown = show_line(format_value(value))
            print_error(
                f"note: --{name} is given {count} times; the last, {shown}, counts"
            )


def print_manual(group: str = "") -> None:
    """Print the manual, or a group of it by its name in Config."""
    if __doc__ is None:
        print("error: python -OO leaves out the manual; leave out -OO", file=sys.stderr)
        raise SystemExit(USAGE_ERROR)
    groups = {field.name: field.type for field in dataclasses.fields(Config)}
    if group and group not in groups:
        print_error(f"error: --help={group} is unknown{suggest(group, groups)}")
        raise SystemExit(USAGE_ERROR)
    lines = "\n".join(_format_group(group, groups[group])) if group else format_manual()
    print(wrap(lines, _get_width()))


def format_manual() -> str:
    """Write the manual: every flag with its default, choices and range, by group."""
    about = __doc__.strip().replace("python main.py", place.COMMAND)
    lines = [part for line in about.split("\n") for part in _format_example(line)]
    lines += ["", "Modes (--mode)"]
    for mode, text in MODES.items():
        lines += _fill(text, f"  {mode:12}", " " * 14)
    lines += ["", "Models (--model)"]
    for family in (*FAMILIES, own.FAMILY):
        text = f"{family.title}: {_shorten(family.names)}"
        lines += _fill(text, "  ", "    ")
    lines += ["", "The run"]
    for name in ("config", "mode", "workdir"):
        lines += _format_flag(name, FLAGS[name].default or "", FLAGS[name].help)
    for group in dataclasses.fields(Config):
        lines += ["", *_format_group(group.name, group.type)]
    return "\n".join(lines)


def _shorten(names: list[str]) -> str:
    """List names; of many the first and the last."""
    if len(names) <= _SHOWN_MODELS:
        return ", ".join(names)
    return f"{names[0]} … {names[-1]} ({len(names)} models)"


def _format_group(name: str, group: type) -> list[str]:
    """Write one group's flags, in the order in which they are declared."""
    lines = [
        f"{group.__doc__.split(chr(10))[0]} (--help={name})",
        *_fill(f"for --mode={group.modes.replace(' ', ' | ')}", "  ", "    "),
    ]
    for field in dataclasses.fields(group):
        detail = field.metadata["help"]
        if field.metadata["choices"]:
            detail += f" [{' | '.join(field.metadata['choices'])}]"
        if field.metadata["within"]:
            detail += f" in {field.metadata['within']}"
        detail += _format_conditions(field, group)
        lines += _format_flag(field.name, format_value(field.default), detail)
    return lines


def _format_conditions(field: dataclasses.Field, group: type) -> str:
    """Write when an option is read, in so far as its group does not say so."""
    modes = field.metadata["modes"].replace(" ", ", ")
    parts = [f"only in the mode(s) {modes}"] if modes else []
    if text := field.metadata["only_for"]:
        parts.append(f"only for {condition.describe(text)}")
    return f" ({'; '.join(parts)})" if parts else ""


def _format_flag(name: str, default: str, detail: str) -> list[str]:
    indent = " " * 6
    return [f"  --{name}={default}", *_fill(detail, indent, indent)]


def _format_example(line: str) -> list[str]:
    """Write a line of examples; where it is too long, what it does stands below."""
    command, _, text = line.strip().partition("  ")
    if len(line) <= _get_width() or not text:
        return [line]
    return [f"  {command}", *_fill(text.strip(), " " * 6, " " * 6)]


def _get_width() -> int:
    """Return how many characters wide the manual is."""
    return min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)


def _fill(text: str, first: str, others: str) -> list[str]:
    """Break a paragraph of the manual into lines that begin like this."""
    kept = {"break_long_words": False, "break_on_hyphens": False}
    return textwrap.wrap(
        text, _get_width(), initial_indent=first, subsequent_indent=others, **kept
    )


if __name__ == "__main__":
    background.watch_others()
    app.run(lambda rest: background.end(main(rest)), flags_parser=parse_flags)
