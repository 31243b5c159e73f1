"""Sizes of images: by epoch in training, and of their own in evaluation."""

import functools
import json

import jax
import numpy as np
import pytest
from data import test_tfds
from fixtures_runs import TINY, make_setup, run_main, train_run
from PIL import Image
from test_resume import Stopper

from cnn import predict
from cnn.augment import resize
from cnn.config import make_config
from cnn.data import load_dataset
from cnn.data.options import DataOptions, read_schedule
from cnn.errors import UserError
from cnn.loaded import load
from cnn.runtime.interrupt import Interrupted, Stop
from cnn.sweep.executors import Loop, Stacked, check_stackable
from cnn.training import progress, steps
from cnn.training import setup as training_setup
from cnn.training.trained import load_trained

SMALL = TINY | {"dropout_rate": 0.0}
SCHEDULE = {"image_size_schedule": ("0:6", "1:9", "2:8")}
BY_EPOCH = {"image_size_schedule": ("0:6", "1:9"), "epochs": 2}
APART = {"image_size": 8, "eval_image_size": 10, "eval_resize_size": 12}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Return one value of --dataset for each kind of source, images not square."""
    root, random = tmp_path_factory.mktemp("sources"), np.random.default_rng(0)
    arrays, rows = {}, ["path,label"]
    for name in "ab":
        (root / "folder" / name).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (14, 11 + number % 3, 3), np.uint8)
            path = root / "folder" / name / f"{number}.png"
            Image.fromarray(pixels).save(path)
            rows.append(f"{path},{name}")
    (root / "table.csv").write_text("\n".join(rows))
    for part, count in (("train", 24), ("val", 6), ("test", 8)):
        pixels = random.integers(0, 256, (count, 9, 11), dtype=np.uint8)
        arrays |= {f"x_{part}": pixels, f"y_{part}": np.arange(count) % 2}
    np.savez(root / "arrays.npz", **arrays)
    test_tfds.prepare(root / "tfds", "tfrecord")
    return {
        "digits": {"validation_fraction": 0.2},
        "folder": {
            "dataset": f"folder:{root / 'folder'}",
            "validation_fraction": 0.2,
        },
        "streamed": {"dataset": f"folder:{root / 'folder'}", "resident": "never"},
        "csv": {"dataset": f"csv:{root / 'table.csv'}"},
        "npz": {"dataset": f"npz:{root / 'arrays.npz'}"},
        "tfds": {"dataset": "tfds:tiny", "data_dir": str(root / "tfds")},
    }


def read_all(part):
    return part.read(np.arange(len(part)))


@pytest.mark.parametrize("kind", ["digits", "folder", "streamed", "csv", "npz", "tfds"])
@pytest.mark.parametrize(
    "sizes, alone",
    [
        ({"eval_image_size": 10}, {"image_size": 10}),
        (
            {"eval_image_size": 9, "eval_resize_size": 12},
            {"image_size": 9, "resize_size": 12},
        ),
        (
            {"storage_size": 9, "eval_image_size": 8},
            {"image_size": 8, "resize_size": 9},
        ),
        ({"resize_size": 10, "eval_resize_size": 7}, {"image_size": 7}),
    ],
    ids=["size", "both", "stored", "shorter"],
)
def test_evaluated_images_are_those_of_a_run_of_that_size(sources, kind, sizes, alone):
    """And training images are those of a run without a size of evaluation."""
    of_training = {n: x for n, x in sizes.items() if not n.startswith("eval")}
    both, training, evaluation = (
        load_dataset(make_config(sources[kind], x).data)
        for x in (
            {"image_size": 7} | sizes,
            {"image_size": 7} | of_training,
            alone,
        )
    )
    np.testing.assert_array_equal(read_all(both.train), read_all(training.train))
    for split in ("validation", "test"):
        here, there = getattr(both, split), getattr(evaluation, split)
        if there is None:
            assert here is None
            continue
        assert here.shape == there.shape != both.train.shape or "eval_resize" in str(
            sizes
        )
        np.testing.assert_array_equal(read_all(here), read_all(there))
        np.testing.assert_array_equal(here.labels, there.labels)
        assert list(here.names) == list(there.names)
        assert list(here.stamps) == list(there.stamps)


def test_without_sizes_of_evaluation_its_options_are_the_same():
    options = DataOptions(image_size=7, storage_size=9)
    assert options.for_evaluation() is options
    by_epoch = DataOptions(image_size_schedule=("0:6", "1:7"), storage_size=9)
    assert by_epoch.for_evaluation() == options
    setup = make_setup(SMALL)
    assert setup.for_evaluation(setup.structure) == setup.structure
    assert setup.phases[0].structure == setup.structure and len(setup.phases) == 1


def test_whole_images_are_resized_as_jax_and_pillow_do():
    random = np.random.default_rng(0)
    resize_whole = jax.jit(resize.resize_whole, static_argnums=1)
    for shape, size in (((17, 17, 3), 8), ((9, 12, 1), 11)):
        images = random.integers(0, 256, (2, *shape), np.uint8)
        exact = jax.image.resize(
            images.astype(np.float32), (2, size, size, shape[2]), "bilinear"
        )
        floats = resize_whole(images.astype(np.float32), size)
        np.testing.assert_allclose(floats, exact, atol=255 * 1e-6)
        found = np.asarray(resize_whole(images, size))
        assert found.dtype == np.uint8
        for one, image in zip(found, images, strict=True):
            pillow = Image.fromarray(image.squeeze())
            pillow = pillow.resize((size, size), Image.Resampling.BILINEAR)
            far = np.abs(one.squeeze().astype(int) - np.asarray(pillow).astype(int))
            assert far.max() <= 1, "Pillow rounds between rows and columns"


VARIED = {"flip_probability": 0.5, "crop_padding": 1}


def prepare(setup, phase, images):
    batch = {
        "images": images,
        "labels": np.zeros(len(images), np.int32),
        "ids": np.arange(len(images), dtype=np.int32),
    }
    vary = functools.partial(steps.prepare_batch, setup.phases[phase].structure, 1)
    return jax.jit(vary)(batch, setup.numbers)["images"]


def test_other_crops_are_resized_after_they_were_varied():
    setup = make_setup(SMALL, SCHEDULE, VARIED | {"scaling": "unit"})
    images = setup.dataset.train.read(np.arange(12))
    assert images.shape == (12, 9, 9, 1)
    whole = np.asarray(prepare(setup, 1, images)) * 255
    whole = np.round(whole).astype(np.uint8)
    assert whole.shape == images.shape and (whole != images).any()
    for phase, size in ((0, 6), (2, 8)):
        found = np.asarray(prepare(setup, phase, images)) * 255
        wanted = jax.jit(resize.resize_whole, static_argnums=1)(whole, size)
        np.testing.assert_array_equal(np.round(found), wanted)


def test_random_resized_crops_have_the_size_of_the_epoch():
    options = {"random_resized_crop_min_area": 0.3, "scaling": "unit"}
    setup = make_setup(SMALL, SCHEDULE, options)
    images = setup.dataset.train.read(np.arange(12))
    alone = make_setup(SMALL, options, {"image_size": 6, "storage_size": 9})
    np.testing.assert_array_equal(prepare(setup, 0, images), prepare(alone, 0, images))
    evaluated = {setup.for_evaluation(x.structure) for x in setup.phases}
    assert [x.image_size for x in evaluated] == [9], "one program evaluates all"


def test_sizes_and_unfreezing_are_phases_together():
    options = {"train_only": ("head",), "unfreeze": ("stage1:2",), "epochs": 5}
    options |= {"image_size_schedule": ("0:6", "2:9", "4:8")}
    setup = make_setup(SMALL, options, {"cache_features": "never"})
    found = [
        (x.first_epoch, x.image_size, len(x.structure.rule.phase.trained))
        for x in setup.phases
    ]
    assert found == [(0, 6, 2), (2, 9, 5), (4, 8, 5)]
    steps_per_epoch = setup.structure.steps_per_epoch
    ends = [0, 2 * steps_per_epoch, 2 * steps_per_epoch + 1, setup.total_steps]
    assert [setup.find_phase(step) for step in ends] == [0, 0, 1, 2]
    assert setup.eval_shape == setup.image_shape == (9, 9, 1)


@pytest.fixture(scope="module")
def by_epoch(tmp_path_factory):
    """Return a run of two sizes that was not stopped: directory and result."""
    directory = tmp_path_factory.mktemp("by_epoch") / "run"
    return directory, train_run(directory, **BY_EPOCH)


@pytest.mark.parametrize("step", [5, 7])
def test_stopped_between_and_within_sizes_it_goes_on_to_the_same_bits(
    tmp_path, by_epoch, no_pauses, step
):
    with pytest.raises(Interrupted):
        train_run(tmp_path, Stopper(step), **BY_EPOCH)
    result = train_run(tmp_path, **BY_EPOCH)
    assert result["state_sha256"] == by_epoch[1]["state_sha256"]
    assert result["test_loss"] == by_epoch[1]["test_loss"]


def test_a_trial_in_a_loop_is_its_solo_run(by_epoch):
    setup = make_setup(TINY, BY_EPOCH)
    executor = Loop(setup, Stop(), 1)
    trials = executor.create([setup.config])
    for number in range(2):
        trials, _ = executor.train_epoch(trials, [setup.config], number, [True])
    (found,) = executor.evaluate(trials, "test", [True])
    assert found["loss"] == by_epoch[1]["test_loss"]
    with pytest.raises(UserError, match="--image_size_schedule .* --executor=loop"):
        check_stackable("vmap", setup)


def test_stacked_trials_are_evaluated_at_the_size_of_evaluation():
    setup, losses = make_setup(TINY, APART), []
    for executor in (Loop(setup, Stop(), 1), Stacked(setup, Stop(), "map", 1)):
        trials = executor.create([setup.config])
        losses.append(executor.evaluate(trials, "test", [True])[0]["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """Return a run that is evaluated at a size of its own, and its result."""
    directory = tmp_path_factory.mktemp("apart") / "run"
    return directory, train_run(directory, **APART)


def evaluate(directory, *arguments):
    """Evaluate a run; returns the newest file that came of it, read."""
    before = set(directory.glob("evaluation*.json"))
    assert not run_main("--mode=evaluate", f"--workdir={directory}", *arguments)
    (path,) = set(directory.glob("evaluation*.json")) - before
    return path.name, json.loads(path.read_text())


def test_evaluation_has_the_size_that_the_run_was_evaluated_at(apart):
    directory, result = apart
    name, found = evaluate(directory)
    assert name == "evaluation.json"
    assert found["loss"] == result["test_loss"]
    assert (found["image_shape"], found["resize_size"]) == ([10, 10, 1], 12)
    name, found = evaluate(directory, "--split=train")
    assert found["image_shape"] == [10, 10, 1] and found["count"] == 100
    name, found = evaluate(directory, "--image_size=8", "--resize_size=0")
    assert name == "evaluation,image_size=8,resize_size=0.json"
    assert found["image_shape"] == [8, 8, 1] and found["loss"] != result["test_loss"]
    name, found = evaluate(directory, "--image_size=8", "--resize_size=9", "--tta=flip")
    assert found["resize_size"] == 9


def test_a_checkpoint_says_the_size_of_evaluation(apart, by_epoch):
    for (directory, _), size in ((apart, 10), (by_epoch, 9)):
        assert load_trained(directory).image_shape == (size, size, 1)
        assert load(directory).preprocessing["image_shape"] == (size, size, 1)
    assert load(apart[0]).preprocessing["resize_size"] == 12


def test_files_are_classified_at_the_size_of_evaluation(apart, tmp_path):
    directory, _ = apart
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (found,) = load(directory).predict_files([tmp_path / "a.png"])
    image = np.asarray(Image.fromarray(pixels).resize((12, 18), Image.BILINEAR))
    classify = predict.load_classifier(directory)
    (wanted,) = classify(image[None, 4:14, 1:11, None])
    np.testing.assert_array_equal(found.probabilities, wanted)


def test_cached_features_of_evaluation_have_its_size():
    losses = []
    for wish in ("always", "never"):
        options = APART | {"train_only": ("head",), "cache_features": wish}
        setup = make_setup(SMALL, options)
        found = progress.evaluate(setup, progress.begin(setup), "test", Stop())
        losses.append(found["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-6)


FLAT = {"head": "flatten"}
REFUSED = [
    ({"image_size_schedule": ("8",)}, "8 is not epoch:size.*write 0:128,40:160"),
    ({"image_size_schedule": ("0:8", "1:x")}, "1:x is not epoch:size"),
    ({"image_size_schedule": ("0:0",)}, "from 1 to 16384"),
    ({"image_size_schedule": ("1:8",)}, "must begin at 0 and increase"),
    ({"image_size_schedule": ("0:8", "2:9", "2:8")}, "must begin at 0 and increase"),
    ({"image_size_schedule": ("0:8", "3:9")}, "3:9 with --epochs=3"),
    (SCHEDULE | FLAT, "simple_cnn has other parameters for images of 6 .* than of 9"),
    (APART | FLAT, "simple_cnn .* of 8 pixels than of 10, and --eval_image_size"),
    (
        {"padding": "valid", "image_size_schedule": ("0:2", "1:9")},
        "--image_size_schedule shows images of 2 pixels: .* smallest image .* 4x4",
    ),
    (
        {"image_size": 8, "resize_size": 9, "eval_image_size": 10},
        "--eval_resize_size=10",
    ),
    (APART | {"eval_resize_size": 9}, "--eval_resize_size=10 or more"),
    (APART | {"resize_mode": "pad"}, "--resize_mode=crop"),
    (SCHEDULE | {"storage_size": 8}, "--storage_size=8 needs"),
    (SCHEDULE | {"shuffle_pixels": True}, "of one size, and they have 6, 8, 9"),
    (APART | {"shuffle_pixels": True}, "of one size, and they have 8, 10"),
    (APART | {"storage_size": 9, "tta": "crops"}, "--tta=crops .* --eval_image_size"),
    (
        SCHEDULE | {"train_only": ("head",), "cache_features": "always"},
        "--cache_features=always is not possible: .* --image_size_schedule",
    ),
]


@pytest.mark.parametrize("options, message", REFUSED, ids=str)
def test_what_cannot_be_meant_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        make_setup(SMALL, {"dropout_rate": 0.0}, options)


def test_models_are_asked_before_images_are_read(monkeypatch):
    monkeypatch.setattr(training_setup, "load_dataset", None)
    with pytest.raises(UserError, match="other parameters"):
        make_setup(SMALL, SCHEDULE | FLAT)


def test_a_flag_beside_the_one_that_replaces_it_is_refused():
    config = make_config(SMALL, SCHEDULE, {"image_size": 9})
    for given in ({"image_size": 9}, {"eval_resize_size": 9}):
        check = functools.partial(config.check_read, given, "train")
        if "image_size" in given:
            with pytest.raises(UserError, match="no --image_size_schedule"):
                check()
        else:
            check()
    with pytest.raises(UserError, match="only for --image_size or"):
        make_config(SMALL).check_read({"eval_image_size": 9}, "train")
    assert read_schedule(()) == ()


@pytest.mark.parametrize("name", ["image_size", "eval_image_size"])
def test_sizes_that_nothing_holds_are_refused(name):
    options = DataOptions(**{"image_size": 8, name: 16384})
    with pytest.raises(UserError, match="8x8 cannot be brought to 16384x16384.*--eval"):
        load_dataset(options)
