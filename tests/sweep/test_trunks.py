"""Trials that differ in their length share a trunk, and end as if each were alone."""

import json

import pytest
from fixtures_runs import make_flags, run_main, train_run
from test_sweep import TINY, no_plots, read_table, run_sweep

from cnn import config as config_module
from cnn.runtime.interrupt import Interrupted
from cnn.sweep import batch as batch_module
from cnn.sweep import trunks
from cnn.sweep.trials import make_trial

pytestmark = pytest.mark.usefixtures("no_plots")
assert no_plots  # which is a fixture

DECAYS = {"schedule": "stable_then_decay", "decay_share": 0.4}
SPACE = "epochs=1,3,5,10"


@pytest.fixture
def trained(monkeypatch):
    """Return a list of the epochs that batches train, of how many trials each."""
    counted, train = [], batch_module.Batch._train_epoch

    def count(self):
        running = [one for one in self.progress if one.status == "running"]
        counted.extend([self.epoch + 1] * len(running))
        train(self)

    monkeypatch.setattr(batch_module.Batch, "_train_epoch", count)
    return counted


def train_alone(directory, row, **changes):
    names = [x for x in ("epochs", "learning_rate", "seed") if x in row]
    own = {x: json.loads(row[x]) for x in names}
    plain = {"dropout_rate": 0.0, "ema_decay": 0.0, "checkpoint_every_epochs": 1.0}
    return train_run(directory, **plain | TINY | DECAYS | changes | own)


def test_every_budget_is_the_run_alone(tmp_path, trained, capsys):
    run_sweep(tmp_path / "sweep", executor="loop", sweep=SPACE, **DECAYS)
    rows = read_table(tmp_path / "sweep")
    # Trunks of 0, 1, 3 and 6 epochs: the first one has none to share.
    assert len(trained) == 1 + (3 - 1) + (5 - 3) + 10
    said = " ".join(capsys.readouterr().out.split())
    assert "trunks 1 shared by trials that differ in their length: 15 epochs" in said
    assert "in place of 19" in said
    for row in rows:
        result = train_alone(tmp_path / row["trial"], row)
        assert result["state_sha256"] == row["state_sha256"], row["epochs"]
        assert str(result["test_accuracy"]) == row["test_accuracy"]
        assert int(row["trained_epochs"]) == int(row["epochs"])
        best = result["best_step"] // 5
        assert int(row["best_epoch"]) == best


def test_other_axes_and_decays_have_trunks_of_their_own(tmp_path, trained):
    space = "epochs=4,8; decay_share=0.25,0.5; learning_rate=0.1,1; seed=0:2"
    changes = {"executor": "map", "trials_at_once": 0, **DECAYS}
    changes.pop("decay_share")
    run_sweep(tmp_path / "shared", sweep=space, **changes)
    # For each of four: 8 epochs; from the trunk at 2, 3 and 4 two, one and four more.
    assert len(trained) == 4 * (8 + 2 + 1 + 4)
    rows = read_table(tmp_path / "shared")
    changes["trials_at_once"] = 1
    for number in (0, 7, 10):
        own = {x: rows[number][x] for x in ("epochs", "decay_share", "learning_rate")}
        own["seed"] = rows[number]["seed"]
        text = ";".join(f"{name}={x}" for name, x in own.items())
        run_sweep(tmp_path / str(number), sweep=text, **changes)
        (alone,) = read_table(tmp_path / str(number))
        assert float(alone["test_loss"]) == pytest.approx(
            float(rows[number]["test_loss"]), rel=1e-4
        )


def test_loop_shares_over_several_axes_with_the_bits_of_each(tmp_path, trained):
    space = "epochs=3,5; seed=0:2"
    changes = {"recompute_statistics": 2, "model": "simple_cnn", "widths": (4,)}
    changes |= {"downsampling": "max_pool", "head": "global_average"}
    run_sweep(tmp_path / "sweep", executor="loop", sweep=space, **DECAYS, **changes)
    assert len(trained) == 2 * (5 + 2)
    for row in read_table(tmp_path / "sweep")[:3]:
        result = train_alone(tmp_path / row["trial"], row, **changes)
        assert result["state_sha256"] == row["state_sha256"]


def test_a_trunk_that_ends_early_is_shared_by_nobody(tmp_path):
    changes = {"early_stop_epochs": 1, "learning_rate": 0.0, "epochs": 5}
    space = "epochs=3,5,10"
    run_sweep(tmp_path, executor="loop", sweep=space, **DECAYS, **changes)
    rows = read_table(tmp_path)
    assert [row["trained_epochs"] for row in rows] == ["1", "1", "1"]
    assert {row["stopped_early"] for row in rows} == {"true"}
    assert len({row["state_sha256"] for row in rows}) == 1


@pytest.mark.parametrize("executor", ["loop", "map"])
def test_stopped_anywhere_it_is_the_same_table(tmp_path, monkeypatch, executor):
    changes = {"sweep": SPACE, "executor": executor, "trials_at_once": 1, **DECAYS}
    run_sweep(tmp_path / "whole", **changes)
    train, left = batch_module.Batch._train_epoch, [0]

    def train_some(self):
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted(2)
        train(self)

    monkeypatch.setattr(batch_module.Batch, "_train_epoch", train_some)
    stops = 0
    for epochs in range(2, 40, 4):
        left[0] = epochs
        try:
            run_sweep(tmp_path / "stopped", **changes)
            break
        except Interrupted:
            stops += 1
    assert stops > 1
    assert read_table(tmp_path / "stopped") == read_table(tmp_path / "whole")


def test_a_sweep_grows_by_longer_ones(tmp_path):
    changes = {"executor": "loop", **DECAYS}
    run_sweep(tmp_path / "grown", sweep="epochs=3,5", **changes)
    run_sweep(tmp_path / "grown", sweep="epochs=3,5,8,10", **changes)
    run_sweep(tmp_path / "whole", sweep="epochs=3,5,8,10", **changes)
    assert read_table(tmp_path / "grown") == read_table(tmp_path / "whole")


def test_halving_and_other_schedules_share_nothing(tmp_path, capsys):
    flags = make_flags(TINY | DECAYS)
    sweep = ["--mode=sweep", f"--sweep={SPACE}", "--halving=2"]
    assert run_main(*flags, *sweep, f"--workdir={tmp_path}") == 2
    assert "take epochs out of --sweep" in capsys.readouterr().err
    for changes in ({"schedule": "cosine"}, DECAYS | {"lookahead_decay": 0.5}):
        preset = config_module.load_preset("digits")
        config = config_module.make_config(preset, TINY, {"ema_decay": 0.0}, changes)
        some = [make_trial(i, {"epochs": i + 5}, config) for i in range(3)]
        families = trunks.make_families(some, 5)
        assert [family.branches for family in families] == [(), (), ()]
        assert trunks.describe(families) == []
