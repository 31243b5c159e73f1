import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.augment import pipeline
from cnn.augment.options import AugmentOptions
from cnn.augment.pipeline import average_views
from cnn.config import make_config
from cnn.errors import UserError
from cnn.training import steps

IMAGES = np.random.default_rng(4).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
IDS = np.arange(6, dtype=np.int32) * 7
EVERYTHING = {
    "crop_padding": 2,
    "flip_probability": 0.5,
    "vertical_flip_probability": 0.5,
    "rotation_degrees": 20.0,
    "brightness": 0.3,
    "contrast": 0.3,
    "saturation": 0.3,
    "hue": 0.1,
    "gamma": 0.2,
    "posterize_bits": 2,
    "solarize": 0.2,
    "blur_sigma": 0.5,
    "noise_std": 0.05,
    "policy": "randaugment",
    "cutout_size": 3,
    "erasing_probability": 0.5,
    "mixup_alpha": 0.4,
    "cutmix_alpha": 1.0,
    "mixing_scope": "example",
}


def vary(flags, images=IMAGES, ids=IDS, epoch=0, size=0, seed=0):
    config = make_config(flags | {"seed": seed})
    numbers, options = config.make_numbers(), config.make_static().augment
    batch = {"images": jnp.asarray(images), "ids": jnp.asarray(ids)}
    return np.asarray(pipeline.augment_images(options, numbers, epoch, batch, size))


def test_nothing_asked_for_is_nothing_done():
    config = make_config({})
    numbers, options = config.make_numbers(), config.augment

    def run(images, targets):
        batch = {"images": images}
        batch = pipeline.repeat_examples(options, batch)
        images = pipeline.augment_images(options, numbers, 0, batch)
        return pipeline.mix_batch(options, numbers, 0, batch, images, targets)

    targets = np.eye(6, dtype=np.float32)
    assert not jax.make_jaxpr(run)(IMAGES, targets).eqns
    images, same = run(IMAGES, targets)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(same, targets)


def test_every_strength_is_traced():
    """One program for all strengths that are on; each changes what comes out."""
    config = make_config(EVERYTHING)
    options = config.make_static().augment

    @jax.jit
    def run(numbers, epoch):
        batch = {"images": jnp.asarray(IMAGES), "ids": jnp.asarray(IDS)}
        images = pipeline.augment_images(options, numbers, epoch, batch)
        floats = images.astype(jnp.float32) / 255
        targets = jnp.eye(6)
        return pipeline.mix_batch(options, numbers, epoch, batch, floats, targets)

    images, targets = run(config.make_numbers(), 0)
    assert np.isfinite(images).all()
    np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)
    assert np.any(run(config.make_numbers(), 1)[0] != images)
    for name, value in EVERYTHING.items():
        if isinstance(value, str):
            continue
        factor = 20 if name.endswith("alpha") else 2
        changed = make_config(EVERYTHING | {name: value * factor})
        assert changed.make_static().augment == options
        other, _ = run(changed.make_numbers(), 0)
        assert np.any(other != images), name
    assert run._cache_size() == 1


def test_draws_follow_seed_epoch_and_id_alone():
    flags = {"crop_padding": 3, "flip_probability": 0.5, "noise_std": 0.1}
    whole = vary(flags)
    np.testing.assert_array_equal(vary(flags), whole)
    np.testing.assert_array_equal(vary(flags, IMAGES[::-1], IDS[::-1])[::-1], whole)
    np.testing.assert_array_equal(vary(flags, IMAGES[2:4], IDS[2:4]), whole[2:4])
    for change in ({"epoch": 1}, {"seed": 1}, {"ids": IDS + 1}):
        other = vary(flags, **change)
        assert not any(np.array_equal(a, b) for a, b in zip(other, whole, strict=True))


def test_stored_images_are_cut_at_random_places():
    found = vary({}, size=5)
    assert found.shape == (6, 5, 5, 3)
    places = set()
    for image, out in zip(IMAGES, found, strict=True):
        fits = [
            (top, left)
            for top in range(4)
            for left in range(4)
            if np.array_equal(image[top : top + 5, left : left + 5], out)
        ]
        assert len(fits) == 1
        places |= set(fits)
    assert len(places) > 2


def test_affine_of_a_crop_shows_what_the_crop_left_out():
    """A shift of nothing, sampled with the crop, is the crop to the bit."""
    plain = vary({"crop_padding": 2, "flip_probability": 0.5})
    through = vary({"crop_padding": 2, "flip_probability": 0.5, "shift": 1e-9})
    np.testing.assert_array_equal(plain, through)
    small = vary({"flip_probability": 0.5, "shift": 1e-9}, size=5)
    np.testing.assert_array_equal(small, vary({"flip_probability": 0.5}, size=5))
    resized = {"random_resized_crop_min_area": 0.9, "flip_probability": 0.5}
    one, other = vary(resized), vary(resized | {"shift": 1e-9})
    assert np.abs(one.astype(int) - other)[:, 1:-1, 1:-1].max() <= 1


def test_alternating_flip_needs_no_luck():
    flips = [vary({"alternating_flip": True}, epoch=epoch) for epoch in range(3)]
    np.testing.assert_array_equal(flips[0], flips[2])
    np.testing.assert_array_equal(flips[0][:, :, ::-1], flips[1])
    assert {np.array_equal(a, b) for a, b in zip(flips[0], IMAGES, strict=True)} == {
        True,
        False,
    }


def test_repeats_are_varied_each_on_its_own():
    options = AugmentOptions(augment_repeats=3)
    batch = {"images": jnp.asarray(IMAGES), "ids": jnp.asarray(IDS)}
    repeated = pipeline.repeat_examples(options, batch)
    np.testing.assert_array_equal(repeated["ids"], np.tile(IDS, 3))
    np.testing.assert_array_equal(repeated["copies"], np.repeat(np.arange(3), 6))
    numbers = make_config({"crop_padding": 3}).make_numbers()
    found = np.asarray(pipeline.augment_images(options, numbers, 0, repeated))
    first = vary({"crop_padding": 3})
    np.testing.assert_array_equal(found[:6], first)
    assert np.any(found[6:12] != first) and np.any(found[12:] != found[6:12])


@pytest.mark.parametrize("name", ["mixup_alpha", "cutmix_alpha"])
def test_mixing_ends_with_its_epoch(name):
    config = make_config({name: 1.0, "mixing_until_epoch": 2})
    numbers, batch = config.make_numbers(), {"ids": jnp.asarray(IDS)}
    images, targets = IMAGES / np.float32(255), np.eye(6, dtype=np.float32)

    def run(epoch):
        return pipeline.mix_batch(
            config.augment, numbers, epoch, batch, images, targets
        )

    assert np.any(run(0)[1] != targets) and np.any(run(1)[1] != targets)
    for found, given in zip(run(2), (images, targets), strict=True):
        np.testing.assert_array_equal(found, given)


def test_views_average_probabilities():
    weights = np.random.default_rng(0).normal(size=(5 * 5 * 3, 4))

    def predict(images):
        return jnp.asarray(images.reshape(len(images), -1) / 255 @ weights)

    cuts = [(2, 2), (0, 0), (0, 3), (3, 0), (3, 3)]
    crops = [IMAGES[:, t : t + 5, left : left + 5] for t, left in cuts]
    views = {"none": crops[:1], "flip": [crops[0], crops[0][:, :, ::-1]]}
    views["crops"] = [*crops, *(crop[:, :, ::-1] for crop in crops)]
    for tta, images in views.items():
        found = average_views(predict, jnp.asarray(IMAGES), tta, 5)
        each = [jax.nn.softmax(predict(x)) for x in images]
        np.testing.assert_allclose(
            jax.nn.softmax(found), np.mean(each, axis=0), atol=1e-5
        )


def test_shifted_views_average_logits():
    weights = np.random.default_rng(0).normal(size=(IMAGES[0].size, 4))

    def predict(images):
        return jnp.asarray(np.square(images.reshape(len(images), -1) / 255) @ weights)

    around = np.pad(IMAGES, ((0, 0), (1, 1), (1, 1), (0, 0)), "reflect")
    size = IMAGES.shape[1]
    views = [around[:, t : t + size, t : t + size] for t in (1, 0, 2)]
    views += [view[:, :, ::-1] for view in views]
    each = np.stack([predict(view) for view in views])
    found = average_views(predict, jnp.asarray(IMAGES), "shifts")
    shares = np.array([2, 1, 1, 2, 1, 1])[:, None, None] / 8
    np.testing.assert_allclose(found, (shares * each).sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "flags, words",
    [
        ({"crop_padding": 8, "crop_mode": "reflect"}, "give at most 7"),
        ({"image_size": 12, "crop_padding": 1}, "a padding of at least 2"),
        ({"hue": 0.1}, "--hue=0.1 needs images of 3 channels"),
        ({"mixing_probability": 1.5}, "outside [0, 1]"),
        ({"rotation_degrees": 200.0}, "outside [0, 180]"),
        ({"flip_probability": 0.5, "alternating_flip": True}, "give one of them"),
        ({"crop_padding": 2, "random_resized_crop_min_area": 0.1}, "both crop"),
        (
            {"random_resized_crop_min_area": 0.9, "random_resized_crop_max_area": 0.5},
            "is above --random_resized_crop_max_area",
        ),
        ({"scale_min": 1.2}, "is above --scale_max=1"),
        ({"blur_sigma": 4.0}, "--blur_size of at least 16"),
        ({"blur_size": 4}, "must be odd"),
        ({"policy": "augmix", "policy_magnitude": 11.0}, "from 1 to 10"),
        (
            {"policy": "randaugment_increasing", "policy_magnitude": 11.0},
            "from 0 to 10",
        ),
        ({"policy": "randaugmnt"}, "did you mean randaugment"),
        ({"tta": "crops"}, "--storage_size"),
    ],
)
def test_mistakes_are_named(flags, words):
    with pytest.raises(UserError) as caught:
        config = make_config(flags)
        pipeline.check(config.augment, (8, 8, 1), config.data.image_size)
    assert words in str(caught.value)


def test_defaults_and_everything_pass_the_check():
    for flags in ({}, EVERYTHING):
        pipeline.check(make_config(flags).augment, (8, 8, 3))


def test_the_step_varies_its_batch_by_epoch(
    make_structure, make_numbers, start, make_batch
):
    flags = {"crop_padding": 2, "flip_probability": 0.5, "mixup_alpha": 0.4}
    options = make_config(flags).make_static().augment
    structure, numbers = make_structure({"augment": options}), make_numbers(**flags)
    batch, run = make_batch(8), jax.jit(steps.train_step, static_argnums=0)
    before, losses = start(structure, numbers), []
    for step in (0, 1, 3):  # three steps an epoch
        state = before.replace(step=jnp.int32(step))
        losses.append(float(run(structure, state, batch, numbers)[2]["loss"]))
    plain = run(make_structure(), before, batch, make_numbers())[2]["loss"]
    assert losses[0] == losses[1] != losses[2] and plain not in losses
    order = np.arange(8)[::-1]
    turned = {name: np.asarray(x)[order] for name, x in batch.items()}
    calm = {"crop_padding": 2, "flip_probability": 0.5}
    structure = make_structure({"augment": make_config(calm).make_static().augment})
    one = run(structure, before, batch, make_numbers(**calm))[2]["loss"]
    other = run(structure, before, turned, make_numbers(**calm))[2]["loss"]
    assert one == pytest.approx(float(other), rel=1e-6)


def test_repeats_in_the_step_count(make_structure, make_numbers, start, make_batch):
    options = dataclasses.replace(AugmentOptions(), augment_repeats=2)
    structure, numbers = make_structure({"augment": options}), make_numbers()
    state = start(structure, numbers)
    run = jax.jit(steps.train_step, static_argnums=0)
    twice, sums, _ = run(structure, state, make_batch(4), numbers)
    once, _, _ = run(make_structure(), state, make_batch(4), numbers)
    assert sums["count"] == 8
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
        twice.params,
        once.params,
    )
