import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import keys
from cnn.augment import policies
from cnn.augment.policies import AUTOAUGMENT, OPERATIONS, SPACES

LEVELS = json.loads(
    (Path(__file__).parent.parent / "golden" / "randaugment.json").read_text()
)
TIMM_NAMES = {"Color": "saturation"}
GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "augmentations.npz")
IMAGES = GOLDEN["images"]
CASES = [
    ("ShearX", "shear_x", 0.3, 0),
    ("ShearY", "shear_y", -0.23, 0),
    ("TranslateX", "translate_x", 3.7, 0),
    ("TranslateY", "translate_y", -2.2, 0),
    ("Rotate", "rotate", 25.0, 0),
    ("Brightness", "brightness", 0.6, 1),
    ("Color", "saturation", 1.5, 1),
    ("Contrast", "contrast", 1.6, 1),
    ("Sharpness", "sharpness", 1.7, 1),
    ("Posterize", "posterize", 3, 0),
    ("Solarize", "solarize", 0.6 * 255, 0),
    ("AutoContrast", "autocontrast", 0.0, 1),
    ("Equalize", "equalize", 0.0, 0),
    ("Invert", "invert", 0.0, 0),
]
POLICIES = {
    "randaugment": lambda key, x: policies.randaugment(key, x, 9.0),
    "increasing": lambda key, x: policies.randaugment_increasing(key, x, 7.0),
    "trivialaugment": policies.trivialaugment,
    "cifar": lambda key, x: policies.autoaugment(key, x, "cifar"),
    "imagenet": lambda key, x: policies.autoaugment(key, x, "imagenet"),
    "augmix": policies.augmix,
}
JITTED = {name: jax.jit(function) for name, function in POLICIES.items()}


def make_keys(count, epoch=0):
    return keys.example_keys(0, epoch, jnp.arange(count), "policy")


@pytest.mark.parametrize("torch_name, name, value, tolerance", CASES)
def test_operations_equal_torchvision(torch_name, name, value, tolerance):
    operation = np.full(2, OPERATIONS.index(name), np.int32)
    found = policies.apply(IMAGES, operation, value)
    difference = np.abs(np.float32(found) - GOLDEN[f"policy_{torch_name}"])
    assert difference.max() <= tolerance
    assert found.dtype == np.uint8
    assert np.any(found != IMAGES) != (name == "equalize"), "under 255 pixels"


@pytest.mark.parametrize("name", POLICIES)
def test_policies_vary_each_image_on_its_own(name):
    images = np.repeat(IMAGES[:1], 24, axis=0)
    key = make_keys(24)
    found = np.asarray(JITTED[name](key, images))
    assert found.dtype == np.uint8 and found.shape == images.shape
    assert len({image.tobytes() for image in found}) > 8
    np.testing.assert_array_equal(JITTED[name](key, images), found)
    np.testing.assert_array_equal(JITTED[name](key[::-1], images)[::-1], found)
    assert np.any(JITTED[name](make_keys(24, epoch=1), images) != found)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_take_grey_and_tiny_and_constant_images(name):
    for images in (IMAGES[:, :1, :1], np.zeros((2, 4, 5, 1), np.uint8)):
        assert POLICIES[name](make_keys(2), images).shape == images.shape


def test_the_gpu_way_equals_the_cpu_way():
    """On other platforms all images are computed at once."""
    operation = jnp.arange(len(OPERATIONS), dtype=jnp.int32)
    images = jnp.repeat(IMAGES[:1], len(OPERATIONS), axis=0)
    value = jnp.asarray([1.0] * 10 + [3.0, 100.0, 0.0, 0.0, 0.0, 40.0])
    found = policies.apply(images, operation, value)
    for i in range(len(OPERATIONS)):
        alone = policies.apply(images[i : i + 1], operation[i : i + 1], value[i])
        np.testing.assert_array_equal(found[i], alone[0])


def test_ranges_are_the_published_ones():
    space = SPACES["randaugment"]
    assert len(space) == len(SPACES["trivialaugment"]) == 14
    assert space["translate_x"].scale_ends(224, 331) == (0.0, pytest.approx(150))
    assert space["rotate"].high == 30 and SPACES["trivialaugment"]["rotate"].high == 135
    assert space["posterize"][:2] == (8, 4)
    assert SPACES["trivialaugment"]["posterize"][:2] == (8, 2)
    assert [len(table) for table in AUTOAUGMENT.values()] == [25, 25]
    assert AUTOAUGMENT["cifar"][0] == (("invert", 0.1, 0), ("contrast", 0.2, 6))
    assert AUTOAUGMENT["imagenet"][-2][1] == ("contrast", 1.0, 8)


@pytest.mark.parametrize("timm_name", LEVELS)
def test_increasing_randaugment_has_timms_ranges(timm_name, monkeypatch):
    plain = timm_name.removesuffix("Increasing").removesuffix("Rel")
    name = TIMM_NAMES.get(plain) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", plain).lower()
    name = {"auto_contrast": "autocontrast"}.get(name, name)
    space, applied = list(SPACES["randaugment_increasing"]), []
    monkeypatch.setattr(policies, "apply", lambda *x: applied.append(x))
    for magnitude, argument in LEVELS[timm_name].items():
        index, share = (
            jnp.array([space.index(name)]),
            jnp.array([float(magnitude)]) / 10,
        )
        images = np.zeros((1, 200, 100, 3), np.uint8)
        policies._apply_named(
            "randaugment_increasing", images, index, share, jnp.ones(1)
        )
        _, operation, value, *_ = applied.pop()
        assert OPERATIONS[int(operation[0])] == name
        if argument is not None:
            size = {"translate_x": 100, "translate_y": 200}.get(name, 1)
            np.testing.assert_allclose(value, [argument * size], rtol=1e-6, atol=1e-6)
    assert [*LEVELS].index(timm_name) < len(space) - 1 == len(LEVELS)


def test_increasing_randaugment_applies_half_and_varies_its_strength():
    key = make_keys(20_000)
    share, chance = map(np.asarray, policies._draw_magnitudes(key, 0, 7.0, 0.5))
    assert abs(share.mean() - 0.7) < 0.002 and abs(share.std() - 0.05) < 0.002
    assert abs(np.mean(chance < 0.5) - 0.5) < 0.015
    exact, _ = policies._draw_magnitudes(key, 0, 7.0, None)
    np.testing.assert_allclose(exact, 0.7, rtol=1e-6)
    assert np.all(policies._draw_magnitudes(key, 0, 30.0, None)[0] == 1.0)
    images = np.repeat(IMAGES[:1], 64, axis=0)
    never = policies.randaugment_increasing(make_keys(64), images, 9.0, probability=0.0)
    np.testing.assert_array_equal(never, images)


def test_solarize_add_brightens_what_is_dark():
    found = policies.apply(IMAGES, np.full(2, OPERATIONS.index("solarize_add")), 77.0)
    wanted = np.where(IMAGES < 128, IMAGES + np.uint8(77), IMAGES)
    np.testing.assert_array_equal(found, wanted)


def test_randaugment_draws_operations_and_signs_evenly():
    index, sign, u = map(np.asarray, policies._draw(make_keys(10_000), 0, 14))
    counts = np.bincount(index, minlength=14)
    assert ((counts - 10_000 / 14) ** 2 / (10_000 / 14)).sum() < 34.5, "p 0.001"
    assert abs(sign.mean()) < 0.04 and abs(u.mean() - 0.5) < 0.012
    again, _, _ = policies._draw(make_keys(10_000), 1, 14)
    assert np.mean(again == index) < 0.1


def test_no_magnitude_leaves_what_has_a_strength():
    images = np.repeat(np.tile(IMAGES[:1], (1, 2, 1, 1)), 64, axis=0)
    apply = jax.jit(policies.randaugment, static_argnums=3)
    weak = np.asarray(apply(make_keys(64), images, 0.0, 1))
    kept = [np.array_equal(one, images[0]) for one in weak]
    index, _, _ = policies._draw(make_keys(64), 0, 14)
    names = [list(SPACES["randaugment"])[i] for i in np.asarray(index)]
    for name, same in zip(names, kept, strict=True):
        assert same == (name not in ("autocontrast", "equalize"))
