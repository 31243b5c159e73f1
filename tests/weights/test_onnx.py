"""ONNX files: onnxruntime's logits are ours, for every family and every choice."""

import dataclasses
import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from every_model import LARGER, find_size, mark_slow

from cnn import models
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables
from cnn.ops import convolution, pooling, rearrange
from cnn.training.trained import make_classifier, make_trained
from cnn.weights.onnx import compare, file

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = 4


def make_model(name, size=0, channels=3, **choices):
    """Return a loaded run of a small model, its variables all at random."""
    options = {"widths": (4, 6), "mlp_widths": (5,)} | choices | {"model": name}
    shape = (size or find_size(name), size or find_size(name), channels)
    model = models.create_model(ModelOptions(**options), CLASSES)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, shape))
    random = np.random.default_rng(0)

    def draw(path, x):
        fan = np.prod(x.shape[:-1]) if len(x.shape) > 1 else 10
        if path[-1].key == "scale" and name.startswith("bit_"):
            # At larger scales its fifty layers make 2e-5 of a rounded image.
            return random.uniform(0.1, 0.3, x.shape).astype(np.float32)
        if path[-1].key in ("var", "scale"):
            return random.uniform(0.5, 1.5, x.shape).astype(np.float32)
        return (random.normal(size=x.shape) / fan**0.5).astype(np.float32)

    description = {
        "options": {f.name: getattr(ModelOptions(), f.name) for f in FIELDS}
        | {"precision": "float32", "loss": "cross_entropy"}
        | options,
        "class_names": [f"class {i}" for i in range(CLASSES)],
        "image_shape": shape,
        "mean": (0.4,) * channels,
        "std": (0.3,) * channels,
    }
    return make_trained(description, jax.tree_util.tree_map_with_path(draw, shapes))


FIELDS = dataclasses.fields(ModelOptions)
# More than 5 s: 60 million parameters and more, or 121 layers.
SLOW = LARGER | {"alexnet", "vgg11_bn", "densenet121"}
CHOICES = [
    {"activation": "gelu"},
    {"activation": "elu"},
    {"downsampling": "stride"},
    {"downsampling": "avg_pool"},
    {"downsampling": "space_to_depth"},
    {"head": "flatten", "size": 9, "dense_widths": (3,)},
    {"padding": "valid", "size": 13, "channels": 1},
    {"batch_norm": False, "kernel_size": 2},
    {"name": "resnet20", "strided_padding": "same", "size": 31},
    {"name": "resnet20", "resnet_shortcut": "project"},
]


@pytest.mark.parametrize("name", mark_slow(SLOW))
def test_every_model_gives_its_logits(name):
    trained = make_model(name)
    content = file.make_file(trained, True)
    assert file.check_file(trained, content, True) < 1e-5


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_every_choice_gives_its_logits(choices):
    trained = make_model(**({"name": "simple_cnn"} | choices))
    for preprocessing in (True, False):
        content = file.make_file(trained, preprocessing)
        assert file.check_file(trained, content, preprocessing) < 1e-5


def test_a_file_says_what_it_takes_and_gives():
    trained = make_model("simple_cnn")
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), np.uint8)
    session = onnxruntime.InferenceSession(file.make_file(trained, True))
    probabilities, logits = session.run(None, {"images": images})
    np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), atol=1e-6)
    np.testing.assert_allclose(probabilities, make_classifier(trained)(images), 1e-4)
    known = session.get_modelmeta().custom_metadata_map
    assert known["model"] == "simple_cnn" and json.loads(known["mean"]) == [0.4] * 3
    assert json.loads(known["class_names"]) == list(trained.class_names)
    session = onnxruntime.InferenceSession(file.make_file(trained, False))
    scaled = (images / np.float32(255) - np.float32(0.4)) / np.float32(0.3)
    (found,) = session.run(None, {"images": scaled.transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(found, logits, atol=1e-5)


class Adaptive(nn.Module):
    """Pools to 7x7, which a map of 4x4 is stretched to: no product of matrices."""

    @nn.compact
    def __call__(self, x, train=False, **rates):
        return pooling.adaptive_avg_pool2d(x, 7).mean((1, 2))


class Averages(nn.Module):
    """Averages over windows that end, or begin and end, outside of an image."""

    padding: int | tuple

    @nn.compact
    def __call__(self, x, train=False, **rates):
        return pooling.avg_pool2d(x, 3, 2, self.padding).max((1, 2))


class Shuffles(nn.Module):
    """Mixes channels of a convolution."""

    groups: int

    @nn.compact
    def __call__(self, x, train=False, **rates):
        kernel, plain = jnp.arange(48.0), {"formulation": "plain"}
        x = convolution.conv2d(x, kernel.reshape(1, 1, 4, 12), **plain)
        x = rearrange.channel_shuffle(x, self.groups)
        x = convolution.conv2d(x, kernel.reshape(1, 1, 12, 4), **plain)
        return x.mean((1, 2))


class Sorted(nn.Module):
    """Computes what has no counterpart, in a layer of its own."""

    @nn.compact
    def __call__(self, x, train=False, **rates):
        return nn.Sequential([jnp.sort, lambda x: x.mean((1, 2))], name="ranks")(x)


def give_module(module, monkeypatch):
    """Return a run whose model is a module without parameters."""
    trained = make_model("logistic_regression", channels=4, size=4)
    monkeypatch.setattr(models, "create_model", lambda *arguments: module)
    return dataclasses.replace(trained, variables={})


def test_a_product_over_several_axes_is_written(monkeypatch):
    trained = give_module(Adaptive(), monkeypatch)
    assert file.check_file(trained, file.make_file(trained, True), True) < 1e-5


@pytest.mark.parametrize("padding", [1, ((0, 1), (0, 1)), ((0, 1), (0, 0))], ids=str)
def test_averages_of_real_pixels_are_one_operation(padding, monkeypatch):
    trained = give_module(Averages(padding), monkeypatch)
    content = file.make_file(trained, False)
    assert file.check_file(trained, content, False) < 1e-5
    nodes = onnx.load_from_string(content).graph.node
    assert [x.op_type for x in nodes] == ["AveragePool", "ReduceMax"]


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_shuffles_leave_pixels_where_they_are(groups, monkeypatch):
    trained = give_module(Shuffles(groups), monkeypatch)
    content = file.make_file(trained, False)
    assert file.check_file(trained, content, False) < 1e-5
    nodes = onnx.load_from_string(content).graph.node
    assert "Transpose" not in [x.op_type for x in nodes]


def test_what_has_no_counterpart_is_refused_by_its_layer(monkeypatch):
    trained = give_module(Sorted(), monkeypatch)
    with pytest.raises(UserError, match="the operation sort of the layer ranks"):
        file.make_file(trained, True)


def test_other_logits_are_refused():
    trained, other = make_model("simple_cnn"), make_model("simple_cnn", size=8)
    other.variables["params"]["head"]["bias"][:] += 1
    with pytest.raises(UserError, match="onnxruntime gives other logits"):
        file.check_file(trained, file.make_file(other, True), True)


@pytest.mark.parametrize("count", [1, 3])
def test_logits_that_are_no_numbers_are_refused(count):
    """Whichever number of images gives them, and whoever computes them."""

    def compute(pixels):
        return np.full((len(pixels), CLASSES), np.nan if len(pixels) == count else 0.0)

    with pytest.raises(UserError, match="nobody gives other logits .by nan"):
        compare.check_logits(make_model("logistic_regression"), compute, 9.0, "nobody")


def test_without_onnx_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="pip install onnx onnxruntime"):
        file.make_file(make_model("mlp"), True)
