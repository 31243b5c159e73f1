"""`--stem=cifar`: what has it, what it is made for, and what its weights are called."""

import jax
import jax.numpy as jnp
import pytest

from cnn import models
from cnn.config import make_config
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.weights import exchange, export, names


def list_features(name, size, **choices):
    """List what the stem and each stage make of an image, by shapes alone."""
    model = models.create_model(ModelOptions(model=name, **choices), 10)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)

    def run(variables, images):
        return model.apply(variables, images, mutable=["features"])[1]["features"]

    found = jax.eval_shape(run, variables, images)
    return [found[name][0].shape[1:] for name in sorted(found, key=_order)]


def _order(name):
    return (not name.startswith("stem"), name)


def test_a_densenet_keeps_the_size_until_its_first_transition():
    found = list_features("densenet121", 32, stem="cifar")
    assert [shape[0] for shape in found] == [32, 32, 16, 8, 4]
    assert [shape[2] for shape in found] == [64, 256, 512, 1024, 1024]
    assert list_features("densenet121", 32)[0] == (16, 16, 64)


def test_only_the_stem_of_a_densenet_differs():
    def list_shapes(stem):
        model = models.create_model(ModelOptions(model="densenet121", stem=stem), 10)
        images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)
        return jax.tree.map(lambda x: x.shape, variables)

    small, large = list_shapes("cifar"), list_shapes("imagenet")
    assert small["params"].pop("stem") == {"kernel": (3, 3, 3, 64)}
    assert large["params"].pop("stem") == {"kernel": (7, 7, 3, 64)}
    assert small["params"] == large["params"]
    assert small["batch_stats"] == large["batch_stats"]


@pytest.mark.parametrize(
    "model", ["densenet121", "resnet18", "preact_resnet34", "resnext101_32x4d"]
)
def test_it_is_for_images_of_32_pixels(model):
    assert models.get_published_input(model) == (224, 3, 1000)
    assert models.get_published_input(model, "cifar") == (32, 3, 10)
    config = make_config({"model": model, "stem": "cifar"})
    with pytest.raises(UserError, match="--mean"):  # not taken to be ImageNet's
        exchange.choose_scaling(config.data, config.model, 3)


@pytest.mark.parametrize(
    "model",
    [
        "densenet_bc_40_12",
        "preact_resnet_20",
        "resnext29_8x64d",
        "resnet20",
        "bit_r50x1",
    ],
)
def test_it_is_refused_where_it_has_no_meaning(model):
    choices = {"model": model, "stem": "cifar"}
    with pytest.raises(UserError, match="--stem=cifar would have no effect.*densenet"):
        make_config(choices).check_read(choices, "train")


def test_an_export_does_not_claim_a_class_that_has_not_this_stem():
    plain = {"model": "resnet18", "strided_padding": "symmetric", "bn_epsilon": 0.0}
    assert export._list_others(plain | {"stem": "imagenet"}, {}) == ""
    assert export._list_others(plain | {"stem": "cifar"}, {}) == "--stem=cifar"
    written = names.choose_written("resnet18", plain | {"stem": "cifar"})
    assert written.library == "torchvision"


@pytest.mark.parametrize(
    ("model", "library", "has_class"),
    [
        ("densenet121", "torchvision", True),
        ("densenet_bc_40_12", "torchvision", False),
        ("resnext29_8x64d", "torchvision", False),
        ("resnext101_32x4d", "torchvision", True),
        ("wide_resnet50_4", "torchvision", True),
        ("preact_resnet_164", "timm", False),
        ("preact_resnet18", "timm", True),
        ("resnet50v2", "this project", False),
        ("bit_r152x4", "timm", True),
    ],
)
def test_names_of_parts_are_no_class(model, library, has_class):
    written = names.choose_written(model, {})
    assert (written.library, written.has_class) == (library, has_class)
