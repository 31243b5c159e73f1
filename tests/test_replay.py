"""A step taken again: the run's own ids, images and losses, and where it goes wrong."""

import json
import re
import shlex
import shutil
import signal

import jax
import numpy as np
import pytest
from fixtures_runs import (
    AMID,
    ROOT,
    TINY,
    forget_programs,
    make_flags,
    read_lines,
    run_main,
    train_run,
)
from PIL import Image
from test_readme import list_commands

from cnn import config as config_module
from cnn.checkpoints import manifest, workdir
from cnn.data.order import draw_epoch
from cnn.errors import UserError
from cnn.replay import findings, replay, written
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.training import blame, steps
from cnn.training.counters import Counters
from cnn.training.epoch import Pace

# Streamed, varied, mixed, in pieces, with a rate that falls by what is evaluated.
VARIED = {"resident": "never", "crop_padding": 1, "brightness": 0.3, "mixup_alpha": 0.4}
VARIED |= {"model": "logistic_regression", "dropout_rate": 0.0, "ema_decay": 0.0}
VARIED |= {"accumulate_steps": 2, "augment_repeats": 2, "epochs": 4}
VARIED |= {"schedule": "plateau", "plateau_patience": 0, "plateau_threshold": 0.5}
VARIED |= {"select_by": "loss"} | AMID
LAST = VARIED["epochs"] * 5
STEPS = np.sort(np.random.default_rng(0).permutation(LAST)[:10] + 1).tolist()


class Stopper(Terminal):
    """A terminal at which somebody presses Ctrl-C after the seventh step."""

    def update_bar(self, step, *args):
        """Send the signal."""
        if step >= 7:
            signal.raise_signal(signal.SIGINT)


def take_again(directory, step, **changes):
    """Replay a step of a run, with its own options."""
    stored = workdir.read_config(directory)
    config = config_module.make_config(stored, {"step": step}, changes)
    return replay.replay(config, directory, Terminal())


@pytest.fixture(scope="module")
def varied(tmp_path_factory):
    """Return a run that was resumed, and the images by step, as its program saw them.

    What notes them is part of the programs, of the run as of its replays.
    """
    directory, seen = tmp_path_factory.mktemp("varied") / "run", {}
    prepare = steps.prepare_batch

    def note(structure, number, batch, numbers):
        prepared = prepare(structure, number, batch, numbers)
        jax.debug.callback(
            lambda ids, images: seen.setdefault(ids.tobytes(), images),
            batch["ids"],
            prepared["images"],
        )
        return prepared

    forget_programs()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(steps, "prepare_batch", note)
        patched.setattr(Pace, "SECONDS", 1e-9)
        with pytest.raises(Interrupted):
            train_run(directory, Stopper(), **VARIED)
        train_run(directory, **VARIED)
        jax.effects_barrier()
        images = dict(seen)
        patched.undo()
        patched.setattr(steps, "prepare_batch", note)
        yield directory, images
    forget_programs()


@pytest.fixture
def no_picture(monkeypatch):
    """Draw nothing, which takes longer than the rest."""
    monkeypatch.setattr(written.batch_sheet, "draw", lambda *args: None)


@pytest.mark.parametrize("step", STEPS)
def test_ids_images_and_losses_are_the_runs_own(varied, no_picture, step):
    directory, images = varied
    found = take_again(directory, step)
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    lines = {x["step"]: x for x in map(json.loads, lines) if "loss" in x}
    line = lines[step]
    assert {name: found[name] for name in line} == line
    assert found["logged"]["equal"] and found["logged"]["steps"] >= 1
    assert found["from_step"] == max(
        [x for x in manifest.list_steps(directory / "checkpoints") if x < step],
        default=0,
    )
    number, done = divmod(step - 1, 5)
    labels = np.zeros(100, np.int32)
    ids = draw_epoch(0, number, labels, 20)["ids"][done]
    batch = np.load(directory / "replay" / f"step_{step}" / "batch.npz")
    np.testing.assert_array_equal(batch["ids"], np.tile(ids, 2))
    np.testing.assert_array_equal(batch["images"], images[ids.tobytes()])
    np.testing.assert_allclose(batch["losses"].mean(), line["loss"], rtol=1e-5)
    shown = [x["loss"] for x in found["examples"]]
    assert shown == sorted(batch["losses"].tolist(), reverse=True)
    norms = [x["gradient_norm"] for x in found["layers"]]
    np.testing.assert_allclose(np.linalg.norm(norms), line["gradient_norm"], rtol=1e-4)
    assert found["not_finite"] is None


def test_a_plain_run_needs_one_command(trained, tmp_path, capsys):
    before = {path for path in trained.rglob("*") if path.is_file()}
    flags = [f"--workdir={trained}", "--mode=replay", "--step=7"]
    assert run_main(*flags, f"--output={tmp_path}") == 0
    told = capsys.readouterr().out
    assert "equal     to metrics.jsonl, to the bit" in told and "stage1" in told
    assert {path for path in trained.rglob("*") if path.is_file()} == before
    found = json.loads((tmp_path / "replay.json").read_text())
    assert found["step"] == 7 and len(found["examples"]) == 20
    for layer in found["layers"]:
        assert layer["gradient_norm"] > 0 and layer["largest_activation"] > 0
        assert layer["update_to_weight"] == pytest.approx(
            layer["update_norm"] / layer["weight_norm"]
        )
    with Image.open(tmp_path / "batch.png") as image:
        assert min(image.size) > 150


def test_features_that_were_cached_show_their_images(trained, tmp_path):
    options = {"init_from": str(trained), "train_only": ("head",), "dropout_rate": 0.0}
    options |= {"cache_features": "always", "freeze_statistics": True, "epochs": 1}
    train_run(tmp_path, **options)
    found = take_again(tmp_path, 3)
    assert found["logged"]["equal"]
    shown = {x["layer"]: "gradient_norm" in x for x in found["layers"]}
    assert shown == {"stage1_conv": False, "stage1_norm": False, "head": True}
    run = ["largest_activation" in x for x in found["layers"]]
    assert run == [False, False, True]
    batch = np.load(tmp_path / "replay" / "step_3" / "batch.npz")
    assert batch["images"].shape == (20, 4)
    assert (tmp_path / "replay" / "step_3" / "batch.png").exists()


def test_a_line_that_is_not_the_runs_is_found(trained, tmp_path, no_picture, capsys):
    directory = shutil.copytree(trained, tmp_path / "run")
    log = directory / "metrics.jsonl"
    lines = [json.loads(x) for x in log.read_text().splitlines()]
    for line in lines:
        if line["step"] == 2 and "loss" in line:
            line["loss"] += 2.0**-20
    log.write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    found = take_again(directory, 3)["logged"]
    assert found["equal"] is False and found["first_difference"]["step"] == 2
    assert found["first_difference"]["names"] == ["loss"]
    assert "from step 2 on loss differ" in capsys.readouterr().out
    log.write_text("")
    assert take_again(directory, 3)["logged"]["equal"] is None


@pytest.fixture
def diverging(tmp_path):
    """Return the flags of a run that does not stay finite, and its directory."""
    run = TINY | {"learning_rate": 1e20, "checkpoint_every_epochs": 1.0}
    directory = tmp_path / "a run"
    with jax.debug_nans(False):
        yield [*make_flags(run), f"--workdir={directory}"], directory


def test_a_loss_that_is_not_finite_is_replayed_by_itself(diverging, capsys):
    flags, directory = diverging
    assert run_main(*flags) == 2
    told = capsys.readouterr()
    bad = int(re.search(r"not finite at step (\d+)", told.err)[1])
    place = directory / "replay" / f"step_{bad}"
    assert told.err.startswith("error: The loss or its gradient is not finite")
    assert "First not finite are the activations of stage1_norm" in told.err
    assert told.err.strip().endswith(f"are in {place}")
    found = json.loads((place / "replay.json").read_text(), parse_constant=pytest.fail)
    assert found["loss"] is None and found["logged"]["equal"] in (True, None)
    assert found["not_finite"]["what"] == "activations"
    assert found["not_finite"]["layer"] == "stage1_norm"
    assert "first not finite: activations of stage1_norm" in told.out
    failed = read_lines(directory)[-1]["failed"]
    assert f"not finite at step {bad}" in failed
    # By hand it is the same, and the run resumes into the same error.
    words = shlex.split(failed.partition("python main.py ")[2])
    assert run_main(*words) == 0
    assert json.loads((place / "replay.json").read_text()) == found
    assert run_main(*flags) == 2


@pytest.mark.parametrize(
    "failure", [ValueError("no\nroom"), Interrupted(2), KeyboardInterrupt(), OSError()]
)
def test_a_replay_that_fails_hides_no_error(diverging, capsys, monkeypatch, failure):
    def fail(*args):
        raise failure

    monkeypatch.setattr(written, "write", fail)
    assert run_main(*diverging[0]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: The loss or its gradient is not finite at step")
    assert "--mode=replay" in told and "By itself it was not replayed: " in told


def test_a_loss_far_above_its_mean_stops_training(tmp_path, no_picture, capsys):
    directory = tmp_path / "run"
    run = TINY | {"checkpoint_every_epochs": 1.0}
    whole = train_run(tmp_path / "whole", **run)
    lines = [x for x in read_lines(tmp_path / "whole") if "loss" in x]
    total = weight = 0.0
    ratios = []
    for line in lines:
        ratios.append(line["loss"] / (total / weight) if weight else 0.0)
        total, weight = 0.98 * total + 0.02 * line["loss"], 0.98 * weight + 0.02
    # In the last epoch, from a checkpoint whose mean is that of all steps before it.
    high = max(range(10, len(lines)), key=lambda i: ratios[i])
    factor = ratios[high] - 1e-6
    first = next(i for i, ratio in enumerate(ratios) if ratio > factor)
    flags = [*make_flags(run), f"--workdir={directory}", f"--blame_above={factor}"]
    for _ in range(2):
        assert run_main(*flags) == 2
        told = capsys.readouterr().err
        assert f"The loss of step {first + 1}, {lines[first]['loss']:.4g}" in told
        assert "Its highest losses: " in told and "--blame_above=0" in told
    assert (directory / "replay" / f"step_{first + 1}" / "replay.json").exists()
    assert run_main(*flags[:-1], "--blame_above=0") == 0
    found = json.loads((directory / "result.json").read_text())
    assert found["state_sha256"] == whole["state_sha256"]


def test_a_running_mean_is_the_same_however_steps_are_called():
    losses = np.float32(np.random.default_rng(0).uniform(1, 2, 100))
    losses[70] = 5.0
    for size in (100, 7, 1):
        counters = Counters()
        for i in range(0, 70, size):
            few = losses[i : min(i + size, 71)]
            assert blame.note_losses(counters, few[: 70 - i], 3.0) is None
        assert blame.note_losses(counters, losses[70:], 3.0) == 0
        weights = 0.98 ** np.arange(69, -1, -1)
        mean = np.float64(losses[:70]) @ weights / weights.sum()
        np.testing.assert_allclose(counters.loss_sum / counters.loss_weight, mean)
        if size == 100:
            expected = counters
        assert counters == expected
    assert blame.note_losses(Counters(), losses, 1e9) is None


def test_the_page_does_what_it_shows(tmp_path, monkeypatch, capsys):
    """It takes 5 s: a run and a replay from their commands to their pictures."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "replay.md").read_text(encoding="utf-8")
    small_ones = [["--widths=4,4"], [], ["--widths=4,4", "--train_examples=100"]]
    for words, small in zip(list_commands(page), small_ones, strict=True):
        assert words[:2] == ["python", "main.py"]
        assert run_main(*words[2:], *small) == 0
    told = capsys.readouterr().out
    # The numbers depend on the machine.
    assert "step 90 from checkpoint 80 on" in told and "of 10 logged steps" in told
    assert len([*tmp_path.glob("runs/*/result.json")]) == 2, "both have ended"
    shown = {path.name for path in (tmp_path / "runs/varied/replay/step_90").iterdir()}
    assert shown == set(re.findall(r"^\| `(\S+)` \|", page, re.MULTILINE))


def test_what_cannot_be_replayed_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="--step=16 is beyond the run .* 15 steps"):
        take_again(trained, 16)
    with pytest.raises(UserError, match="needs --step=N"):
        take_again(trained, 0)
    with (
        workdir.lock(trained),
        pytest.raises(UserError, match="in use by process"),
    ):
        take_again(trained, 3)
    directory = shutil.copytree(trained, tmp_path / "run")
    for step, text in ((3, "began on other data"), (15, "saw other data")):
        with pytest.raises(UserError, match=text):
            take_again(directory, step, **{"split_seed": 5})


def test_a_damaged_checkpoint_is_left_out(trained, tmp_path, no_picture, capsys):
    directory = shutil.copytree(trained, tmp_path / "run")
    newest = manifest.list_steps(directory / "checkpoints")[-2]
    (directory / "checkpoints" / str(newest) / manifest.DESCRIPTION).write_text("{}")
    found = take_again(directory, newest + 1)
    assert found["from_step"] < newest and found["logged"]["equal"]
    assert f"checkpoint {newest} is left out" in capsys.readouterr().out


def test_blame_goes_to_what_is_computed_first():
    layers = [{"layer": "a"}, {"layer": "b"}]
    fine = {"weight_norm": 1.0, "largest_activation": 1.0, "gradient_norm": 1.0}
    for layer in layers:
        layer |= fine | {"update_norm": 1.0}
    batch = {"images": np.ones(2), "losses": np.ones(2)}
    bad = float("nan")
    for what, name, layer in (
        ("update", "update_norm", "a"),
        ("gradients", "gradient_norm", "b"),
    ):
        layers[0][name] = layers[1][name] = bad
        found = findings.find_bad({"loss": 1.0}, batch, layers)
        assert found == {"what": what, "layer": layer}
    batch["losses"][1] = bad
    assert findings.find_bad({"loss": bad}, batch, layers) == {"what": "loss"}
    layers[1]["largest_activation"] = bad
    found = findings.find_bad({"loss": bad}, batch, layers)
    assert found == {"what": "activations", "layer": "b"}
    layers[1]["weight_norm"] = bad
    found = findings.find_bad({"loss": bad}, batch, layers)
    assert found == {"what": "weights", "layer": "b"}
    batch["images"][0] = bad
    assert findings.find_bad({"loss": bad}, batch, layers) == {"what": "images"}
