"""What comes after the end of a run is refused or said, in trials of sweeps too."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import make_setup

from cnn import config as config_module
from cnn.config import make_config
from cnn.errors import UserError
from cnn.optim import weight_averaging
from cnn.optim.options import AveragingOptions
from cnn.optim.schedules import Clock
from cnn.runtime.interrupt import Stop
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
