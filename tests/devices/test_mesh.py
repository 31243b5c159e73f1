import json
import shutil

import jax
import numpy as np
import pytest
from fixtures_runs import (
    TINY,
    make_flags,
    make_setup,
    read_lines,
    run_main,
    start_main,
    train_run,
)
from jax.sharding import PartitionSpec

from cnn.errors import UserError
from cnn.runtime import devices
from cnn.runtime.interrupt import Stop
from cnn.runtime.options import ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.training import progress
from cnn.training.epoch import Pace

WIDE = TINY | {"widths": (16, 32), "epochs": 4, "train_examples": 180}
WIDE |= {"batch_size": 32, "optimizer": "adamw", "learning_rate": 0.01}


def read_losses(directory):
    return [line["loss"] for line in read_lines(directory) if "gradient_norm" in line]


def test_all_devices_by_default():
    assert dict(devices.make_mesh().shape) == {"data": 2}
    assert dict(devices.make_mesh("data:1").shape) == {"data": 1}
    assert dict(devices.make_mesh("data:1,model:2").shape) == {"data": 1, "model": 2}


@pytest.mark.parametrize(
    "axes", ["8", "data", "data:0", "model:2", "data:2,model", "data:2;model:2"]
)
def test_malformed_mesh_is_refused(axes):
    with pytest.raises(UserError, match=f"--mesh={axes}: write data:N or data:N,mod"):
        devices.make_mesh(axes)


@pytest.mark.parametrize("axes, count", [("data:8", 8), ("data:2,model:2", 4)])
def test_more_devices_than_exist(tmp_path, capfd, axes, count):
    assert run_main(f"--mesh={axes}", f"--workdir={tmp_path / 'run'}") == 2
    told = capfd.readouterr().err
    assert f"error: --mesh={axes} asks for {count} devices and there are 2 x" in told
    assert f"--cpu_devices={count}" in told
    assert not (tmp_path / "run").exists()


def test_leaves_are_split_along_the_largest_axis_that_divides():
    mesh = devices.make_mesh("data:1,model:2")
    shapes = {"kernel": (3, 3, 16, 30), "odd": (35, 35), "small": (2, 100), "step": ()}
    tree = {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in shapes.items()}
    found = {n: s.spec for n, s in devices.split_leaves(mesh, tree).items()}
    whole = PartitionSpec()
    kernel = PartitionSpec(None, None, None, "model")
    assert found == {"kernel": kernel, "odd": whole, "small": whole, "step": whole}


def test_batch_that_only_data_divides_is_repeated_along_model():
    mesh = devices.make_mesh("data:1,model:2")
    assert devices.split_batches(mesh, 4).spec == PartitionSpec(None, ("data", "model"))
    assert devices.split_batches(mesh, 3).spec == PartitionSpec(None, "data")


def test_pieces_of_a_batch_must_divide():
    mesh = devices.make_mesh()
    devices.check_batch_size(12, mesh, 3)
    with pytest.raises(UserError) as caught:
        devices.check_batch_size(12, mesh, 4)
    assert "--accumulate_steps=4 makes pieces of 3 examples" in str(caught.value)
    assert "a --batch_size that 8 divides" in str(caught.value)


def test_state_stays_split_while_it_trains(tmp_path):
    options = WIDE, {"mesh": "data:1,model:2"}
    setup = make_setup(*options)
    run = progress.begin(setup)
    profiler = Profiler(ProfileOptions(), 0)
    next(progress.take_epoch(setup, run, Stop(), Pace(), profiler, 1))
    kernels = [run.state.params["stage2_conv"], run.state.ema["params"]["stage2_conv"]]
    moments = [x for x in jax.tree.leaves(run.state.opt_state) if x.ndim == 4]
    split = [x for x in moments if x.size >= devices.LEAST_SPLIT]
    assert len(split) == 2
    for leaf in [kernel["kernel"] for kernel in kernels] + split:
        assert leaf.shape == (3, 3, 16, 32)
        assert {x.data.shape for x in leaf.addressable_shards} == {(3, 3, 16, 16)}
    assert run.state.params["head"]["bias"].sharding.is_fully_replicated


def test_split_parameters_compute_the_same(tmp_path):
    """And go on from a checkpoint of a run whose parameters were whole."""
    whole = train_run(tmp_path / "whole", **WIDE, mesh="data:1")
    split = train_run(tmp_path / "split", **WIDE, mesh="data:1,model:2")
    losses = read_losses(tmp_path / "whole"), read_losses(tmp_path / "split")
    assert len(losses[0]) == 20
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert whole["test_loss"] == pytest.approx(split["test_loss"], abs=1e-4)
    again = train_run(tmp_path / "whole", **WIDE, mesh="data:1,model:2")
    assert again["state_sha256"] == whole["state_sha256"]


@pytest.mark.parametrize("mesh", ["data:1", "data:1,model:2"])
def test_evaluation_on_any_mesh(trained, tmp_path, mesh):
    directory = tmp_path / "run"
    shutil.copytree(trained, directory)
    arguments = "--mode=evaluate", f"--workdir={directory}", f"--mesh={mesh}"
    assert run_main(*arguments) == 0
    found = json.loads((directory / "evaluation.json").read_text())
    result = json.loads((directory / "result.json").read_text())
    assert found["correct"] == result["test_correct"]
    assert found["loss"] == pytest.approx(result["test_loss"], abs=1e-5)


@pytest.mark.slow
def test_any_mesh_gives_the_same_losses(tmp_path):
    losses = {}
    for mesh in ("data:1", "data:2", "data:4", "data:8", "data:4,model:2"):
        directory = tmp_path / mesh
        flags = make_flags(WIDE | {"mesh": mesh, "workdir": directory})
        process = start_main(*flags, devices=8)
        told = process.communicate(timeout=600)[1]
        assert process.returncode == 0, told
        losses[mesh] = read_losses(directory)
        count = json.loads((directory / "result.json").read_text())["test_count"]
        assert count == 360
    assert len(losses["data:1"]) == 20
    for found in losses.values():
        assert found == pytest.approx(losses["data:1"], abs=1e-5)
