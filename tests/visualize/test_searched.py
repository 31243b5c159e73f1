"""Channels that never fire are found, and marked in the pictures."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.visualize import named_run
from cnn.visualize.compute.features import Stage
from cnn.visualize.compute.receptive_field import Field
from cnn.visualize.draw import features, kernels, maximisation, picture
from cnn.visualize.subject import Searched, Subject, spread

DEAD = 2


def compute(offsets, images):
    x = images + offsets.reshape(1, 1, 1, 3)
    return jnp.mean(x, axis=(1, 2)), {"linear": x, "relu": jax.nn.relu(x)}


def test_channels_that_no_image_excites_are_silent():
    images = np.arange(300).reshape(300, 1, 1, 1).repeat(3, axis=3)
    offsets = np.array([-10.0, -299, -298.5], np.float32)  # the last image excites one
    function = Partial(compute, offsets)
    run = SimpleNamespace(name="run", function=function, scale=jnp.float32)
    names = ("linear", "relu")
    stages = [Stage(name, (1, 1, 3), Field(), name == "relu") for name in names]
    searched = Searched(images)
    found = searched.find_silent(run, stages)
    np.testing.assert_array_equal(found["relu"], [False, True, False])
    np.testing.assert_array_equal(found["linear"], False)
    assert searched.find_peaks(run) is searched.find_peaks(run)


@pytest.fixture
def subject(trained, monkeypatch):
    """Return a run of 4 channels one of which weight decay has left dead."""
    plain = named_run.load_trained

    def load(directory, which):
        loaded = plain(directory, which)
        variables = jax.tree.map(np.array, loaded.variables)
        params = variables["params"]
        params["stage1_conv"]["kernel"][..., DEAD] *= 1e-3
        params["stage1_norm"]["scale"][DEAD] = 1e-3
        params["stage1_norm"]["bias"][DEAD] = -1
        return dataclasses.replace(loaded, variables=variables)

    monkeypatch.setattr(named_run, "load_trained", load)
    changes = {"picture_sample": 50, "picture_examples": (0, 1)}
    return Subject(make_config(workdir.read_config(trained), changes), [trained])


def draw(module, subject, folder, monkeypatch):
    """Draw without writing; returns (figure, caption) by the name of the file."""
    drawn = {}

    def save(figure, path, title, caption, **options):
        drawn[path.stem] = figure, caption
        return picture.Picture(path, title, caption)

    monkeypatch.setattr(picture, "save", save)
    with picture.use_style():
        if hasattr(module, "draw"):
            module.draw(subject, folder)
        else:
            module.draw_run(subject, subject.runs[0], folder)
    return drawn


def test_they_are_marked_in_features(subject, tmp_path, monkeypatch):
    figure, caption = draw(features, subject, tmp_path, monkeypatch)["features_stage1"]
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["image", "0", "1", f"never fires\n{DEAD}", "3"]
    assert "A channel that never fires passes at no place of 50 images." in caption


def test_no_image_is_shown_for_them_in_maximisation(subject, tmp_path, monkeypatch):
    figure, caption = draw(maximisation, subject, tmp_path, monkeypatch)["maximisation"]
    channels, classes = figure.axes
    assert [text.get_text() for text in channels.texts] == ["never\nfires"]
    assert channels.texts[0].get_position() == (DEAD + 0.5, 0.5)
    images = [np.asarray(image.get_array()) for image in channels.get_images()]
    assert (images[DEAD] == 1).all() and (images[0] < 1).any()
    assert not classes.texts and "nor by 50 of the set" in caption


def test_what_another_image_excites_is_shown(subject, tmp_path, monkeypatch):
    """No image of the set excites any channel, but what is drawn for three does."""

    def find_all_silent(run, stages):
        return {stage.name: np.ones(stage.shape[-1], bool) for stage in stages}

    monkeypatch.setattr(subject.searched, "find_silent", find_all_silent)
    figure, _ = draw(maximisation, subject, tmp_path, monkeypatch)["maximisation"]
    positions = [text.get_position() for text in figure.axes[0].texts]
    assert positions == [(DEAD + 0.5, 0.5)]


def test_their_kernels_are_not_scaled_up(subject, tmp_path, monkeypatch):
    figure, caption = draw(kernels, subject, tmp_path, monkeypatch)["kernels_first"]
    assert [text.get_text() for text in figure.axes[0].texts] == [f"{DEAD}\n≈ 0"]
    assert f"The kernels of channels {DEAD}, ≈ 0, have less than 2 %" in caption


def test_no_channel_is_chosen_twice():
    np.testing.assert_array_equal(spread(3, 8), [0, 1, 2])
    np.testing.assert_array_equal(spread(10, 4), [0, 2, 5, 7])
