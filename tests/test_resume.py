"""A run that was stopped, or killed, goes on to the bits of one that was not."""

import json
import shutil
import signal
import threading

import jax
import pytest
from fixtures_runs import TINY, read_lines, train_run

from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.training import epoch

STEPS_PER_EPOCH = TINY["train_examples"] // TINY["batch_size"]
LAST = TINY["epochs"] * STEPS_PER_EPOCH


class Stopper(Terminal):
    """A terminal at which somebody presses Ctrl-C when a step has been taken."""

    def __init__(self, step, number=signal.SIGINT):
        super().__init__()
        self.step, self.number = step, number

    def update_bar(self, step, *args):
        """Send the signal."""
        if step >= self.step:
            signal.raise_signal(self.number)


@pytest.fixture(scope="module")
def reference(trained):
    """Return the state's hash and the lines of the run that was never stopped."""
    result = json.loads((trained / "result.json").read_text())
    return result["state_sha256"], read_lines(trained)


def assert_same_run(directory, result, reference):
    assert (result["state_sha256"], read_lines(directory)) == reference
    assert sorted(path.name for path in directory.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.json",
        "dataset.json",
        "metrics.jsonl",
        "result.json",
    ]


@pytest.mark.parametrize("step", [1, STEPS_PER_EPOCH, 8])
def test_stopped_after_any_step_goes_on_to_the_same_bits(
    tmp_path, reference, no_pauses, step
):
    with pytest.raises(Interrupted) as stopped:
        train_run(tmp_path, Stopper(step))
    assert stopped.value.exit_code == 130
    saved = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert str(step) in saved and not (tmp_path / "result.json").exists()
    assert_same_run(tmp_path, train_run(tmp_path), reference)


def test_no_thread_that_reads_outlives_a_run_that_was_stopped(tmp_path, no_pauses):
    """Its error holds the frames that started one; the next collection may be anywhere.

    Waiting for it there, inside of `threading` itself, hung for ever.
    """
    with pytest.raises(Interrupted) as stopped:
        train_run(tmp_path, Stopper(1), resident="never")
    names = [thread.name for thread in threading.enumerate()]
    assert stopped.tb and not [name for name in names if name.startswith("chunks")]


@pytest.mark.slow
def test_stopped_after_every_step_goes_on_to_the_same_bits(
    tmp_path, reference, no_pauses
):
    for _ in range(LAST):
        with pytest.raises(Interrupted):
            train_run(tmp_path, Stopper(0, signal.SIGTERM))
    assert_same_run(tmp_path, train_run(tmp_path), reference)


@pytest.mark.parametrize("call", [1, 5])
def test_stopped_during_an_evaluation(tmp_path, reference, monkeypatch, call):
    evaluate, calls = epoch.compute_metrics, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGTERM)
        return evaluate(*args)

    monkeypatch.setattr(epoch, "compute_metrics", interrupted)
    with pytest.raises(Interrupted) as stopped:
        train_run(tmp_path)
    assert stopped.value.exit_code == 143
    assert_same_run(tmp_path, train_run(tmp_path), reference)


def test_streamed_images_give_the_same_bits(tmp_path, reference, no_pauses):
    with pytest.raises(Interrupted):
        train_run(tmp_path, Stopper(7), resident="never")
    # Where the images lie is no part of the run: it may change in between.
    train_run(shutil.copytree(tmp_path, tmp_path / "other"), resident="always")
    result = train_run(tmp_path, resident="never")
    assert (result["state_sha256"], read_lines(tmp_path)) == reference
    assert read_lines(tmp_path / "other") == reference[1]


@pytest.mark.slow
def test_size_of_chunks_does_not_matter(tmp_path, reference, monkeypatch):
    monkeypatch.setattr("cnn.data.chunks.CHUNK_BYTES", 2 * 20 * 64)
    lines = train_run(tmp_path) and read_lines(tmp_path)
    hashes = [line.get("example_ids_hash") for line in lines]
    assert hashes == [line.get("example_ids_hash") for line in reference[1]]


def test_another_seed_is_another_run(tmp_path, reference):
    result = train_run(tmp_path, seed=1)
    assert result["state_sha256"] != reference[0]
    assert read_lines(tmp_path)[0] != reference[1][0]


def test_a_run_that_has_ended_writes_its_result_again(tmp_path, reference, trained):
    directory = shutil.copytree(trained, tmp_path / "run")
    (directory / "result.json").unlink()
    assert_same_run(directory, train_run(directory), reference)


def test_every_step_is_logged_with_its_examples(reference):
    steps = [line for line in reference[1] if "example_ids_hash" in line]
    assert [line["step"] for line in steps] == list(range(1, LAST + 1))
    assert len({line["example_ids_hash"] for line in steps}) == LAST
    epochs = [line for line in reference[1] if "epoch" in line]
    assert [line["step"] for line in epochs] == list(
        range(0, LAST + 1, STEPS_PER_EPOCH)
    )
    assert all(list(line)[0] == "step" for line in reference[1])


def test_loss_of_an_epoch_is_the_mean_of_its_steps(reference):
    losses = [line["loss"] for line in reference[1] if "loss" in line]
    epochs = [line for line in reference[1] if line.get("epoch")]
    for number, line in enumerate(epochs):
        own = losses[number * STEPS_PER_EPOCH : (number + 1) * STEPS_PER_EPOCH]
        assert line["train_loss"] == pytest.approx(sum(own) / len(own), rel=1e-5)


def test_tests_run_on_two_devices():
    assert jax.device_count() == 2
