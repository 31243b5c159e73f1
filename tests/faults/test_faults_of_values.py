"""Faults of values: what nobody can mean is refused before anything is compiled."""

import json

from faulty import fault, hash_tree, run_undisturbed
from fixtures_runs import TINY, make_flags

COURSE = "cnn/training/course.py"
REFUSES = (
    COURSE,
    """    for excess in _find(config, _measure(config)):
        if excess.is_refused:""",
    """    for excess in _find(config, _measure(config)):
        if False:""",
)
REFUSES_BY_IMAGES = (
    COURSE,
    """    ):
        if excess.is_refused:""",
    """    ):
        if False:""",
)
INTERVAL = (
    "cnn/option.py",
    "        if not _is_within(number, field):",
    "        if False:",
)
REFUSED = "refused in one line that names the flag and the remedy; nothing is written"


def check_refused(room, changes, *words, seconds=60):
    """Require that a run is refused before anything is written."""
    flags = make_flags(TINY | changes)
    limits = {"RLIMIT_AS": 20 * 10**9}  # without the protection too
    ended = room.main("--workdir=run", *flags, seconds=seconds, limits=limits)
    ended.check_refused(*words)
    left = hash_tree(room.path / "run") if (room.path / "run").exists() else {}
    assert not [x for x in left if x in ("config.json", "metrics.jsonl")], left
    assert not [x for x in left if x.startswith("checkpoints/")], left


@fault(
    injected="`--warmup_epochs=50 --epochs=4`",
    holds=REFUSED,
    without=[REFUSES],
    slow=False,
)
def test_a_warm_up_longer_than_the_run(room):
    changes = {"warmup_epochs": 50, "epochs": 4}
    words = "--warmup_epochs=50 with --epochs=4", "give 4 or less"
    check_refused(room, changes, *words)


@fault(
    injected="milestones, a restart, an average, Lookahead, mixing, freezing after "
    "the last epoch",
    holds=REFUSED,
    without=[REFUSES],
    n=7,
)
def test_what_comes_after_the_end(room):
    for changes, flag in (
        ({"schedule": "step", "milestones": (30.0, 60.0)}, "--milestones=30,60"),
        ({"schedule": "step", "step_every_epochs": 3.0}, "--step_every_epochs=3"),
        ({"schedule": "cosine_restarts", "restart_epochs": 8.0}, "--restart_epochs=8"),
        ({"ema_decay": 0.9, "ema_start_epochs": 1e9}, "--ema_start_epochs=1e+09"),
        (
            {"lookahead_decay": 0.9, "lookahead_start_epochs": 3, "ema_decay": 0},
            "--lookahead_start_epochs=3",
        ),
        ({"mixup_alpha": 0.2, "mixing_until_epoch": 3}, "--mixing_until_epoch=3"),
        ({"train_until": "head=9"}, "--train_until=head=9"),
    ):
        check_refused(room, changes, flag, "--epochs=3", "or more --epochs")


@fault(
    injected="padding of 100 pixels, a cut-out of 100 pixels, of images of 8",
    holds=REFUSED,
    without=[REFUSES_BY_IMAGES],
    n=2,
)
def test_a_crop_or_a_cutout_larger_than_the_image(room):
    for name in ("crop_padding", "cutout_size"):
        words = f"--{name}=100 with images of 8 pixels", "--image_size"
        check_refused(room, {name: 100}, *words)


@fault(
    injected="`--step_every_epochs=1e-30`, `--restart_epochs=1e-30`",
    holds=REFUSED,
    without=[(COURSE, "        if name in _PERIODS:", "        if False:")],
    n=2,
)
def test_a_period_shorter_than_a_step(room):
    for schedule, name in (
        ("step", "step_every_epochs"),
        ("cosine_restarts", "restart_epochs"),
    ):
        words = f"--{name}=1e-30 is less than a step", "give 0.2 or more"
        check_refused(room, {"schedule": schedule, name: 1e-30}, *words)


@fault(
    injected="`--checkpoint_every_epochs=1e308`, `1e-300`, checkpoints to keep 10^9, "
    "evaluations and lines after the end",
    holds="each is refused, or the run says in a line that it has no effect and ends "
    "with the same bits",
    without=[
        (
            "cnn/option.py",
            'if field.metadata["kind"] != "static" or read_interval(within)[2]:',
            'if field.metadata["kind"] != "static":',
        ),
        (
            "cnn/training/setup.py",
            "every = min(options.checkpoint_every_epochs, self.config.train.epochs)",
            "every = options.checkpoint_every_epochs",
        ),
    ],
    n=5,
)
def test_intervals_longer_than_the_run(room):
    plain = {"checkpoint_every_epochs": 1.0}
    expected = run_undisturbed(**plain)
    for value in ("1e308", "1e-300"):
        changes = {"checkpoint_every_epochs": value}
        check_refused(room, changes, "--checkpoint_every_epochs", "too")
    for name, value in (
        ("checkpoint_every_epochs", 1e30),
        ("keep_checkpoints", 10**9),
        ("early_stop_epochs", 10**9),
    ):
        ended = room.train(f"run_{name}", **plain | {name: value}).check_done()
        assert f"--{name}=" in ended.out and "with" in ended.out, ended
        result = json.loads((room.path / f"run_{name}/result.json").read_text())
        assert (result["state_sha256"], result["steps"]) == expected[:2]


@fault(
    injected="one image a batch, and pieces of one, where a layer has one place",
    holds="refused, naming the layer and what to change; no chance accuracy in silence",
    without=[
        (
            "cnn/training/single_values.py",
            "        pieces = config.step.accumulate_steps\n",
            "        return\n        pieces = config.step.accumulate_steps\n",
        )
    ],
    n=2,
)
def test_batch_normalisation_of_a_single_value(room):
    deep = {"widths": (4, 4, 4), "downsampling": "stride", "epochs": 1}
    for changes in (
        {"batch_size": 1, "train_examples": 20},
        {"batch_size": 10, "accumulate_steps": 10},
    ):
        words = "single value of each channel in stage3_norm", "--freeze_statistics"
        check_refused(room, deep | changes, *words)


@fault(
    injected="nan, inf, 1e400, -1e400 and nothing as a learning rate, in flags",
    holds=REFUSED,
    without=[INTERVAL],
    n=5,
)
def test_numbers_that_are_none(room):
    for text in ("nan", "inf", "1e400", "-1e400", ""):
        check_refused(room, {"learning_rate": text}, "--learning_rate=")


@fault(
    injected="a momentum, a dropout rate and a decay of 0.99999999999, which 32 bits "
    "round to 1",
    holds=REFUSED,
    without=[
        (
            "cnn/option.py",
            '        numbers += struct.unpack("f", struct.pack("f", number))',
            "        pass",
        )
    ],
    n=3,
)
def test_numbers_that_become_one_in_the_program(room):
    for name in ("momentum", "dropout_rate", "ema_decay"):
        check_refused(
            room, {name: "0.99999999999"}, f"--{name}=0.99999999999", "[0, 1)"
        )


@fault(
    injected="10^9 classes, 10^9 channels, a kernel of 10^9 pixels, 10^9 images a "
    "batch",
    holds="refused at once, without a byte of memory for them",
    without=[INTERVAL],
    n=4,
)
def test_counts_that_no_memory_holds(room):
    for name in ("num_classes", "widths", "kernel_size", "batch_size"):
        check_refused(
            room, {name: 10**9}, f"--{name}=1000000000 is outside", seconds=60
        )


@fault(
    injected="10^6 epochs of 2,148 steps and more",
    holds="refused: more steps than 31 bits count",
    without=[(COURSE, "    if steps > _MOST_STEPS:", "    if False:")],
)
def test_more_steps_than_are_counted(room):
    array = room.path / "many.npz"
    code = (
        "import numpy as np, sys; n = 2200; x = np.zeros((n, 2, 2), np.uint8);"
        "y = np.arange(n) % 2;"
        "np.savez(sys.argv[1], x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])"
    )
    room.python(code, array).check_done()
    changes = {"dataset": f"npz:{array}", "epochs": 10**6, "batch_size": 1}
    changes |= {"train_examples": 0, "validation_fraction": 0, "model": "mlp"}
    flags = {x: y for x, y in (TINY | changes).items() if x not in _OF_SIMPLE_CNN}
    command = ["--workdir=run", "--mesh=data:1", *make_flags(flags)]
    ended = room.main(*command, seconds=60)
    ended.check_refused("--epochs=1000000", "more than the 2147483647 steps")


_OF_SIMPLE_CNN = ("widths", "downsampling", "head")


@fault(
    injected="NaN, Infinity and 10^6 epochs of warm-up in config.json, then evaluate",
    holds="refused, naming the option; the directory stays as it is",
    without=[INTERVAL],
    n=2,
)
def test_a_config_file_with_numbers_that_are_none(room):
    room.train("run").check_done()
    path = room.path / "run/config.json"
    stored = json.loads(path.read_text())
    for value in (float("nan"), float("inf")):
        path.write_text(json.dumps(stored | {"learning_rate": value}))
        before = hash_tree(room.path / "run")
        ended = room.main("--mode=evaluate", "--workdir=run")
        ended.check_refused("--learning_rate=", "is outside [0, inf)")
        assert hash_tree(room.path / "run") == before


@fault(
    injected="one trial of a sweep of three warms up for 50 epochs of 3",
    holds="the sweep is refused before a trial is run",
    without=[REFUSES],
)
def test_a_trial_that_cannot_be_meant(room):
    space = "--sweep=warmup_epochs=0,1,50"
    flags = make_flags(TINY | {"mode": "sweep", "workdir": "sweep"})
    unread = ("--log_every_steps", "--checkpoint_every")
    flags = [x for x in flags if not x.startswith(unread)]
    ended = room.main(space, *flags)
    ended.check_refused("--warmup_epochs=50 with --epochs=3")
    assert not list(room.path.glob("sweep/trial*")), hash_tree(room.path)


@fault(
    injected="a learning rate of 10^30",
    holds="training stops with exit code 2, names each remedy that is not taken yet, "
    "and keeps no checkpoint that is not finite",
    without=[
        (
            "cnn/training/blame.py",
            "    if bad_step:",
            "    if False:",
        ),
        (
            "cnn/training/loop.py",
            "    if not is_finite(progress.state):",
            "    if False:",
        ),
        (
            "cnn/training/loop.py",
            '        if not math.isfinite(found["loss"]):',
            "        if False:",
        ),
    ],
)
def test_a_rate_that_leads_nowhere(room):
    ended = room.train("run", learning_rate=1e30, clip_norm=1.0, optimizer="sgd")
    ended.check_refused("not finite", "Lower --learning_rate", "--warmup_epochs=1")
    assert "--clip_norm=1" not in ended.err


@fault(
    injected="presets that raise, set nothing, name no option, are a directory, are "
    "no text, leave the process",
    holds="refused in one line that names the preset; nothing is written",
    without=[
        (
            "cnn/config.py",
            "    except (Exception, SystemExit) as error:",
            "    except KeyError as error:",
        )
    ],
    n=6,
)
def test_presets_that_are_none(room):
    for name, content in (
        ("raises", b"1 / 0"),
        ("nothing", b"x = 1"),
        ("unknown", b"options = {'learnin_rate': 0.1}"),
        ("binary", b"\x00\xff\xfe\x80options"),
        ("leaves", b"import sys; sys.exit(0)"),
    ):
        path = room.path / f"{name}.py"
        path.write_bytes(content)
        check_preset(room, path)
    (room.path / "folder.py").mkdir()
    check_preset(room, room.path / "folder.py")


def check_preset(room, path):
    """Require that a preset is refused in one line."""
    ended = room.main(f"--config={path}", "--workdir=run")
    assert ended.code == 2 and "Traceback" not in ended.err, ended
    assert len(ended.err.splitlines()) == 1 and ended.err.startswith("error: "), ended
    assert not (room.path / "run").exists()
