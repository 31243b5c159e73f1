"""What comes after the end of a run is refused or said, in trials of sweeps too."""

import itertools

import every_option
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import make_setup

from cnn import config as config_module
from cnn.config import list_fields, make_config
from cnn.errors import UserError
from cnn.optim import weight_averaging
from cnn.optim.options import AveragingOptions
from cnn.optim.schedules import Clock
from cnn.option import read_interval
from cnn.runtime.interrupt import Stop
from cnn.runtime.profiling import Profiler
from cnn.runtime.terminal import Terminal
from cnn.sweep.session import Session
from cnn.sweep.trials import group_trials, make_trial
from cnn.training import course, report

SMALL = {"model": "mlp", "mlp_widths": (4,), "train_examples": 64, "batch_size": 16}
LOOKAHEAD = {"lookahead_decay": 0.9}
BEFORE = {"warmup_epochs": 1.0, "warmup_kind": "before"}
STEP, RESTARTS = {"schedule": "step"}, {"schedule": "cosine_restarts"}
PLATEAU = {"schedule": "plateau", "validation_fraction": 0.1}
NEVER = [
    ({"warmup_epochs": 20.0}, "--warmup_epochs=20 with --epochs=4"),
    ({"warmup_epochs": 4.1}, "never reaches its peak"),
    ({"schedule": "step"}, "--milestones=60,120,160 with --epochs=4"),
    ({"schedule": "step", "milestones": (4.0, 5.0)}, "never lowers the rate"),
    ({"train_until": ("head=20",)}, "--train_until=head=20 with --epochs=4"),
    ({"train_until": ("head=4",)}, "trains to the end"),
    ({"train_until": ("dense1=9", "head=2")}, "trains to the end"),
    ({"mixup_alpha": 0.2, "mixing_until_epoch": 4}, "mixing never ends"),
    (LOOKAHEAD | {"lookahead_start_epochs": 4.0}, "Lookahead never begins"),
    ({"warmup_epochs": 4.0, "warmup_kind": "instead"}, "cosine never begins"),
    (BEFORE | {"schedule": "step", "milestones": (3.0,)}, "give less than 3"),
    (
        STEP | {"step_every_epochs": 4.0},
        "--epochs=4: --schedule=step never lowers the rate",
    ),
    (
        BEFORE | STEP | {"step_every_epochs": 3.0},
        "3 epochs of its schedule: --schedule=step never",
    ),
    (
        RESTARTS | {"restart_epochs": 4.0},
        "--epochs=4: --schedule=cosine_restarts never",
    ),
    ({"ema_decay": 0.9, "ema_start_epochs": 4.0}, "are never averaged"),
    (PLATEAU | {"plateau_patience": 2}, "with 4 evaluations: --schedule=plateau never"),
    (PLATEAU | {"plateau_patience": 1, "eval_every_epochs": 2}, "with 2 evaluations"),
    ({"freeze": ("head",), "unfreeze": ("head:4",)}, "--unfreeze=head:4"),
    (
        {"image_size_schedule": ("0:8", "4:9")},
        "--image_size_schedule=4:9 with --epochs=4",
    ),
]
HAPPENS = [
    {"warmup_epochs": 4.0},
    {"schedule": "step", "milestones": (1.0, 9.0)},
    {"milestones": (9.0,)},
    BEFORE | STEP | {"milestones": (2.5,)},
    BEFORE | STEP | {"step_every_epochs": 2.5, "milestones": (9.0,)},
    BEFORE | {"warmup_epochs": 9.0, "schedule": "one_cycle"},
    RESTARTS | {"restart_epochs": 3.5},
    PLATEAU | {"plateau_patience": 1},
    {"train_until": ("dense1=4", "head=2")},
    {"mixup_alpha": 0.2, "mixing_until_epoch": 3},
    LOOKAHEAD | {"lookahead_start_epochs": 3.5},
    {"freeze": ("head",), "unfreeze": ("head:3",)},
    {"early_stop_epochs": 9, "eval_every_epochs": 9, "checkpoint_every_epochs": 9.0},
]


@pytest.mark.parametrize("options, message", NEVER, ids=str)
def test_what_never_happens_is_refused(options, message):
    with pytest.raises(UserError) as caught:
        make_setup(SMALL, {"epochs": 4}, options)
    assert message in str(caught.value) and "epochs" in str(caught.value)
    course.check(make_config({"epochs": 40}, {"milestones": (9.0,)}, options))


@pytest.mark.parametrize("options, message", NEVER, ids=str)
def test_each_trial_is_checked(options, message):
    config = make_config(SMALL, options, {"epochs": 40, "milestones": (9.0,)})
    if "milestones" in options or "schedule" in options:
        options = options | {"milestones": options.get("milestones", (60.0,))}
    make_trial(0, {"seed": 1}, config)
    with pytest.raises(UserError):
        make_trial(0, options | {"epochs": 4}, config)


@pytest.mark.parametrize("options", HAPPENS, ids=str)
def test_what_happens_late_is_taken(options):
    course.check(make_config(SMALL, {"epochs": 4}, options))


@pytest.mark.parametrize(
    "path", sorted(config_module.PRESETS.glob("*.py")), ids=lambda x: x.stem
)
def test_presets_run_their_course(path):
    config = make_config(config_module.load_preset(path.stem))
    course.check(config)
    assert course.list_late(config, steps_per_epoch=1000) == []


def synchronises(options, steps, length):
    """Return whether Lookahead changes the weights of any step."""
    numbers = make_config(LOOKAHEAD, {"epochs": steps // length}, options)
    numbers, average = numbers.make_numbers(), {"x": jnp.float32(0)}
    for step in range(steps):
        weights = {"x": jnp.float32(step + 1)}
        clock = Clock(jnp.int32(step), length)
        moved, average = weight_averaging.update(
            AveragingOptions(), None, clock, numbers, average, weights
        )
        if not np.array_equal(moved["x"], weights["x"]):
            return True
    return False


@pytest.mark.parametrize(
    "every, start", [*itertools.product((1, 3, 4, 7, 8, 9), (0.0, 0.5, 1.75))]
)
def test_lookahead_that_never_synchronises_is_refused(every, start):
    options = {"lookahead_every_steps": every, "lookahead_start_epochs": start}
    config = make_config(LOOKAHEAD, {"epochs": 2}, options)
    if synchronises(options, steps=8, length=4):
        course.check_steps(config, 4)
    else:
        with pytest.raises(UserError, match="--lookahead_every_steps.*never synch"):
            course.check_steps(config, 4)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, []),
        ({"train_examples": 127, "batch_size": 64}, ["leaves out 63 of 127"]),
        ({"batch_size": 40}, ["leaves out 24 of 64"]),
        (
            {"schedule": "step", "milestones": (1.0, 4.0, 7.5)},
            ["--milestones=4,7.5 with --epochs=4"],
        ),
        ({"milestones": (7.0,)}, []),
        ({"rate_scaling": "linear"}, ["rate is 0.003125: --learning_rate=0.05 of"]),
        (
            {"early_stop_epochs": 4},
            ["--early_stop_epochs=4 with --epochs=4: it stops nothing"],
        ),
        ({"early_stop_epochs": 3}, []),
        ({"select_by": "loss"}, []),
        ({"select_by": "loss", "validation_fraction": 0.0}, ["loss selects nothing"]),
        ({"log_every_steps": 17}, ["16 steps: no step is logged"]),
        ({"log_every_steps": 16}, []),
    ],
    ids=str,
)
def test_what_training_leaves_out_is_said(options, expected):
    notes = report.list_notes(make_setup(SMALL, {"epochs": 4}, options))
    assert len(notes) == len(expected)
    assert all(part in note for part, note in zip(expected, notes, strict=True))


class Listener(Terminal):
    """A terminal that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def say(self, text=""):
        """Keep a line."""
        self.lines.append(text)


def prepare(tmp_path, points, **options):
    config = make_config(SMALL, {"epochs": 4, "validation_fraction": 0.1}, options)
    trials = [make_trial(i, point, config) for i, point in enumerate(points)]
    terminal = Listener()
    Session(config, tmp_path, terminal, Stop()).prepare(group_trials(trials))
    return [line for line in terminal.lines if "leaves out" in line or "stops" in line]


def test_a_sweep_says_each_of_it_once(tmp_path):
    points = [{"batch_size": size, "seed": s} for size in (16, 60) for s in (0, 1)]
    lines = prepare(tmp_path, points, early_stop_epochs=5)
    assert len(lines) == 2
    assert "stops nothing" in lines[0] and "leaves out 4 of 64" in lines[1]


def test_a_sweep_checks_the_steps_of_each_trial(tmp_path):
    points = [{"lookahead_every_steps": every} for every in (2, 16)]
    with pytest.raises(UserError, match="--lookahead_every_steps=16"):
        prepare(tmp_path, points, **LOOKAHEAD)
    assert prepare(tmp_path, points[:1], **LOOKAHEAD) == []


COUNTED = ("epochs", "steps", "patience", "cooldown", "images", "examples", "views")
# Texts that say when, which are read and refused by their own readers.
TEXTS = {
    "image_size_schedule": ("0:8", "4:9"),
    "unfreeze": ("head:4",),
    "profile_steps": "1:99",
    "bad_images": None,  # a choice, and names of files
    "predict_images": None,
    "drop_examples": None,
}
UNITS = {n: read_interval(f.metadata["within"])[2] for n, f in list_fields().items()}


@pytest.mark.parametrize("name", list_fields())
def test_each_duration_and_each_count_has_an_end(name):
    field = list_fields()[name]
    high = read_interval(field.metadata["within"])[1]
    is_count = field.type in (int, tuple[int, ...])
    is_count |= bool(set(COUNTED) & set(name.split("_"))) and field.type is not bool
    if is_count and field.type not in (str, tuple[str, ...]):
        assert UNITS[name] or high < np.inf, "end it in a unit, or in a number"
    elif is_count and field.metadata["kind"] == "static":
        assert name in TEXTS, "who refuses it?"
    assert bool(UNITS[name]) == (name in course.NEVER or name in course.SAID)
    assert name not in course.NEVER or name not in course.SAID


@pytest.mark.parametrize("name", [n for n in UNITS if UNITS[n]])
def test_what_exceeds_a_run_is_refused_or_said(name):
    field, choices = list_fields()[name], every_option.list_read(name, "train")[0]
    kind, large = field.metadata["kind"], 10**6 if field.type is int else 1e6
    value = (f"head={large}",) if kind == "traced_by_name" else large
    value = (large,) if field.type == tuple[float, ...] else value
    shared = {"epochs": 4, "plateau_patience": 0}
    config = make_config(shared, choices, {name: value})
    if name in course.SAID:
        course.check(config)
        course.check_steps(config, 4, 64, 8)
        lines = course.list_late(config, 4, 64, 8)
        assert any(f"--{name}=" in x and course.SAID[name] in x for x in lines)
        return
    with pytest.raises(UserError, match=f"--{name}=") as caught:
        course.check(config)
        course.check_steps(config, 4, 64, 8)
    assert course.NEVER[name] in str(caught.value)


def test_texts_that_say_when_are_refused_by_their_readers():
    options = SMALL | {"epochs": 4, "freeze": ("head",)}
    for name in ("image_size_schedule", "unfreeze"):
        with pytest.raises(UserError, match=f"--{name}"):
            course.check(make_config(options, {name: TEXTS[name]}))
    with pytest.raises(UserError, match="--profile_steps"):
        Profiler(make_config({"profile": "x"}, {"profile_steps": "1:99"}).profile, 16)


@pytest.mark.parametrize("name", ["step_every_epochs", "restart_epochs"])
def test_a_period_of_less_than_a_step_is_refused(name):
    options = {"schedule": "step" if name.startswith("step") else "cosine_restarts"}
    config = make_config(options, {"epochs": 4, name: 0.2})
    with pytest.raises(UserError, match=f"--{name}=0.2 is less than a step"):
        course.check_steps(config, 4)
    course.check_steps(make_config(options, {"epochs": 4, name: 0.25}), 4)


def test_more_steps_than_are_counted_are_refused():
    course.check_steps(make_config({"epochs": 10**6}), 2147)
    with pytest.raises(UserError, match="more than the 2147483647 steps"):
        course.check_steps(make_config({"epochs": 10**6}), 2148)


DEEP = {"model": "simple_cnn", "widths": (4,) * 3, "image_size": 8}


@pytest.mark.parametrize(
    "options, is_refused",
    [
        ({"batch_size": 1}, True),
        ({"batch_size": 4, "accumulate_steps": 4}, True),
        ({"batch_size": 1, "image_size": 32}, False),
        ({"batch_size": 2}, False),
        ({"batch_size": 1, "augment_repeats": 2}, False),
        ({"batch_size": 1, "batch_norm": False}, False),
        ({"batch_size": 1, "freeze_statistics": True}, False),
        ({"batch_size": 1, "image_size": 0, "image_size_schedule": ("0:8", "1:32")}, 1),
        ({"batch_size": 1, "image_size": 32, "eval_image_size": 8}, False),
        (
            {"batch_size": 1, "image_size": 32, "eval_image_size": 8}
            | {"recompute_statistics": 1},
            True,
        ),
    ],
    ids=str,
)
def test_normalising_a_single_value_is_refused(options, is_refused):
    shared = {"downsampling": "stride", "head": "global_average", "epochs": 4}
    shared |= {"mesh": "data:1"}
    layers = SMALL | DEEP | shared
    layers.pop("mlp_widths")
    if not is_refused:
        make_setup(layers, options)
        return
    with pytest.raises(UserError, match="single value of each channel in stage3_norm"):
        make_setup(layers, options)
