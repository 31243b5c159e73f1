"""Mode compare: a planted difference is found where it is, and nowhere else."""

import json
import shutil

import jax
import numpy as np
import pytest
from fixtures_runs import TINY, run_main, train_run

from cnn.checkpoints import manifest, workdir
from cnn.data.order import make_epoch_order
from cnn.errors import UserError
from cnn.ledger import compare, paired
from cnn.training import progress

SEEN_FIRST = 3  # the step at which the changed image is seen first


def write_digits(path, changed=()):
    """Write digits as a .npz file, some of them with another pixel."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 200, (140, 8, 8), dtype=np.uint8)
    for number in changed:
        pixels[number, 3, 3] += 1
    labels = np.arange(140) % 10
    parts = {"x_train": pixels[:120], "y_train": labels[:120]}
    np.savez(path, **parts, x_test=pixels[120:], y_test=labels[120:])
    return f"npz:{path}"


def flip_bit(state, path, place):
    """Return a state with the lowest bit of one weight flipped."""

    def flip(where, leaf):
        if jax.tree_util.keystr(where, simple=True, separator="/") != path:
            return leaf
        values = np.array(leaf)
        values.view(np.uint32)[place] ^= 1
        return jax.device_put(values, leaf.sharding)

    return state.replace(params=jax.tree_util.tree_map_with_path(flip, state.params))


def resume_flipped(trained, directory):
    """Train the end of a run again, with one bit flipped after its last step."""
    shutil.copytree(trained, directory)
    last = manifest.list_steps(directory / "checkpoints")[-1]
    shutil.rmtree(directory / "checkpoints" / str(last))
    (directory / "result.json").unlink()
    take = progress.take_epoch

    def spoil(setup, reached, *rest):
        for taken in take(setup, reached, *rest):
            if reached.step == last:
                reached.state = flip_bit(reached.state, "head/kernel", (2, 5))
            yield taken

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(progress, "take_epoch", spoil)
        train_run(directory)
    return last


def find_seen_at(run, step):
    """Return the number of an image that a run of one epoch sees at a step."""
    names = json.loads((run / "dataset.json").read_text())["parts"]["train"]["names"]
    batches = make_epoch_order(0, 0, len(names), TINY["batch_size"])
    return int(names[batches[step - 1][0]].removeprefix("train/"))


@pytest.fixture(scope="module")
def runs(trained, tmp_path_factory):
    """Return a directory of runs that differ from `same` by what they are named."""
    home = tmp_path_factory.mktemp("runs")
    shutil.copytree(trained, home / "same")
    train_run(home / "seed", seed=1)
    train_run(home / "rate", learning_rate=0.06)
    resume_flipped(trained, home / "bit")
    fixed = {"mean": (0.5,), "std": (0.5,), "train_examples": 0, "epochs": 1}
    train_run(home / "images", dataset=write_digits(home / "images.npz"), **fixed)
    changed = find_seen_at(home / "images", SEEN_FIRST)
    path = write_digits(home / "image.npz", (changed,))
    train_run(home / "image", dataset=path, **fixed)
    return home


def look(*names):
    """Compare two runs; returns the differences by aspect."""
    return {x.aspect: x.difference for x in compare.compare_runs(*names)}


def test_a_run_and_itself_do_not_part(runs, trained, capsys):
    assert set(look(runs / "same", trained).values()) == {""}
    flags = ["--mode=compare", f"--workdir={runs}/same,{trained}"]
    assert run_main(*flags) == 0
    assert capsys.readouterr().out.endswith("they do not part\n")


def test_another_seed(runs, capsys):
    found = look(runs / "same", runs / "seed")
    assert found["options"] == "--seed=0, 1"
    assert found["data"] == found["versions"] == ""
    assert found["order"].startswith("step 1 saw other examples")
    assert found["numbers"].startswith("step 0: validation_loss ")
    assert found["weights"] and "state_sha256" in found["result"]
    assert run_main("--mode=compare", f"--workdir={runs}/same,{runs}/seed") == 0
    told = capsys.readouterr().out
    assert "they part in: options, order, numbers, weights, result" in told


def test_another_option(runs):
    found = look(runs / "same", runs / "rate")
    assert found["options"] == "--learning_rate=0.05, 0.06"
    assert found["data"] == found["order"] == found["versions"] == ""
    assert found["numbers"].startswith("step 1: learning_rate ")


def test_one_changed_image(runs):
    found = look(runs / "images", runs / "image")
    assert found["options"].startswith("--dataset=npz:"), "and nothing else"
    assert ";" not in found["options"] and found["order"] == ""
    changed = find_seen_at(runs / "images", SEEN_FIRST)
    assert found["data"] == f"1 of other contents (train/{changed})"
    assert found["numbers"].startswith(f"step {SEEN_FIRST}: "), "when it is seen"


def test_one_flipped_bit(runs):
    found = look(runs / "same", runs / "bit")
    assert found["options"] == found["data"] == found["order"] == ""
    last = json.loads((runs / "same" / "result.json").read_text())["steps"]
    said = found["weights"]
    assert said.startswith(
        f"step {last}: params/head/kernel: 1 of 40 values differ, by "
    )
    assert "first at [2, 5]: " in said and "; 1 of " in said
    values = [float(x) for x in said.split("[2, 5]: ")[1].split(";")[0].split(", ")]
    bits = np.array(values, np.float32).view(np.uint32)
    assert bits[0] ^ bits[1] == 1
    numbers = found["numbers"]
    assert numbers == "" or numbers.startswith(f"step {last}: validation_")


def test_layers_are_compared_from_the_input_on():
    names = ["head/bias", "stage10_conv/kernel", "stage2_conv/kernel", "stem/kernel"]
    here = {f"params/{name}": np.zeros(3, np.float32) for name in names}
    there = {path: np.ones(3, np.float32) for path in here}
    assert compare._find_layer(here, there).startswith("params/stem/kernel: 3 of 3")
    there["params/stem/kernel"] = here["params/stem/kernel"]
    assert compare._find_layer(here, there).startswith("params/stage2_conv/kernel")
    del there["params/stage2_conv/kernel"]
    assert "stage2_conv/kernel float32[3], none" in compare._find_layer(here, there)
    zero = {"params/a": np.array([0.0], np.float32)}
    minus = {"params/a": np.array([-0.0], np.float32)}
    assert "1 of 1 values differ, by 0 at most" in compare._find_layer(zero, minus)


def test_what_is_not_there_cannot_be_told(runs, tmp_path):
    run = shutil.copytree(runs / "same", tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    (run / "result.json").unlink()
    (run / "dataset.json").unlink()
    found = look(runs / "same", run)
    missing = ("data", "versions", "weights", "result")
    assert all(found[name] is None for name in missing)
    assert found["options"] == found["order"] == found["numbers"] == ""


@pytest.mark.parametrize(
    "workdir, message",
    [
        ("RUNS/same", "names 1"),
        ("RUNS/same,RUNS/seed,RUNS/rate", "names 3"),
        ("", "--workdir= is empty"),
        ("RUNS/same,RUNS/none", "holds no run"),
        ("RUNS/*,RUNS/same", "are both of --seed=0"),
    ],
)
def test_mistakes(runs, workdir, message, capsys):
    flag = f"--workdir={workdir.replace('RUNS', str(runs))}"
    assert run_main("--mode=compare", flag) == 2
    assert message in capsys.readouterr().err


def write_group(home, name, values):
    """Write runs that have ended with accuracies, one for each seed."""
    for seed, value in enumerate(values):
        run = home / f"{name}{seed}"
        run.mkdir()
        stored = {"model": "mlp", "dataset": "digits", "seed": seed}
        (run / "config.json").write_text(json.dumps(stored))
        result = {"steps": 8, "epochs": 2, "test_accuracy": value, "seconds": 1.0}
        (run / "result.json").write_text(json.dumps(result))


def test_groups_are_paired_by_their_seeds(tmp_path, capsys):
    write_group(tmp_path, "a", [0.50, 0.60, 0.70, 0.90])
    write_group(tmp_path, "b", [0.52, 0.61, 0.75])
    groups = workdir.split_groups(f"{tmp_path}/a*,{tmp_path}/b*")
    assert [len(group) for group in groups] == [4, 3]
    (row,) = paired.compare_groups(*groups)
    differences = np.array([0.02, 0.01, 0.05])
    half = 4.302652729911275 * differences.std(ddof=1) / np.sqrt(3)
    assert row["metric"] == "test_accuracy" and row["n"] == 3
    assert row["difference"] == pytest.approx(differences.mean())
    assert row["low"] == pytest.approx(differences.mean() - half)
    assert row["high"] == pytest.approx(differences.mean() + half)
    needed = row["needed"]
    effect = differences.mean() / differences.std(ddof=1)
    assert paired.compute_power(needed, effect) >= 0.8
    assert paired.compute_power(needed - 1, effect) < 0.8
    flags = ["--mode=compare", f"--workdir={tmp_path}/a*,{tmp_path}/b*"]
    assert run_main(*flags) == 0
    told = capsys.readouterr().out
    assert f"not decided; {needed - 3} more seeds would" in told
    assert "paired t-test, two-sided, alpha 5%, power 80%" in told


@pytest.mark.parametrize("effect, count", [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_that_decide_are_those_of_published_tables(effect, count):
    """G*Power 3.1, t-test of matched pairs, two tails, alpha 0.05, power 0.8."""
    assert paired.find_needed(effect, 1.0) == count


@pytest.mark.parametrize("effect", [4.9, 5.65, 5.9, 8.0])
def test_large_effects_have_a_power(effect):
    """Where scipy gives NaN for the other tail, two seeds are not yet enough."""
    powers = [paired.compute_power(count, effect) for count in (2, 3, 4)]
    # The tail by simulation: Z + shift against |chi of 1| times Student's t for one.
    normal, chi = np.random.default_rng(0).standard_normal((2, 200_000))
    drawn = np.mean(normal + effect * 2**0.5 > 12.706 * abs(chi))
    assert powers[0] == pytest.approx(drawn, abs=0.005)
    assert powers[0] < 0.8 < powers[1] <= powers[2]
    assert paired.find_needed(effect, 1.0) == 3


@pytest.mark.parametrize("mean, spread", [(0.0, 1.0), (1.0, None), (1e-9, 1.0)])
def test_nothing_says_how_many_seeds_decide(mean, spread):
    assert paired.find_needed(mean, spread) is None


def test_groups_without_a_common_seed(tmp_path):
    write_group(tmp_path, "a", [0.5])
    write_group(tmp_path, "b", [0.5, 0.6])
    shutil.rmtree(tmp_path / "b0")
    with pytest.raises(UserError, match="no seed in common"):
        paired.compare_groups([tmp_path / "a0"], [tmp_path / "b1"])
