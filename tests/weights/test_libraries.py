"""Our models with other libraries' names, by the numbers in ../golden/libraries.npz."""

from pathlib import Path

import jax
import numpy as np
import pytest
from fixtures_flax import save_msgpack
from flax.traverse_util import unflatten_dict

from cnn import config as config_module
from cnn import models
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables, flatten_paths
from cnn.runtime.terminal import Terminal
from cnn.training.trained import load_trained
from cnn.weights import convert, exchange, flax_example, load, lookalikes, names
from cnn.weights.safetensors_file import save_safetensors
from cnn.weights.spelling import TENSORFLOW
from tests.golden import hashed

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "libraries.npz")
FAST = {"timm/resnet18", "transformers/resnet18"}


@pytest.mark.parametrize(
    "case",
    [x if x in FAST else pytest.param(x, marks=pytest.mark.slow) for x in GOLDEN],
)
def test_logits_equal_the_librarys(case):
    library, name = case.split("/")
    spellings = names.get_spellings(name)
    place = [x.library for x in spellings].index(
        library if library in {x.library for x in spellings} else "torchvision"
    )
    options = ModelOptions(model=name, **spellings[place].needs)
    model = models.create_model(options, hashed.NUM_CLASSES)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (64, 64, 3)))
    entries = names.list_spellings(name, flatten_paths(shapes))[place]
    tensors = hashed.make_state_dict({e.name: e.torch_shape for e in entries})
    variables = exchange.import_state_dict(name, shapes, tensors, "hashed weights")
    images = hashed.make_images("eval", hashed.EVAL_IMAGES, 64).transpose(0, 2, 3, 1)
    logits = jax.jit(model.apply)(variables, images)
    wanted = GOLDEN[case]
    assert np.max(np.abs(logits - wanted)) <= 1e-5 * np.max(np.abs(wanted))


def compute_example(variables, x, stages=4, blocks=2):
    """Compute what ResNet-18 of Flax's imagenet example does, by its names."""
    params, stats = variables["params"], variables["batch_stats"]

    def conv(x, tree, stride=1, padding="SAME"):
        order = ("NHWC", "HWIO", "NHWC")
        kernel, strides = tree["kernel"], (stride, stride)
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, dimension_numbers=order
        )

    def norm(x, tree, seen):
        shape = (1, 1, 1, -1)
        mean, var, scale, bias = (
            a.reshape(shape)
            for a in (seen["mean"], seen["var"], tree["scale"], tree["bias"])
        )
        return (x - mean) / np.sqrt(var + 1e-5) * scale + bias

    x = conv(x, params["conv_init"], 2, ((3, 3), (3, 3)))
    x = jax.nn.relu(norm(x, params["bn_init"], stats["bn_init"]))
    window, strides = (1, 3, 3, 1), (1, 2, 2, 1)
    x = jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, strides, "SAME")
    for place in range(stages * blocks):
        name = f"ResNetBlock_{place}"
        tree, seen, shortcut = params[name], stats[name], x
        y = conv(x, tree["Conv_0"], 2 if place in (2, 4, 6) else 1)
        y = jax.nn.relu(norm(y, tree["BatchNorm_0"], seen["BatchNorm_0"]))
        y = norm(conv(y, tree["Conv_1"]), tree["BatchNorm_1"], seen["BatchNorm_1"])
        if "conv_proj" in tree:
            shortcut = conv(x, tree["conv_proj"], 2)
            shortcut = norm(shortcut, tree["norm_proj"], seen["norm_proj"])
        x = jax.nn.relu(y + shortcut)
    head = params["Dense_0"]
    return np.asarray(x.mean((1, 2))) @ head["kernel"] + head["bias"]


def make_example():
    """Make weights of ResNet-18 as Flax's imagenet example names them."""
    model = models.create_model(ModelOptions(model="resnet18"), 6)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (64, 64, 3)))
    shapes, random = flatten_paths(shapes), np.random.default_rng(0)
    spelling = flax_example.spell_resnet(shapes)
    found = {}
    for theirs, ours in names.list_paths(spelling, shapes).items():
        shape = shapes[ours].shape
        drawn = random.uniform(0.5, 1.5, shape)
        if ours.endswith("kernel"):
            drawn = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        found[theirs] = drawn.astype(np.float32)
    return unflatten_dict(found, sep="/")


def test_flax_example_gives_its_numbers(tmp_path):
    variables = make_example()
    assert variables["params"]["ResNetBlock_7"]["Conv_1"]["kernel"].shape[2] == 512
    assert "conv_proj" in variables["params"]["ResNetBlock_2"]
    source = save_msgpack(tmp_path / "checkpoint_9", variables)
    options = {"model": "resnet18", "image_size": 64, "source": str(source)}

    def take(directory, **more):
        config = config_module.make_config(options | more)
        convert.convert(config, directory, Terminal())

    with pytest.raises(UserError, match="imagenet example.*--strided_padding=same"):
        take(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    take(tmp_path / "b", strided_padding="same")
    trained = load_trained(tmp_path / "b")
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    logits = trained.structure.model.apply(trained.variables, images)
    wanted = compute_example(variables, images)
    assert logits.shape == (2, 6)
    assert np.max(np.abs(logits - wanted)) <= 1e-5 * np.max(np.abs(wanted))


def test_weights_that_tensorflow_trained_need_its_options():
    says, needed = {"arch": "tf_efficientnet_b0.ns_jft_in1k"}, {"bn_epsilon": 0.001}
    for more in ({}, needed):
        options = ModelOptions(model="efficientnet_b0", **more)
        with pytest.raises(UserError, match="--strided_padding=same"):
            lookalikes.check(options, says, "f")
    options = ModelOptions(model="efficientnet_b0", strided_padding="same", **needed)
    lookalikes.check(options, says, "f")
    with pytest.raises(UserError, match="blurs"):
        lookalikes.check(options, {"arch": "resnetblur18"}, "f")


def test_weights_of_timm_need_the_epsilon_that_they_were_trained_with():
    """timm has the net twice under the same names, with one padding and the other."""
    spellings = names.get_spellings("mobilenet_v3_small")
    timm = next(x for x in spellings if x.library == "timm")
    for more in ({}, {"bn_epsilon": 0.001}, {"strided_padding": "same"}):
        options = ModelOptions(model="mobilenet_v3_small", **more)
        with pytest.raises(UserError, match="timm.*--bn_epsilon=1e-05"):
            names.check_spelling(timm, options, "f")
    for needs in ({"bn_epsilon": 1e-5}, TENSORFLOW):
        options = ModelOptions(model="mobilenet_v3_small", **needs)
        names.check_spelling(timm, options, "f")
        assert names.choose_written(options.model, needs).library.startswith("timm")
    names.check_spelling(spellings[0], ModelOptions(model="mobilenet_v3_small"), "f")


def test_what_is_beside_a_file_and_its_name_say_what_it_is(tmp_path):
    def check(name):
        found = load.load_weights(tmp_path / name, "--source", "latest", "")
        lookalikes.check(ModelOptions(model="resnet18"), found.says, name)

    for name in ("model.safetensors", "resnetblur18-84f4748f.pth", "blur_2.pth"):
        save_safetensors(tmp_path / name, {"fc.bias": np.ones(2, np.float32)})
    check("model.safetensors")
    check("blur_2.pth")
    with pytest.raises(UserError, match="the file's name, which blurs"):
        check("resnetblur18-84f4748f.pth")
    (tmp_path / "config.json").write_text('{"architecture": "resnetaa50d"}')
    with pytest.raises(UserError, match="config.json, which averages"):
        check("model.safetensors")
