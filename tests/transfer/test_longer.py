"""Training for longer: a new run with the weights and optimizer's state of another."""

import shutil

import jax
import numpy as np
import pytest
from fixtures_runs import TINY, run_main, train_run
from fixtures_transfer import plant

from cnn import config as config_module
from cnn import train
from cnn.checkpoints import checkpoint, manifest
from cnn.errors import UserError
from cnn.models.variables import flatten_paths
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop
from cnn.runtime.terminal import Terminal
from cnn.sweep import programs
from cnn.training import progress
from cnn.training.state import to_items

# One batch an epoch, so that the order of its images changes sums by rounding alone.
WHOLE = {
    "model": "mlp",
    "mlp_widths": (16,),
    "train_examples": 64,
    "batch_size": 64,
    "validation_fraction": 0.0,
    "dropout_rate": 0.0,
    "ema_decay": 0.0,
    "schedule": "constant",
    "optimizer": "adam",
    "learning_rate": 0.01,
    "momentum": 0.9,
    "checkpoint_every_epochs": 1.0,
    "log_every_steps": 0,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = tmp_path_factory.mktemp("longer") / "source"
    train_run(directory, **WHOLE, epochs=3)
    return directory


def begin(source, **changes):
    """Begin a run with the source's state; returns its trees by path, and its setup."""
    options = WHOLE | {"init_from": str(source), "keep_optimizer": True} | changes
    preset = config_module.load_preset("digits")
    config = config_module.make_config(preset, TINY, options)
    setup = train.make_setup(config, {}, Terminal(), Stop())
    started = progress.begin(setup)
    return flatten_paths(to_items(started.state, started.sums))


def read(run):
    newest, _ = manifest.find_newest(run / "checkpoints")
    everywhere = devices.replicated(devices.make_mesh())
    names = [path.name for path in newest.iterdir()]
    items = [x for x in ("weights", "training", "average") if x in names]
    found = {x: checkpoint.read_item(newest, x, everywhere) for x in items}
    return flatten_paths(found)


def compare(found, wanted, prefix):
    paths = {path for path in wanted if path.startswith(prefix)}
    assert paths and paths == {path for path in found if path.startswith(prefix)}
    for path in paths:
        np.testing.assert_array_equal(found[path], wanted[path], err_msg=path)


def test_the_state_is_the_sources_to_the_bit(source):
    found, wanted = begin(source), read(source)
    compare(found, wanted, "weights/")
    compare(found, wanted, "training/opt_state/")
    assert found["training/step"] == 0 and wanted["training/step"] == 3
    state = {p: x for p, x in found.items() if p.startswith("training/opt_state/")}
    assert [int(x) for path, x in state.items() if path.endswith("/count")] == [3]
    fresh = begin(source, keep_optimizer=False)
    compare(fresh, wanted, "weights/")
    assert not any(np.any(x) for path, x in fresh.items() if "/opt_state/" in path)


def test_two_parts_are_the_whole(source, tmp_path):
    def follow(name, **changes):
        train_run(tmp_path / name, **WHOLE | changes)
        return read(tmp_path / name)

    whole = follow("whole", epochs=6)
    start = {"init_from": str(source), "epochs": 3}
    kept = follow("kept", **start, keep_optimizer=True)
    fresh = follow("fresh", **start)
    path = "weights/params/dense1/kernel"
    np.testing.assert_allclose(kept[path], whole[path], rtol=1e-4, atol=1e-6)
    assert np.max(np.abs(fresh[path] - whole[path])) > 1e-3


def test_averages_are_taken_beside_the_weights_that_were_stepped(tmp_path):
    source = tmp_path / "source"
    train_run(source, **WHOLE | {"ema_decay": 0.9, "model": "simple_cnn"}, epochs=2)
    wanted, changes = read(source), {"model": "simple_cnn"}
    found = begin(source, **changes, ema_decay=0.5)
    compare(found, wanted, "average/")
    compare(found, wanted, "weights/")
    found = begin(source, **changes)
    compare(found, wanted, "weights/")
    assert not any(path.startswith("average/") for path in found)
    found = begin(source, **changes, lookahead_decay=0.5, lookahead_every_steps=1)
    for path in [path for path in found if path.startswith("average/")]:
        weights = found[path.replace("average/", "weights/", 1)]
        np.testing.assert_array_equal(found[path], weights)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"optimizer": "adamw"}, "trained with --optimizer=adam, not adamw"),
        ({"train_only": ("head",)}, "for other leaves (4 differ, the first is"),
        ({"init_reset": ("head",)}, "params/head/bias is reset"),
        ({"classes": (0, 1)}, "params/head/bias is reset"),
        ({"init_skip": ("head",), "init_reset": ("head",)}, "is reset"),
    ],
    ids=str,
)
def test_what_does_not_go_on_is_refused(source, changes, words):
    with pytest.raises(UserError) as refused:
        begin(source, **changes)
    assert words in str(refused.value)


def test_a_source_that_has_moved_is_known_by_its_stepped_weights(tmp_path):
    source, run = tmp_path / "source", tmp_path / "run"
    options = WHOLE | {"ema_decay": 0.9, "epochs": 2}
    train_run(source, **options)
    more = options | {"keep_optimizer": True, "init_from": str(source)}
    wanted = train_run(run, **more)["state_sha256"]
    source.rename(tmp_path / "moved")
    (run / "result.json").unlink()
    shutil.rmtree(
        run / "checkpoints" / str(manifest.list_steps(run / "checkpoints")[-1])
    )
    more["init_from"] = str(tmp_path / "moved")
    assert train_run(run, **more)["state_sha256"] == wanted


def test_sources_without_a_state_are_refused(source, tmp_path):
    bare = plant(source, tmp_path / "bare")
    with pytest.raises(UserError, match="has the optimizer's state for other leaves"):
        begin(bare)
    assert run_main("--mode=export", f"--workdir={bare}") == 0
    with pytest.raises(UserError, match="is a file of weights alone"):
        begin(bare / "model.safetensors", mean=(0.5,), std=(0.5,))


def test_momentum_that_is_there_or_not_is_refused(tmp_path):
    train_run(tmp_path, **WHOLE | {"optimizer": "sgd"}, epochs=1)
    begin(tmp_path, optimizer="sgd", momentum=0.5)
    with pytest.raises(UserError, match="--momentum be 0 in both or in neither"):
        begin(tmp_path, optimizer="sgd", momentum=0.0)


def test_another_length_names_the_way(source):
    preset = config_module.load_preset("digits")
    for changes, is_named in ({"epochs": 9}, True), ({"epochs": 3, "seed": 2}, False):
        config = config_module.make_config(preset, TINY, WHOLE, changes)
        with pytest.raises(UserError) as refused:
            train.train(config, source, Terminal())
        way = f"--init_from={source} --keep_optimizer"
        assert (way in str(refused.value)) == is_named


def test_trials_of_a_sweep_start_from_the_state(source):
    options = WHOLE | {"init_from": str(source), "keep_optimizer": True}
    preset = config_module.load_preset("digits")
    config = config_module.make_config(preset, TINY, options)
    setup = train.make_setup(config, {}, Terminal(), Stop())
    mesh = programs.make_trials_mesh(jax.devices()[:1])
    structure = setup.phases[0].structure
    create = programs.make_create_trials(structure, setup.image_shape, "vmap", mesh)
    numbers = jax.tree.map(lambda x: np.stack([x, x]), setup.numbers)
    state = create(setup.plan.taken, numbers)
    found = {"training": {"opt_state": jax.tree.map(lambda x: x[1], state.opt_state)}}
    compare(flatten_paths(found), read(source), "training/opt_state/")
