"""Runs that draw examples by class: the same bits wherever and however they train."""

import functools

import jax
import numpy as np
import pytest
from fixtures_runs import make_setup, read_lines, train_run
from test_resume import Stopper

from cnn.augment import pipeline
from cnn.augment.options import AugmentOptions
from cnn.config import make_config
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.sweep import choose
from cnn.training import report

SAMPLED = {"sampling": "balanced", "flip_probability": 0.5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a run that was never stopped: its directory and its result."""
    directory = tmp_path_factory.mktemp("sampled") / "run"
    return directory, train_run(directory, **SAMPLED)


def test_a_stopped_run_that_streams_goes_on_to_the_same_bits(
    whole, tmp_path, no_pauses
):
    with pytest.raises(Interrupted):
        train_run(tmp_path, Stopper(7), resident="never", **SAMPLED)
    result = train_run(tmp_path, resident="never", **SAMPLED)
    assert result["state_sha256"] == whole[1]["state_sha256"]
    assert read_lines(tmp_path) == read_lines(whole[0])


def test_other_examples_are_seen_than_by_permutation(whole, trained):
    drawn, permuted = (
        {x["example_ids_hash"] for x in read_lines(y) if "example_ids_hash" in x}
        for y in (whole[0], trained)
    )
    assert len(drawn) == len(permuted) == 15 and not drawn & permuted


@pytest.mark.parametrize("name", ["map", "vmap"])
def test_stacked_trials_see_what_the_loop_does(name):
    small = {"model": "logistic_regression", "train_examples": 100, "batch_size": 20}
    plain = {"dropout_rate": 0.0, "ema_decay": 0.0, "weight_decay": 0.0}
    setup = make_setup(small, SAMPLED, plain)
    configs = [setup.config.change({"seed": seed}) for seed in (0, 3)]
    losses = []
    for executor in ("loop", name):
        runs = choose.make_executor(executor, setup, Stop(), 2)
        begun, results = runs.create(configs), []
        for number in range(2):
            begun, ended = runs.train_epoch(begun, configs, number, [True, True])
            results.append([one.losses for one in ended])
        losses.append(results)
    np.testing.assert_allclose(losses[1], losses[0], 1e-5)
    assert np.any(losses[0][0][0] != losses[0][0][1])


def test_what_is_drawn_again_is_varied_otherwise():
    options, epoch = AugmentOptions(noise_std=0.1), np.int32(0)
    numbers = make_config({"noise_std": 0.1}).make_numbers()
    batch = {"images": np.full((3, 8, 8, 1), 128, np.uint8), "ids": np.int32([5] * 3)}
    vary = functools.partial(pipeline.augment_images, options, numbers, epoch)
    first, again, last = vary(batch | {"copies": np.int32([0, 1, 1])})
    np.testing.assert_array_equal(first, vary(batch)[0])
    np.testing.assert_array_equal(again, last)
    assert np.any(first != again)


def test_repeats_of_what_is_drawn_again_are_all_different():
    batch = {"ids": np.int32([5, 5]), "copies": np.int32([0, 1])}
    repeat = functools.partial(pipeline.repeat_examples, AugmentOptions())
    assert repeat(batch) is batch
    options = AugmentOptions(augment_repeats=3)
    found = jax.device_get(pipeline.repeat_examples(options, batch))
    assert sorted(found["copies"]) == list(range(6))
    plain = pipeline.repeat_examples(options, {"ids": batch["ids"][:1]})
    np.testing.assert_array_equal(found["copies"][::2], plain["copies"])


@pytest.mark.parametrize("batch_size", [16, 60])
def test_what_an_epoch_sees_is_said(batch_size):
    options = {"train_examples": 64, "batch_size": batch_size, "log_every_steps": 0}
    (note,) = report.list_notes(make_setup(options, {"sampling": "sqrt"}))
    count = 64 // batch_size * batch_size
    assert f"draws {count} times from 64 training images, with replacement" in note
