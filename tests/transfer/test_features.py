"""Cached features give what the images give."""

import jax
import numpy as np
import pytest
from fixtures_runs import read_lines
from fixtures_transfer import read_arrays, train_source, tune
from test_resume import Stopper

from cnn import config as config_module
from cnn import models
from cnn.data.images import from_array
from cnn.errors import UserError
from cnn.optim.freezing import Phase
from cnn.optim.optimizer import Rule
from cnn.runtime import devices
from cnn.runtime.interrupt import Interrupted
from cnn.training import epoch, progress, steps
from cnn.transfer import features

HEAD_ALONE = {
    "train_only": ("head",),
    "epochs": 3,
    "ema_decay": 0.9,
    "weight_decay": 0.01,
    "log_every_steps": 1,
}
VARIED = {"flip_probability": 0.5, "crop_padding": 1, "cutout_size": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a trained run on digits 0-4; not to be changed."""
    directory = tmp_path_factory.mktemp("source") / "run"
    train_source(directory)
    return directory


def assert_same_lines(one, other):
    one, other = read_lines(one), read_lines(other)
    assert [line.keys() for line in one] == [line.keys() for line in other]
    for line, wanted in zip(one, other, strict=True):
        for name, value in line.items():
            if isinstance(value, str):
                assert value == wanted[name]
            else:
                np.testing.assert_allclose(value, wanted[name], 1e-5, 1e-5, name)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"unfreeze": ("stage3:2",), "validation_fraction": 0.1},
        VARIED | {"cached_views": 3},
        {"sampling": "balanced", "class_weights": "balanced"},
    ],
    ids=["fixed", "gradual", "views", "balanced"],
)
def test_the_cache_gives_the_same_run(source, tmp_path, changes, monkeypatch):
    """With as many views as epochs, for images that vary too."""
    options = HEAD_ALONE | changes
    tune(tmp_path / "without", source, cache_features="never", **options)
    computed = []
    compute = features.FeatureLoaders._compute
    monkeypatch.setattr(
        features.FeatureLoaders,
        "_compute",
        lambda *args: computed.append(args[1:]) or compute(*args),
    )
    result = tune(tmp_path / "with", source, cache_features="always", **options)
    assert_same_lines(tmp_path / "with", tmp_path / "without")
    assert result["frozen_unchanged"] is True
    there, here = (read_arrays(tmp_path / name) for name in ("without", "with"))
    for path in there:
        np.testing.assert_allclose(here[path], there[path], 1e-5, 1e-5, err_msg=path)
    views = changes.get("cached_views", 1)
    assert [view for split, view in computed if split == "train"] == [*range(views)]
    assert len(computed) == len(set(computed)), "a split was computed twice"


def test_fewer_views_than_epochs_come_again(source, tmp_path):
    """Without an update, the losses of epochs tell which view they saw."""
    options = HEAD_ALONE | VARIED | {"learning_rate": 0.0, "epochs": 4}
    tune(tmp_path, source, cached_views=2, **options)
    losses = [x["train_loss"] for x in read_lines(tmp_path) if "train_loss" in x]
    np.testing.assert_allclose(losses[:2], losses[2:], rtol=1e-6)
    assert abs(losses[0] - losses[1]) > 1e-4


def test_what_an_epoch_draws_again_is_another_view(source, tmp_path, monkeypatch):
    """The first sight of an image in epoch e is view e, as without drawing again."""
    options = HEAD_ALONE | VARIED | {"epochs": 2, "cached_views": 3}
    seen, iterate = [], progress.iterate_chunks

    def note(loader, steps, arrays, first=0):
        seen.append(arrays)
        return iterate(loader, steps, arrays, first)

    monkeypatch.setattr(progress, "iterate_chunks", note)
    tune(tmp_path, source, sampling="balanced", **options)
    assert len(seen) == 2
    for number, arrays in enumerate(seen):
        views, ids = np.divmod(arrays["positions"], 100)
        np.testing.assert_array_equal(ids, arrays["ids"])
        np.testing.assert_array_equal(views, (number + arrays["copies"]) % 3)
        assert len(np.unique(views)) == 3


def test_a_cached_run_is_resumed_exactly(source, tmp_path, no_pauses):
    options = HEAD_ALONE | {"cache_features": "always"}
    whole = tune(tmp_path / "whole", source, **options)
    with pytest.raises(Interrupted):
        tune(tmp_path / "cut", source, Stopper(7), **options)
    result = tune(tmp_path / "cut", source, **options)
    assert result["state_sha256"] == whole["state_sha256"]
    assert read_lines(tmp_path / "cut") == read_lines(tmp_path / "whole")


OBSTACLES = [
    (VARIED, "images vary from epoch to epoch; --cached_views=K"),
    ({"dropout_rate": 0.1}, "dropout differs from step to step"),
    ({"mixup_alpha": 0.2}, "mixing differs from step to step"),
    ({"augment_repeats": 2}, "--augment_repeats"),
    ({"tta": "flip"}, "--tta averages"),
    ({"image_size": 8, "storage_size": 10}, "images vary from epoch to epoch"),
]


@pytest.mark.parametrize("changes, message", OBSTACLES)
def test_what_cannot_be_cached_is_refused_or_said(
    source, tmp_path, changes, message, capsys
):
    options = HEAD_ALONE | {"epochs": 1} | changes
    with pytest.raises(UserError, match=f"always is not possible: .*{message[:30]}"):
        tune(tmp_path, source, cache_features="always", **options)
    config = config_module.make_config({"train_only": ("head",)} | changes)
    structure = make_structure(config, "simple_cnn")
    size = changes.get("storage_size", 8)
    images = from_array(np.zeros((9, size, size, 1), np.uint8), np.zeros(9))
    found, line = features.choose_cache(config, structure, images, (8, 8, 1))
    assert found is None and message in line


def make_structure(config, model, size=8):
    options = config_module.make_config({"model": model}).make_static().model
    return steps.Structure(
        model=models.create_model(options, 4),
        num_classes=4,
        mean=(0.5,),
        std=(0.25,),
        rule=Rule(phase=Phase(0, frozenset({"head/kernel", "head/bias"}), frozenset())),
    )


@pytest.mark.parametrize(
    "name, size, shape",
    [("simple_cnn", 8, (128,)), ("resnet20", 8, (64,)), ("vgg11", 32, (4096,))],
)
def test_a_model_is_cut_before_its_head(name, size, shape):
    """Trunk and head, one after the other, give the model's logits."""
    structure = make_structure(config_module.Config(), name)
    cut = features.cut_before_head(structure, (size, size, 1))
    assert cut.shape == shape
    if name == "vgg11":
        return
    images = jax.random.uniform(jax.random.key(0), (2, size, size, 1))
    variables = structure.model.init(jax.random.key(1), images)
    mesh = devices.make_mesh("data:1")
    program = features.make_feature_chunk(structure, mesh, is_varied=False)
    chunk = {"images": images[None], "ids": np.zeros((1, 2), np.int32)}
    inputs = config_module.Config().make_numbers(), np.int32(0)
    found = program(variables, inputs, chunk, epoch.make_bounds(0, 1))[0]
    logits = cut.head.apply(variables, found)
    scaled = (images / 255 - 0.5) / 0.25
    wanted = structure.model.apply(variables, scaled, train=False)
    np.testing.assert_allclose(logits, wanted, rtol=1e-5, atol=1e-6)


def test_a_model_that_goes_on_after_its_head_is_not_cut():
    structure = make_structure(config_module.Config(), "squeezenet1_1")
    assert features.cut_before_head(structure, (64, 64, 1)) is None
