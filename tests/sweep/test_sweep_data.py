"""A table never mixes trials that saw other data, or started from other weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures_runs import train_run

from cnn import config as config_module
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.sweep import sweep
from cnn.sweep.batch import Batch

OPTIONS = {
    "model": "mlp",
    "mlp_widths": (4,),
    "batch_size": 8,
    "epochs": 1,
    "validation_fraction": 0.25,
    "executor": "loop",
    "sweep": "learning_rate=0.01,0.1; train_examples=16,24",
}


def save_archive(path, seed=0):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (48, 4, 4), np.uint8)
    labels = np.arange(48) % 3
    parts = {"x_train": pixels, "y_train": labels, "x_test": pixels, "y_test": labels}
    np.savez(path, **parts)
    return f"npz:{path}"


def run_sweep(directory, **changes):
    preset = config_module.load_preset("digits")
    config = config_module.make_config(preset, OPTIONS, changes)
    return sweep.sweep(config, Path(directory), Terminal())


def count_trials(directory):
    return len((directory / "sweep/trials.csv").read_text().splitlines()) - 1


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """Return the directory of a sweep, and of its archive; not to be changed."""
    home = tmp_path_factory.mktemp("sweep")
    run_sweep(home / "run", dataset=save_archive(home / "a.npz"))
    return home


@pytest.fixture
def home(ended, tmp_path):
    return shutil.copytree(ended, tmp_path / "home")


def test_changed_data_are_refused(home, ended, monkeypatch):
    run_sweep(home / "run", dataset=f"npz:{ended}/a.npz")  # the same, once more
    save_archive(home / "b.npz", seed=1)
    monkeypatch.setattr(Batch, "advance", None)
    shutil.copy(home / "a.npz", home / "moved.npz")
    run_sweep(home / "run", dataset=f"npz:{home}/moved.npz")
    before = (home / "run/sweep/trials.jsonl").read_bytes()
    for allowed in (False, True):
        with pytest.raises(UserError, match="of other contents .*another --workdir"):
            run_sweep(
                home / "run",
                dataset=f"npz:{home}/b.npz",
                allow_changed_data=allowed,
            )
    assert (home / "run/sweep/trials.jsonl").read_bytes() == before


def test_each_choice_of_data_has_its_record(ended):
    stored = json.loads((ended / "run/sweep/dataset.json").read_text())
    assert set(stored) == {'{"train_examples": 16}', '{"train_examples": 24}'}
    counts = [record["parts"]["train"]["count"] for record in stored.values()]
    assert counts == [16, 24]
    best = json.loads((ended / "run/sweep/best/dataset.json").read_text())
    assert best["fingerprint"] in {x["fingerprint"] for x in stored.values()}
    result = json.loads((ended / "run/sweep/best/result.json").read_text())
    assert result["dataset_fingerprint"] == best["fingerprint"]


def test_trials_of_an_earlier_version_are_not_mixed(home, ended):
    (home / "run/sweep/dataset.json").unlink()
    shutil.copy(home / "a.npz", home / "moved.npz")
    with pytest.raises(UserError, match="did not note what it holds"):
        run_sweep(home / "run", dataset=f"npz:{home}/moved.npz")
    run_sweep(home / "run", dataset=f"npz:{ended}/a.npz")
    assert (home / "run/sweep/dataset.json").exists()


def test_trials_start_from_the_same_weights(tmp_path):
    data = {"dataset": save_archive(tmp_path / "a.npz")}
    options = {name: x for name, x in OPTIONS.items() if name not in ("sweep",)}
    options |= {"executor": "auto", "ema_decay": 0.0, "dropout_rate": 0.0, **data}
    for seed in range(2):
        changes = options | {"train_examples": 0, "seed": seed}
        train_run(tmp_path / f"source{seed}", **changes)
    changes = data | {"sweep": "learning_rate=0.01,0.1"}
    run_sweep(tmp_path / "run", init_from=f"{tmp_path}/source0", **changes)
    run_sweep(tmp_path / "run", init_from=f"{tmp_path}/source0/", **changes)
    with pytest.raises(UserError, match="source1 holds other weights"):
        run_sweep(tmp_path / "run", init_from=f"{tmp_path}/source1", **changes)
    shutil.rmtree(tmp_path / "source0")
    shutil.copytree(tmp_path / "source1", tmp_path / "source0")
    with pytest.raises(UserError, match="source0 holds other weights"):
        run_sweep(tmp_path / "run", init_from=f"{tmp_path}/source0", **changes)


def test_workers_of_a_study_share_the_record(tmp_path):
    pytest.importorskip("optuna")
    options = {"search": "optuna", "trials": 1, "sweep": "learning_rate=0.01,0.1"}
    options |= {"dataset": save_archive(tmp_path / "a.npz")}
    run_sweep(tmp_path / "run", worker="a", **options)
    stored = json.loads((tmp_path / "run/sweep/dataset.json").read_text())
    assert list(stored) == [""]
    save_archive(tmp_path / "a.npz", seed=1)
    with pytest.raises(UserError, match="of other contents"):
        run_sweep(tmp_path / "run", worker="b", **options | {"trials": 2})
