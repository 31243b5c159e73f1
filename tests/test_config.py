import ast
import dataclasses
import json
from pathlib import Path

import numpy as np
import options_read
import pytest

from cnn import config as config_module
from cnn.config import Config, list_fields, load_preset, make_config
from cnn.errors import UserError
from cnn.optim import schedules
from cnn.option import format_value, parse, read_interval
from cnn.sweep import executors
from cnn.training import losses

ROOT = Path(config_module.__file__).parent.parent
PRESETS = sorted((ROOT / "configs").glob("*.py"))
GROUPS = {field.name: field.type for field in dataclasses.fields(Config)}
NOT_DEFAULT = {
    "learning_rate": 0.25,
    "widths": [4, 8],
    "dataset": "npz:x.npz",
    "batch_norm": False,
    "epochs": 3,
    "milestones": [1.5],
}


def test_names_are_unique_and_flat():
    groups = GROUPS.values()
    names = [f.name for group in groups for f in dataclasses.fields(group)]
    assert len(names) == len(set(names)) == len(list_fields())
    assert list(make_config().to_flat()) == names


@pytest.mark.parametrize("name", list_fields())
def test_every_option_is_well_formed(name):
    field = list_fields()[name]
    data = field.metadata
    assert len(data["help"]) > 10 and data["help"][-1] not in ".;"
    assert name not in ("log_dir", "v", "verbosity", "pdb", "config", "mode", "workdir")
    assert parse(field, format_value(field.default)) == field.default
    if data["kind"] != "static":
        by_name = data["kind"] == "traced_by_name"
        numbers = (tuple[str, ...],) if by_name else (int, float, tuple[float, ...])
        assert field.type in numbers
        assert data["changes_run"], "a traced number is part of the result"
    if data["kind"] == "traced_unless_zero":
        lowest = read_interval(data["within"])[0]
        assert lowest <= 0, "zero must be allowed"
    if field.type in (int, float):
        assert data["within"], "a number needs its interval"


def test_defaults_are_in_range():
    assert make_config() == Config()


def test_later_layers_win():
    config = make_config({"epochs": 3, "seed": 4}, {"epochs": 5})
    assert (config.train.epochs, config.train.seed) == (5, 4)


def test_json_round_trip():
    config = make_config(NOT_DEFAULT)
    again = make_config(json.loads(json.dumps(config.to_flat())))
    assert again == config
    assert again.model.widths == (4, 8) and again.schedule.milestones == (1.5,)


@pytest.mark.parametrize(
    "flat, words",
    [
        ({"learning_rat": 0.1}, "did you mean learning_rate?"),
        ({"batch_size": 0}, "--batch_size=0 is outside [1, 16777216]"),
        ({"batch_size": "8"}, "--batch_size=8: expected a whole number"),
        ({"optimizer": "adamm"}, "did you mean adam"),
    ],
)
def test_mistakes_are_named(flat, words):
    with pytest.raises(UserError) as caught:
        make_config(flat)
    assert words in str(caught.value)


@pytest.mark.parametrize("path", PRESETS, ids=[path.stem for path in PRESETS])
def test_presets_are_valid_and_hold_differences_only(path):
    preset = load_preset(path.stem)
    flat = make_config(preset).to_flat()
    assert {name: flat[name] for name in preset} == json.loads(json.dumps(preset))
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_preset_of_the_user(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("options = {'epochs': 2 + 1}\n")
    assert load_preset(str(path)) == {"epochs": 3}


@pytest.mark.parametrize(
    "code, words", [("x = 1", "must set options"), ("1 / 0", "ZeroDivisionError")]
)
def test_broken_preset_is_named(tmp_path, code, words):
    path = tmp_path / "mine.py"
    path.write_text(code)
    with pytest.raises(UserError, match=words):
        load_preset(str(path))


@pytest.mark.parametrize("name", ["digit", "absent.py"])
def test_unknown_preset_is_refused(name):
    with pytest.raises(UserError, match="is unknown; (did you mean digits|known:)"):
        load_preset(name)


def test_hyperparameters_hold_the_traced_numbers():
    config = make_config(NOT_DEFAULT | {"weight_decay": 0.5, "momentum": 0.0})
    numbers = config.make_numbers()
    traced = {n for n, f in list_fields().items() if f.metadata["kind"] != "static"}
    assert set(vars(numbers)) == traced
    with pytest.raises(AttributeError, match="learning_rat"):
        numbers.learning_rat  # noqa: B018
    assert numbers.momentum is None and numbers.clip_norm is None
    assert numbers.weight_decay == np.float32(0.5)
    assert numbers.learning_rate.dtype == np.float32
    assert numbers.seed.dtype == np.int32 and numbers.seed.shape == ()
    assert numbers.epochs == 3 and numbers.epochs.dtype == np.int32
    np.testing.assert_array_equal(numbers.milestones, np.float32([1.5]))


def test_a_traced_number_at_zero_stays_when_zero_has_a_meaning():
    numbers = make_config({"learning_rate": 0.0, "seed": 0}).make_numbers()
    assert numbers.learning_rate == 0 and numbers.seed == 0


def test_static_part_forgets_numbers_and_keeps_structure():
    one = make_config(NOT_DEFAULT)
    other = make_config(NOT_DEFAULT | {"learning_rate": 0.5, "dropout_rate": 0.5})
    assert one.make_static() == other.make_static() != one
    assert one.make_static().model.widths == (4, 8)
    assert one.make_static() != make_config().make_static()
    assert hash(one.make_static()) == hash(other.make_static())


def test_options_that_keep_the_run():
    kept = set(list_fields()) - set(make_config().select_run_options())
    assert {"data_dir", "resident", "compilation_cache", "checkpoint"} <= kept
    assert not kept & {"seed", "batch_size", "precision", "model", "scaling"}


def read_trees():
    paths = [ROOT / "main.py", *(ROOT / "cnn").rglob("*.py")]
    return [ast.parse(path.read_text()) for path in paths]


def test_every_option_is_read():
    """An option that nothing reads is a promise that nobody keeps."""
    assert options_read.find_unread(read_trees()) == set()


READS = [
    ("def f(options: DataOptions):\n return options.mean", {("DataOptions", "mean")}),
    ("def f(x):\n return x.mean, x.split, x.head", set()),
    ("def f(options: LossOptions):\n return options.mean", set()),
    ("def f(config: Config):\n return config.data.std", {("DataOptions", "std")}),
    ("def f(x):\n data = x.config.data\n return data.std", {("DataOptions", "std")}),
    ("def f(numbers: Numbers):\n return numbers.momentum", {("Numbers", "momentum")}),
    ("def f(numbers: Numbers):\n return numbers.std", set()),
    ("def f(rule: Rule):\n return rule.schedule.schedule",
     {("ScheduleOptions", "schedule")}),
    ("def f(options: DataOptions):\n return getattr(options, 'mean')",
     {("DataOptions", "mean")}),
    ("def f(options: DataOptions):\n options.mean = 1", set()),
    ("class A:\n def __init__(self, options: DataOptions):\n  self._o = options\n"
     " def g(self):\n  return self._o.mean", {("DataOptions", "mean")}),
]  # fmt: skip


@pytest.mark.parametrize("code, found", READS)
def test_only_reads_of_the_options_own_group_count(code, found):
    assert options_read.find_reads([ast.parse(code)]) == found


def test_processes_share_all_options_but_their_own():
    def read(**options):
        return config_module.make_config(options).select_shared_options()

    own = {"distributed": "auto", "data_dir": "/there", "compilation_cache": "off"}
    assert read() == read(**own, storage_cache="/here")
    for changes in (
        {"profile": "trace"},
        {"profile_steps": "3:4"},
        {"checkpoint_every_epochs": 0.5},
        {"mesh": "data:2"},
        {"seed": 1},
    ):
        assert read(**changes) != read(), changes


@pytest.mark.parametrize(
    "name, registry",
    [
        ("loss", ["auto", *losses.LOSSES]),
        ("schedule", schedules.SCHEDULES),
        ("executor", ["auto", "loop", *executors.STACKED]),
    ],
)
def test_choices_are_the_names_of_the_registry(name, registry):
    assert list(list_fields()[name].metadata["choices"]) == list(registry)


@pytest.mark.parametrize(
    "name, value",
    [
        ("restart_factor", 2**31),
        ("ema_every_steps", 10**20),
        ("plateau_cooldown", 10**400),
        ("clip_value", 1e39),
        ("distillation_temperature", 1e-39),
        ("milestones", (1.0, 1e39)),
        ("learning_rate_for", ("head=1e39",)),
    ],
)
def test_numbers_that_32_bits_cannot_hold_are_refused(name, value):
    with pytest.raises(UserError, match=rf"--{name}=.* is too (large|small); give"):
        make_config({name: value})


@pytest.mark.parametrize("value", [3.4e38, 1.2e-38, 0.0])
def test_the_largest_and_smallest_numbers_are_taken(value):
    assert make_config({"clip_value": value}).make_numbers().clip_value != np.inf
