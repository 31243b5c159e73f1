"""Statistics of batch normalisation that are computed again after training."""

import dataclasses
import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import make_setup, run_main, train_run

from cnn.checkpoints import manifest
from cnn.config import Config
from cnn.data.order import draw_epoch
from cnn.errors import UserError
from cnn.models.layers import Layers
from cnn.ops import scaling
from cnn.runtime import devices
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.training import progress, statistics, steps
from cnn.training.state import get_variables
from cnn.training.steps import Structure
from cnn.training.trained import load_trained

GOLDEN = json.loads((Path(__file__).parent / "golden" / "batch_norm.json").read_text())[
    "update_bn"
]


class TwoConvolutions(nn.Module):
    """The network of tests/golden/make_batch_norm.py, and a mean for logits."""

    num_classes: int
    layers: Layers

    @nn.compact
    def __call__(self, x, train=False, dropout_rate=None, stochastic_depth_rate=None):
        for number, features in enumerate((3, 2), start=1):
            conv = self.layers.conv(features, 3, padding=0, use_bias=False)
            x = self.layers.norm(name=f"norm{number}")(conv(x), train)
            x = nn.relu(x)
        return jnp.mean(x, axis=(1, 2))


@pytest.mark.parametrize("calls", [[3], [1, 2]])
def test_they_equal_update_bn_of_pytorch(calls):
    model = TwoConvolutions(2, Layers(unbiased=True))
    images = np.array(GOLDEN["images"], np.uint8)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    # What was there before plays no part.
    stats = jax.tree.map(lambda x: x + 7, variables["batch_stats"])
    params = dict(variables["params"])
    for number, kernel in enumerate(GOLDEN["kernels"]):
        params[f"Conv_{number}"] = {"kernel": jnp.float32(kernel)}
    variables = {"params": params, "batch_stats": stats}
    structure = Structure(model, 2, (0.0,), (1.0,), steps_per_epoch=3)
    ids = np.arange(12, dtype=np.int32).reshape(3, 4)
    chunk = {"images": images, "labels": ids * 0, "ids": ids}
    mesh, numbers = devices.make_mesh("data:1"), Config().make_numbers()
    program = statistics.make_chunk_program(structure, mesh)
    means, first = jax.tree.map(jnp.zeros_like, stats), 0
    for count in calls:
        bounds = np.int32(first), np.int32(first + count)
        start = np.int32(0), np.int32(0)
        means = program(variables, means, chunk, numbers, bounds, start)
        first += count
    for number in (0, 1):
        found = means[f"norm{number + 1}"]
        for name in ("mean", "var"):
            golden = np.array(GOLDEN[f"{name}s"][number])
            worst = np.abs(golden).max()
            np.testing.assert_allclose(found[name], golden, rtol=0, atol=1e-6 * worst)


def renew(**choices):
    """Return a setup, a state before any step, and the same with new statistics."""
    base = {"train_examples": 100, "widths": (3,), "batch_size": 20}
    setup = make_setup(base, choices)
    begun = progress.begin(setup)
    before = jax.device_get(begun.state)
    return setup, before, statistics.renew(setup, 0, begun.state, Stop())


def test_they_are_means_over_the_batches_that_would_follow():
    setup, before, after = renew(recompute_statistics=7, crop_padding=2)
    variables, length = get_variables(before), setup.structure.steps_per_epoch
    images = np.asarray(setup.loaders["train"].resident["images"])
    ids = statistics._draw(setup, 0, 7, Stop())["ids"]
    assert len(np.unique(ids[:length])) == length * 20, "an epoch has each example once"
    found = [
        jax.jit(statistics.measure, static_argnums=0)(
            setup.structure,
            variables,
            {"images": images[own], "labels": own * 0, "ids": own},
            setup.numbers,
            jnp.int32(step),
        )
        for step, own in enumerate(ids)
    ]
    mean = jax.tree.map(lambda *x: np.mean(np.float64(x), axis=0), *found)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        after.batch_stats,
        mean,
    )
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)


def test_a_batch_is_measured_as_training_normalises_it():
    setup, before, _ = renew(recompute_statistics=1)
    ids = statistics._draw(setup, 0, 1, Stop())["ids"][0]
    images = np.asarray(setup.loaders["train"].resident["images"])[ids]
    batch = {"images": images, "labels": ids * 0, "ids": ids}
    after = steps.train_step(setup.structure, before, batch, setup.numbers)[0]
    found = statistics.measure(
        setup.structure, get_variables(before), batch, setup.numbers, jnp.int32(0)
    )
    jax.tree.map(
        lambda old, new, own: np.testing.assert_allclose(
            new, 0.9 * old + 0.1 * own, rtol=1e-5, atol=1e-6
        ),
        before.batch_stats,
        after.batch_stats,
        found,
    )


def test_of_another_size_they_are_of_images_as_evaluation_sees_them():
    options = {"image_size": 8, "eval_image_size": 12, "head": "global_average"}
    options |= {"flip_probability": 1.0, "recompute_statistics": 2, "batch_size": 4}
    setup = make_setup({"dataset": "digits", "train_examples": 40}, options)
    structure = setup.phases[0].structure
    variables = get_variables(progress.begin(setup).state)
    found = statistics.compute(setup, structure, variables, 0, Stop())
    images = setup.dataset.train.refit(setup.config.data.for_evaluation())
    ids = draw_epoch(0, 0, images.labels, 4)["ids"][:2]
    assert images.shape == (12, 12, 1)
    model = statistics._forget(structure.model)
    each = []
    for batch in ids:
        pixels = scaling.scale_images(
            jnp.asarray(images.read(batch)), structure.mean, structure.std
        )
        _, updated = model.apply(variables, pixels, train=True, mutable=["batch_stats"])
        each.append(updated["batch_stats"])
    wanted = jax.tree.map(lambda *x: sum(x) / 2, *each)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-6), found, wanted
    )


def test_averaged_weights_have_their_own():
    _, before, after = renew(recompute_statistics=2, ema_decay=0.9)
    same = jax.tree.map(np.array_equal, before.batch_stats, after.batch_stats)
    assert all(jax.tree.leaves(same))
    same = jax.tree.map(np.array_equal, before.ema, after.ema)
    assert not any(jax.tree.leaves(same["batch_stats"]))
    assert all(jax.tree.leaves(same["params"]))


def test_frozen_statistics_stay():
    _, before, after = renew(
        recompute_statistics=2, freeze_through="stage1", widths=(3, 4)
    )
    same = jax.tree.map(np.array_equal, before.batch_stats, after.batch_stats)
    frozen = {name: all(x.values()) for name, x in same.items()}
    assert frozen == {name: name.startswith("stage1") for name in frozen}
    assert set(frozen.values()) == {True, False}


def test_a_run_that_ends_while_all_are_frozen_keeps_them(tmp_path):
    """Early stopping ends it in its first phase, which computes on features."""
    options = {"train_only": ("head",), "unfreeze": ("stage1:3",), "epochs": 4}
    options |= {"early_stop_epochs": 1, "learning_rate": 0.0, "dropout_rate": 0.0}
    options |= {"recompute_statistics": 2, "cache_features": "always"}
    directory = tmp_path / "run"
    result = train_run(directory, **options)
    assert result["stopped_early"] and result["epochs"] < 3
    found = load_trained(directory, str(result["steps"])).variables["batch_stats"]
    before = load_trained(directory, "best").variables["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, found, before)


def test_frozen_everywhere_is_refused():
    with pytest.raises(
        UserError, match="--recompute_statistics=2 would have no effect"
    ):
        make_setup({"recompute_statistics": 2, "freeze_statistics": True})


def test_a_signal_ends_the_drawing_of_many_batches(monkeypatch):
    setup, before, _ = renew(recompute_statistics=1)
    train = dataclasses.replace(setup.config.train, recompute_statistics=10**6)
    config = dataclasses.replace(setup.config, train=train)
    drawn, stop = [], Stop()

    def draw(*args):
        drawn.append(args)
        stop.signal = 15
        return draw_epoch(*args)

    monkeypatch.setattr(statistics, "draw_epoch", draw)
    with pytest.raises(Interrupted):
        statistics.renew(dataclasses.replace(setup, config=config), 0, before, stop)
    assert len(drawn) == 1


def test_they_are_in_the_checkpoint_and_a_stopped_run_has_the_same(
    tmp_path, monkeypatch
):
    options = {"recompute_statistics": 6, "epochs": 2, "ema_decay": 0.0}
    whole = train_run(tmp_path / "whole", **options)
    plain = train_run(tmp_path / "plain", **options | {"recompute_statistics": 0})
    assert whole["state_sha256"] != plain["state_sha256"]
    compute = statistics.compute

    def stop_once(*args):
        compute(*args)
        monkeypatch.setattr(statistics, "compute", compute)
        raise Interrupted(15)

    monkeypatch.setattr(statistics, "compute", stop_once)
    with pytest.raises(Interrupted):
        train_run(tmp_path / "stopped", **options)
    step, _ = manifest.find_newest(tmp_path / "stopped" / "checkpoints")
    assert int(step.name) == whole["steps"]
    again = train_run(tmp_path / "stopped", **options)
    assert again["state_sha256"] == whole["state_sha256"]
    old, new = (load_trained(tmp_path / x).variables for x in ("plain", "whole"))
    jax.tree.map(np.testing.assert_array_equal, old["params"], new["params"])
    same = jax.tree.map(np.array_equal, old["batch_stats"], new["batch_stats"])
    assert not any(jax.tree.leaves(same))


@pytest.mark.parametrize("executor", ["loop", "map"])
def test_trials_of_a_sweep_have_them(tmp_path, executor):
    options = ["--widths=3", "--train_examples=100", "--epochs=1", "--batch_size=20"]
    options += ["--recompute_statistics=3"]
    sweep = f"--workdir={tmp_path / 'sweep'}", f"--executor={executor}"
    space = "--sweep=learning_rate=0.01,0.05"
    assert run_main("--mode=sweep", space, *options, *sweep) == 0
    solo = f"--workdir={tmp_path / 'solo'}"
    assert run_main("--learning_rate=0.05", *options, solo) == 0
    rows = (tmp_path / "sweep" / "sweep" / "trials.jsonl").read_text().splitlines()
    rows = [json.loads(row) for row in rows]
    row = next(x for x in rows if x["options"]["learning_rate"] == 0.05)
    result = json.loads((tmp_path / "solo" / "result.json").read_text())
    assert row["test_loss"] == pytest.approx(result["test_loss"], rel=1e-5)
    assert row["validation_accuracy"] == result["best_validation"]
    if executor == "loop":
        assert row["state_sha256"] == result["state_sha256"]


def test_a_model_without_batch_normalisation_is_refused(capsys, tmp_path):
    where = f"--workdir={tmp_path / 'run'}"
    assert run_main("--model=mlp", "--recompute_statistics=3", where) == 2
    assert "--recompute_statistics=3 would have no effect" in capsys.readouterr().err
