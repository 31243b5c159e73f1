"""The text of --sweep: what it means, and one message for each mistake."""

import numpy as np
import pytest
from fixtures_runs import TINY, make_flags, run_main

from cnn import config as config_module
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.sweep.space import parse_space
from cnn.sweep.trials import (
    announce_groups,
    check_read,
    group_trials,
    join_ended,
    make_trials,
)

FIELDS = config_module.list_fields()


def expand(text, draws=1, seed=0):
    return list(parse_space(text, FIELDS).iterate(draws, seed))


def values_of(name, text):
    return [point[name] for point in expand(f"{name}={text}")]


@pytest.mark.parametrize(
    "name, text, values",
    [
        ("weight_decay", "0,5e-4", [0.0, 5e-4]),
        ("learning_rate", "log(1e-3,1,4)", [0.001, 0.01, 0.1, 1.0]),
        ("learning_rate", "log(1e-3, 1, 8)", None),
        ("learning_rate", "linear(0.1,0.2,3)", [0.1, 0.15, 0.2]),
        ("learning_rate", "linear(0.12345678,1,3)", [0.12345678, 0.561728, 1.0]),
        ("learning_rate", "log(0.98765432,1,2)", [0.98765432, 1.0]),
        (
            "learning_rate",
            "linear(1234567.1,1234567.9,3)",
            [1234567.1, 1234567.5, 1234567.9],
        ),
        ("batch_size", "log(16,128,4)", [16, 32, 64, 128]),
        ("epochs", "linear(1234567,2234567,2)", [1234567, 2234567]),
        ("epochs", "linear(9007199254740993,1,2)", [9007199254740993, 1]),
        ("epochs", "log(1234567,7654321,3)", [1234567, 3074048, 7654321]),
        ("epochs", "linear(1,2,4)", [1, 2]),
        ("seed", "0:4", [0, 1, 2, 3]),
        ("seed", "3", [3]),
        ("model", "mlp, resnet20", ["mlp", "resnet20"]),
        ("batch_norm", "true,false", [True, False]),
        ("widths", "(32,64),(64,128)", [(32, 64), (64, 128)]),
        ("widths", "8,16", [(8,), (16,)]),
        ("train_split", "train[:50%],train", ["train[:50%]", "train"]),
        ("mean", "(),(0.5)", [(), (0.5,)]),
    ],
)
def test_values_of_a_list(name, text, values):
    found = values_of(name, text)
    if values is None:
        assert len(found) == 8 and (found[0], found[-1]) == (0.001, 1.0)
        ratios = [b / a for a, b in zip(found, found[1:], strict=False)]
        assert ratios == pytest.approx([1000 ** (1 / 7)] * 7, rel=1e-5)
        return
    assert found == values and [type(x) for x in found] == [type(x) for x in values]


def test_equal_points_of_a_grid_are_one_value_and_that_is_said():
    space = parse_space("epochs=linear(1,3,5); batch_size=log(8,32,3)", FIELDS)
    assert space.notes == [
        "epochs=linear(1,3,5): 3 of 5 values differ; equal ones are one"
    ]


def test_every_point_once_and_the_seed_fastest():
    points = expand("seed=0:2; learning_rate=0.1,0.2; model=mlp,resnet20")
    assert len(points) == 8 and points[0] == {
        "learning_rate": 0.1,
        "model": "mlp",
        "seed": 0,
    }
    assert [point["seed"] for point in points] == [0, 1] * 4
    assert len({tuple(point.values()) for point in points}) == 8


def test_draws_depend_on_seed_and_number_alone():
    text = "learning_rate=loguniform(1e-3,1); batch_size=uniform(8,9); seed=0:2"
    few, many, other = expand(text, 3), expand(text, 40), expand(text, 40, seed=1)
    assert few == many[:6] and many != other
    rates = [point["learning_rate"] for point in many]
    assert all(1e-3 <= rate <= 1 for rate in rates) and len(set(rates)) == 40
    assert min(rates) < 0.01 and max(rates) > 0.1
    assert {point["batch_size"] for point in many} == {8, 9}
    assert rates[::2] == rates[1::2], "seeds repeat a setting"


class OneShare:
    """A generator whose next number is known."""

    def __init__(self, share):
        self.share = share

    def random(self):
        return self.share


@pytest.mark.parametrize("low, high", [(1, 4), (3, 200), (5, 6)])
def test_whole_numbers_by_logarithm_are_drawn_as_optuna_does(low, high):
    """If Optuna changes how it maps shares to numbers, so must this."""
    transform = pytest.importorskip("optuna._transform")
    from optuna.distributions import IntDistribution

    axis = parse_space(f"batch_size=loguniform({low},{high})", FIELDS).axes[0]
    mapped = transform._SearchSpaceTransform(
        {"x": IntDistribution(low, high, log=True)}
    )
    start, end = mapped.bounds[0]
    for share in np.linspace(0, 1, 500, endpoint=False):
        own = axis.draw(OneShare(share))
        point = np.array([start + share * (end - start)])
        assert type(own) is int and own == mapped.untransform(point)["x"]


def test_draws_stay_within_narrow_intervals():
    rates = [
        p["learning_rate"]
        for p in expand("learning_rate=uniform(9.0000001,9.0000009)", 50)
    ]
    assert all(9.0000001 <= rate <= 9.0000009 for rate in rates)
    assert len(set(rates)) > 5


def test_choice_is_drawn_from_its_values():
    points = expand("model=choice(mlp,resnet20); dropout_rate=uniform(0,0.5)", 30)
    assert {point["model"] for point in points} == {"mlp", "resnet20"}
    assert all(0 <= point["dropout_rate"] <= 0.5 for point in points)


BAD = [
    ("learning_rat=0.1", "learning_rat is no option that can be swept; did you mean"),
    ("learning_rate", "'learning_rate' is no axis; write option=values"),
    ("learning_rate=", "learning_rate= has no values"),
    ("learning_rate=choice()", "has no values"),
    ("seed=4:4", "seed=4:4 has no values"),
    ("learning_rate=0.1,,0.2", "has an empty value"),
    ("learning_rate=0.1,0.1", "has 0.1 twice"),
    ("learning_rate=0.1; learning_rate=1", "learning_rate is given twice"),
    ("learning_rate=fast", "--learning_rate=fast: expected a number"),
    ("epochs=1.5", "--epochs=1.5: expected a whole number"),
    ("epochs=0,3", "--epochs=0 is outside"),
    ("dropout_rate=linear(0,1,3)", "--dropout_rate=1.0 is outside"),
    ("learning_rate=log(0,1,8)", "goes through zero"),
    ("learning_rate=log(-1,1,8)", "goes through zero"),
    ("learning_rate=loguniform(0,1)", "goes through zero"),
    ("learning_rate=log(1,2)", "needs 3 numbers"),
    ("learning_rate=log(1,2,x)", "needs 3 numbers"),
    ("learning_rate=log(1,2,1.5)", "whole number of points"),
    ("learning_rate=log(1,2,1e9)", "has 1000000000 values; at most 100000"),
    ("seed=0:1000000000", "has 1000000000 values; at most 100000"),
    ("epochs=uniform(1,1e30)", "goes beyond 9007199254740992"),
    ("learning_rate=linear(1,nan,3)", "needs 3 numbers"),
    ("learning_rate=uniform(2,1)", "is empty; the lower end comes first"),
    ("batch_size=uniform(1.5,4)", "--batch_size is a whole number"),
    ("model=log(1,2,3)", "--model is no number"),
    ("learning_rate=lgo(1,2,3)", "lgo(…) is unknown; did you mean log?"),
    ("widths=(8,16", "the parentheses of"),
    ("seed=uniform(0,9)", "seed cannot be drawn"),
    ("optimizer=sgd,sdg", "--optimizer=sdg is unknown; did you mean sgd?"),
    ("model=simple_cnn,simple_cn", "simple_cn is unknown; did you mean simple_cnn?"),
    ("batch_size=20,7", "--batch_size=7 does not divide over 2 devices"),
    ("batch_size=20,5000", "--batch_size=5000 is larger than the training set"),
    ("widths=(8),(8,8,8,8,8)", "The image is too small for this model"),
    ("data_dir=a,b", "data_dir is no option that can be swept"),
    ("task=auto,multilabel", "task is no option that can be swept"),
    ("executor=map,vmap", "executor is no option that can be swept"),
    ("deterministic=true,false", "deterministic is no option that can be swept"),
    ("learning_rate=uniform(0.1,1)", "say how many times with --trials=N"),
    ("", "--mode=sweep needs --sweep="),
]


@pytest.mark.parametrize("text, message", BAD, ids=[text for text, _ in BAD])
def test_mistake_is_one_message(capsys, tmp_path, monkeypatch, text, message):
    check_refused(capsys, tmp_path, monkeypatch, [f"--sweep={text}"], message)


def check_refused(capsys, tmp_path, monkeypatch, flags, message):
    """Check that a sweep ends with one message before anything is compiled."""
    for target in ("Loop.create", "Stacked.create"):
        monkeypatch.setattr(f"cnn.sweep.executors.{target}", None)
    directory = tmp_path / "run"
    # Trials write neither checkpoints on their way nor lines of steps.
    own = ("checkpoint_every_epochs", "log_every_steps")
    given = {flag.partition("=")[0].lstrip("-") for flag in flags}
    shared = make_flags({n: x for n, x in TINY.items() if n not in {*own, *given}})
    command = ["--mode=sweep", f"--workdir={directory}", *shared, *flags]
    assert run_main(*command) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1, printed.err
    assert "Traceback" not in printed.err + printed.out
    assert not directory.exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--sweep=seed=0:5", "--max_trials=4"], "5 trials, more than --max_trials=4"),
        (["--sweep=seed=0:2", "--trials=3"], "--sweep has nothing to draw"),
        (["--sweep=seed=0:2", "--validation_fraction=0"], "--validation_fraction=0.1"),
        (["--sweep=seed=0:2", "--executor=mpa"], "did you mean map?"),
        (
            ["--sweep=seed=0:2", "--executor=map", "--resident=never"],
            "--resident=always or --executor=loop",
        ),
    ],
)
def test_options_that_do_not_go_together(capsys, tmp_path, monkeypatch, flags, message):
    check_refused(capsys, tmp_path, monkeypatch, flags, message)


def make_all(text, **changes):
    config = config_module.make_config(TINY, changes)
    return make_trials(parse_space(text, FIELDS), config)[0]


def test_groups_are_what_is_static():
    text = "learning_rate=log(1e-3,1,8); momentum=0.5,0.9; epochs=1,2; seed=0:2"
    assert len(group_trials(make_all(text))) == 1
    groups = group_trials(make_all("model=mlp,simple_cnn; weight_decay=0,5e-4,1e-3"))
    assert [len(group) for group in groups] == [1, 2, 1, 2]
    assert len(group_trials(make_all("milestones=(1),(1,2)", schedule="step"))) == 2


def test_trials_are_the_solo_runs_of_the_same_flags():
    trial = make_all("learning_rate=0.1,0.2; seed=0:2", sweep="x=1", executor="map")[3]
    assert trial.config == config_module.make_config(
        TINY, {"learning_rate": 0.2, "seed": 1}
    )


def test_a_trial_out_of_range_is_refused():
    with pytest.raises(UserError, match="--learning_rate=-1.0 is outside"):
        make_all("learning_rate=1,-1")


def test_settings_drawn_twice_are_one_trial():
    space = parse_space("activation=choice(relu,tanh); seed=0:2", FIELDS)
    config = config_module.make_config(TINY, {"trials": 6, "max_trials": 4})
    trials, points = make_trials(space, config)
    assert points == 12 and [trial.number for trial in trials] == [0, 1, 2, 3]
    assert len({trial.identity for trial in trials}) == 4


def test_points_that_differ_in_what_is_not_read_are_one_trial():
    trials = make_all("optimizer=sgd,adamw; momentum=0.5,0.9; seed=0:2")
    assert [trial.number for trial in trials] == list(range(6))
    assert [trial.options for trial in trials[3:5]] == [
        {"optimizer": "sgd", "momentum": 0.9, "seed": 1},
        {"optimizer": "adamw", "seed": 0},
    ]
    assert len({trial.setting for trial in trials}) == 3


@pytest.mark.parametrize(
    "text", ["optimizer=adamw; momentum=0.5,0.9", "momentum=0.5,0.9"]
)
def test_axis_that_no_trial_reads_is_refused(text):
    config = config_module.make_config(TINY, {"optimizer": "adamw"})
    with pytest.raises(UserError, match="--momentum=0.5 would have no effect"):
        check_read({}, config, parse_space(text, FIELDS))
    space = parse_space("optimizer=adamw,sgd; momentum=0.5,0.9", FIELDS)
    check_read({"momentum": 0.1}, config, space)


@pytest.mark.parametrize(
    "text",
    [
        "optimizer=choice(adamw,sgd); momentum=choice(0,0.9); "
        "nesterov=choice(true,false)",
        "crop_padding=choice(0,1); crop_mode=choice(reflect,zero); "
        "geometry_fill=uniform(0,1)",
        "optimizer=choice(adamw,sgd); momentum=uniform(0.5,0.95)",
    ],
)
def test_what_some_point_reads_may_be_swept(text):
    check_read({}, config_module.make_config(TINY), parse_space(text, FIELDS))


def join(text, rows, **changes):
    """Return number by options of a sweep's trials, and of what had ended."""
    config = config_module.make_config(TINY, changes)
    trials, rows = join_ended(make_all(text, **changes), rows, config)
    return [
        {tuple(sorted(options.items())): number for options, number in pairs}
        for pairs in (
            [(trial.options, trial.number) for trial in trials],
            [(row["options"], row["trial"]) for row in rows],
        )
    ]


def test_trials_that_have_ended_keep_their_numbers():
    ended = [
        {"trial": 3, "options": {"momentum": 0.5, "learning_rate": 0.1}},
        {"trial": 0, "options": {"momentum": 0.5, "learning_rate": 0.2}},
    ]
    text = "learning_rate=0.1,0.2; momentum=0.9,0.5; seed=0,7"
    numbers, before = join(text, ended)
    of = {
        (o["learning_rate"], o["momentum"], o["seed"]): n
        for o, n in ((dict(key), n) for key, n in numbers.items())
    }
    assert of[0.1, 0.5, 0] == 3 and of[0.2, 0.5, 0] == 0
    assert sorted(of.values()) == list(range(8))
    assert [n for n in of.values() if n not in (0, 3)] == [1, 2, 4, 5, 6, 7]
    assert set(before) < set(numbers), "an old row says of a new option what it had"
    # One that is no longer asked for keeps its row; none at all is a mistake.
    numbers, before = join("learning_rate=0.2,0.3; momentum=0.5; seed=0", ended)
    assert sorted(numbers.values()) == [0, 1] and sorted(before.values()) == [0, 3]
    numbers, _ = join("learning_rate=0.2,0.3", ended, momentum=0.5)
    assert all(dict(options)["momentum"] == 0.5 for options in numbers)
    with pytest.raises(UserError, match="--sweep has none of them. A sweep may grow"):
        join("learning_rate=0.4; momentum=0.5", ended)


def test_many_programs_are_warned_of(capsys):
    sizes = ",".join(str(size) for size in range(10, 40))
    many = group_trials(make_all(f"batch_size={sizes}; learning_rate=0.1,0.2"))
    announce_groups(many, 60, Terminal())
    told = " ".join(capsys.readouterr().out.split())
    assert "60 in 30 compiled program(s)" in told
    assert (
        "warning: 30 programs must be compiled, one for each choice of batch_size"
        in told
    )
    announce_groups(many[:20], 40, Terminal())
    assert "warning" not in capsys.readouterr().out


def test_a_preset_may_carry_its_sweep(tmp_path, monkeypatch, capsys):
    preset = tmp_path / "mine.py"
    preset.write_text('options = {"sweep": "learning_rate=0.1,0.1"}\n')
    monkeypatch.chdir(tmp_path)
    assert run_main("--mode=sweep", f"--config={preset}") == 2
    assert "learning_rate=0.1,0.1 has 0.1 twice" in capsys.readouterr().err
