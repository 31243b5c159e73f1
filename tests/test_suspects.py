"""Which examples are wrong: what a run keeps of each, its table, sheet and page."""

import csv
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import ROOT, TINY, make_setup, read_lines, run_main, train_run
from test_readme import list_commands
from test_resume import Stopper

from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.errors import UserError
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.training import examples, steps, suspects
from cnn.visualize import visualize
from cnn.visualize.draw import mistakes

TRACKED = {"track_examples": True, "epochs": 3, "log_every_steps": 1}
LINEAR = {"model": "logistic_regression", "dropout_rate": 0.0, "ema_decay": 0.0}
STEPS = TINY["train_examples"] // TINY["batch_size"]


def read_table(directory):
    """Read examples.csv as dicts."""
    with (directory / "examples.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """Return a run that tracks its examples: its directory and its result."""
    directory = tmp_path_factory.mktemp("tracked") / "run"
    return directory, train_run(directory, **TRACKED)


def follow(presentations, label):
    """Follow one example in plain Python: right answers, forgetting, majority."""
    kept = {"first_learnt": 0, "forgotten": 0, "instead": -1, "votes": 0}
    was_right = False
    for epoch, predicted in enumerate(presentations, 1):
        right = predicted == label
        if right and not kept["first_learnt"]:
            kept["first_learnt"] = epoch
        kept["forgotten"] += was_right and not right
        if not right:
            if kept["votes"] == 0:
                kept["instead"] = predicted
            kept["votes"] += 1 if kept["instead"] == predicted else -1
        was_right = right
    return kept | {"predicted": presentations[-1], "seen": len(presentations)}


def test_what_is_kept_is_what_a_loop_counts():
    random = np.random.default_rng(0)
    labels = np.array([0, 1, 2, 2], np.int32)
    logits = random.normal(size=(9, 4, 3)).astype(np.float32)
    losses = random.random((9, 4)).astype(np.float32)
    kept, note = examples.create(6), jax.jit(examples.note, static_argnums=4)
    ids = np.array([5, 0, 3, 2], np.int32)
    for epoch, (some, loss) in enumerate(zip(logits, losses, strict=True)):
        found = examples.measure(jnp.asarray(some), labels, jnp.asarray(loss))
        kept = note(kept, jnp.int32(epoch), ids, found, False)
    kept = {name: np.asarray(x) for name, x in kept.items()}
    for place, (i, label) in enumerate(zip(ids, labels, strict=True)):
        wanted = follow(logits[:, place].argmax(axis=-1).tolist(), label)
        assert {name: kept[name][i] for name in wanted} == wanted
    own = np.take_along_axis(logits, labels[None, :, None], 2)[..., 0]
    others = np.where(np.eye(3, dtype=bool)[labels], -np.inf, logits).max(axis=2)
    np.testing.assert_allclose(kept["margin"][ids], (own - others).sum(0), rtol=1e-5)
    np.testing.assert_allclose(kept["loss"][ids], losses.sum(0), rtol=1e-6)
    assert kept["seen"][[1, 4]].tolist() == [0, 0]
    assert kept["predicted"][[1, 4]].tolist() == [-1, -1]


def test_copies_of_an_example_are_one_presentation():
    ids, labels = np.array([1, 0, 1, 1], np.int32), np.array([0, 1, 0, 0], np.int32)
    logits = jnp.array([[3.0, 0], [0, 1], [0, 1], [2, 0]])
    found = examples.measure(logits, labels, jnp.array([0.3, 0.2, 1.2, 0.6]))
    kept = examples.note(examples.create(2), jnp.int32(0), ids, found, True)
    assert kept["seen"].tolist() == [1, 1]
    np.testing.assert_allclose(kept["loss"], [0.2, 0.7], rtol=1e-6)
    np.testing.assert_allclose(kept["margin"], [1, 4 / 3], rtol=1e-6)
    # One copy is wrong, so that the answer is, by which it is predicted.
    assert kept["first_learnt"].tolist() == [1, 0]
    assert kept["predicted"].tolist() == [1, 1] and kept["instead"][1] == 1


def take_step(copies=(0, 0, 1, 0), **changes):
    """Take one step of a linear model with a batch that holds an example twice."""
    options = TINY | LINEAR | {"track_examples": True, "batch_size": 4} | changes
    setup = make_setup(options)
    state = setup.phases[0].create(setup.numbers, {})
    ids = np.array([3, 8, 3, 50], np.int32)
    batch = {"ids": ids, "copies": np.array(copies, np.int32)}
    batch |= {"labels": setup.dataset.train.labels[ids]}
    batch |= {"images": setup.dataset.train.read(ids)}
    step = jax.jit(steps.train_step, static_argnums=0)
    state, sums, _ = step(setup.phases[0].structure, state, batch, setup.numbers)
    assert set(sums) == set(steps.create_train_sums())
    return {name: np.asarray(x) for name, x in state.examples.items()}


@pytest.mark.parametrize(
    "changes",
    [{"accumulate_steps": 2}, {"augment_repeats": 2}, {"sam_rho": 0.05}],
    ids=lambda changes: next(iter(changes)),
)
def test_pieces_repeats_and_sharpness_keep_the_same(changes):
    plain, other = take_step(), take_step(**changes)
    assert plain["seen"].nonzero()[0].tolist() == [3, 8, 50]
    for name, wanted in plain.items():
        np.testing.assert_allclose(other[name], wanted, rtol=1e-5, err_msg=name)


def test_a_step_joins_copies_that_are_varied_differently():
    one, other = (take_step(x, brightness=0.9) for x in ((0, 0, 1, 0), (1, 0, 0, 0)))
    for name, wanted in one.items():
        np.testing.assert_allclose(other[name], wanted, rtol=1e-5, err_msg=name)


def test_the_losses_are_those_of_training(tracked):
    directory, _ = tracked
    logged = [x["loss"] for x in read_lines(directory) if "example_ids_hash" in x]
    rows = read_table(directory)
    assert len(logged) == len(rows) * 3 // TINY["batch_size"]
    total = sum(float(row["mean_loss"]) * int(row["seen"]) for row in rows)
    np.testing.assert_allclose(total, sum(logged) * TINY["batch_size"], rtol=1e-5)
    assert [int(row["rank"]) for row in rows] == list(range(1, len(rows) + 1))
    suspicion = [float(row["suspicion"]) for row in rows]
    assert suspicion == sorted(suspicion, reverse=True)


def test_suspicion_is_what_an_example_lacks_of_its_class():
    kept = {"seen": np.array([2, 2, 2, 0, 1]), "margin": np.zeros(5, np.float32)}
    kept["margin"][:] = [2, 6, -4, 0, 9]
    labels = np.array([0, 0, 0, 0, 1], np.int32)
    found = suspects.compute_suspicion(kept, labels)
    assert found.tolist() == [0, -2, 3, -np.inf, 0]


def test_tracking_changes_no_weight(tracked, trained):
    """Across programs, the house's bound for twenty steps."""
    assert not (trained / "examples.csv").exists()
    one, other = (
        [line["loss"] for line in read_lines(path) if "loss" in line]
        for path in (tracked[0], trained)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_a_stopped_and_a_streamed_run_keep_the_same_bits(tracked, tmp_path, no_pauses):
    directory, result = tracked
    with pytest.raises(Interrupted):
        train_run(tmp_path, Stopper(STEPS + 2), resident="never", **TRACKED)
    found = train_run(tmp_path, resident="never", **TRACKED)
    assert found["state_sha256"] == result["state_sha256"]
    texts = [(path / "examples.csv").read_bytes() for path in (directory, tmp_path)]
    assert texts[0] == texts[1]


def test_devices_keep_the_same(tmp_path):
    tables = []
    for mesh in ("data:1", "data:2", "data:1,model:2"):
        train_run(tmp_path / mesh, mesh=mesh, **TRACKED | LINEAR | {"epochs": 2})
        rows = read_table(tmp_path / mesh)
        tables.append({row["id"]: row for row in rows})
    one, *others = tables
    for other in others:
        assert one.keys() == other.keys()
        for name, row in one.items():
            for column in ("mean_loss", "mean_margin"):
                pair = float(row[column]), float(other[name][column])
                np.testing.assert_allclose(*pair, rtol=1e-3, atol=1e-4)
            for column in ("seen", "first_learnt", "forgotten", "label"):
                assert row[column] == other[name][column]


def plant(path, share=0.05):
    """Write the digits as arrays, some labels changed; returns the names of these."""
    setup = make_setup({"dataset": "digits", "validation_fraction": 0.0})
    random = np.random.default_rng(0)
    train, test = setup.dataset.train, setup.dataset.test
    labels = train.labels.copy()
    wrong = random.permutation(len(train))[: round(share * len(train))]
    labels[wrong] = (labels[wrong] + random.integers(1, 10, len(wrong))) % 10
    arrays = {"x_train": train.read_all(), "y_train": labels}
    np.savez(path, **arrays, x_test=test.read_all(), y_test=test.labels)
    return {f"train/{i}" for i in wrong}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Return a run on wrong labels: its directory, the data, the names of the wrong."""
    directory = tmp_path_factory.mktemp("planted")
    wrong = plant(directory / "digits.npz")
    train_run(
        directory / "run",
        dataset=f"npz:{directory / 'digits.npz'}",
        track_examples=True,
        train_examples=0,
        validation_fraction=0.0,
        epochs=8,
        checkpoint_every_epochs=8.0,
        **LINEAR,
    )
    return directory, wrong


def test_planted_labels_come_first(planted):
    directory, wrong = planted
    first = [row["id"] for row in read_table(directory / "run")][: len(wrong)]
    assert len(wrong & set(first)) >= 0.9 * len(wrong)
    rows = {row["id"]: row for row in read_table(directory / "run")}
    right = make_setup({"dataset": "digits", "validation_fraction": 0.0}).dataset
    named = [
        rows[name]["instead"] == str(right.train.labels[int(name[6:])])
        for name in wrong
    ]
    assert np.mean(named) > 0.9


@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_mixed_images_are_refused(name):
    mixed = {name: 0.2, "track_examples": True}
    words = "only for commands with no --mixup_alpha with no --cutmix_alpha"
    with pytest.raises(UserError, match=words):
        make_config(mixed).check_read({"track_examples": True}, "train")
    # Where a preset tracks and the command line mixes.
    with pytest.raises(UserError, match="mix two; leave it out"):
        make_setup(mixed)


def test_a_sweep_and_several_labels_are_refused():
    with pytest.raises(UserError, match="--mode=train"):
        make_config({"track_examples": True}).check_read({"track_examples": 1}, "sweep")
    with pytest.raises(UserError, match="these may have several"):
        make_setup({"track_examples": True, "task": "multilabel"})


def test_changed_data_are_refused(planted, tmp_path):
    shutil.copytree(planted[0], tmp_path / "copy")
    run, data = tmp_path / "copy" / "run", tmp_path / "copy" / "digits.npz"
    (run / "result.json").unlink()
    plant(data, share=0.1)
    stored = json.loads((run / "config.json").read_text())
    with pytest.raises(UserError, match="knows an image by its place"):
        train_run(
            run, **stored | {"dataset": f"npz:{data}", "allow_changed_data": True}
        )


def draw(runs, folder, **changes):
    """Draw pictures of runs, of all kinds or some; returns what was drawn."""
    stored = workdir.read_config(runs[0])
    few = {"pictures": ("suspects",), "output": str(folder)} | changes
    return visualize.visualize(make_config(stored, few), runs, Terminal())


def test_the_sheet_shows_the_first_of_the_table(tracked, tmp_path, monkeypatch):
    shown = []

    def note(images, texts):
        shown.append((images, texts))
        return sheet(images, texts)

    sheet = mistakes.draw_sheet
    monkeypatch.setattr(mistakes, "draw_sheet", note)
    ((picture,),) = (x.pictures for x in draw([tracked[0]], tmp_path))
    assert picture.path.name == "suspects.png" and picture.path.stat().st_size > 1000
    ((images, texts),) = shown
    rows, train = read_table(tracked[0])[: len(texts)], make_setup(TINY).dataset.train
    places = [list(train.names).index(row["id"]) for row in rows]
    np.testing.assert_array_equal(images, train.read(np.array(places)))
    assert [text.splitlines()[-1] for text in texts] == [row["id"] for row in rows]
    firsts = [text.split()[0] for text in texts]
    assert firsts == [row["label"] for row in rows]


def test_a_sheet_that_cannot_be_drawn_is_refused(tracked, trained, tmp_path):
    with pytest.raises(UserError, match="train it with --track_examples=true"):
        draw([trained], tmp_path)
    with pytest.raises(UserError, match="no training image of digits"):
        draw([tracked[0]], tmp_path, train_examples=10)
    assert "suspects" not in visualize._choose_names(("all",), [trained])
    assert "suspects" in visualize._choose_names(("all",), [tracked[0]])


def test_the_page_does_what_it_shows(tmp_path, monkeypatch, capsys):
    """It takes some seconds: two runs and a sheet, from their commands on."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "suspects.md").read_text(encoding="utf-8")
    commands = [x for x in list_commands(page) if "benchmarks/suspects.py" not in x]
    assert len(commands) == 4
    for words in commands:
        if words[:2] != ["python", "main.py"]:
            subprocess.run(" ".join(words), shell=True, check=True)
            continue
        small = [] if "--mode=visualize" in words else ["--widths=4,4", "--epochs=2"]
        assert run_main(*words[2:], *small) == 0
    told = capsys.readouterr().out
    assert "dropped   3 of 1293 training images" in told
    assert (tmp_path / "runs/tracked/pictures/suspects.png").exists()
