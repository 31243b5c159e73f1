import jax
import numpy as np
import pytest

from cnn import models
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables, flatten_paths
from cnn.weights import exchange, names
from cnn.weights.spelling import TENSORFLOW

# One of every family, on images as small as it takes.
FAMILIES = {
    "logistic_regression": 8,
    "mlp": 8,
    "simple_cnn": 8,
    "locally_connected": 8,
    "sliding_regression": 8,
    "resnet20": 8,
    "wrn_10_1": 8,
    "resnet18": 8,
    "resnet50v2": 8,
    "resnext50_32x4d": 8,
    "preact_resnet18": 8,
    "preact_resnet_11": 8,
    "resnext29_2x4d": 8,
    "densenet_bc_10_4": 8,
    "bit_r50x1": 8,
    "densenet121": 32,
    "squeezenet1_1": 32,
    "mobilenet_v2": 32,
    "shufflenet_v2_x0_5": 8,
    "lenet5": 32,
    "nin": 8,
    "all_cnn_c": 16,
    "efficientnet_b0": 32,
    "regnet_y_400mf": 8,
    "efficientnet_v2_s": 32,
    "mobilenet_v3_small": 32,
    "mnasnet0_5": 32,
    "convnext_tiny": 32,
    "googlenet": 32,
    "inception_v3": 75,
}


def make_shapes(model, size, num_classes=3, **choices):
    options = ModelOptions(model=model, **choices)
    module = models.create_model(options, num_classes)
    return jax.eval_shape(lambda: create_variables(module, 0, (size, size, 3)))


def fill(shapes):
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: random.normal(size=x.shape).astype(np.float32), shapes
    )


def assert_round_trip(model, shapes):
    variables = fill(shapes)
    state_dict = exchange.export_state_dict(model, variables, 5)
    back = exchange.import_state_dict(model, shapes, state_dict, "f")
    jax.tree.map(np.testing.assert_array_equal, variables, back)
    again = exchange.export_state_dict(model, back, 5)
    assert again.keys() == state_dict.keys()
    for name, array in state_dict.items():
        np.testing.assert_array_equal(array, again[name])
    return variables, state_dict


@pytest.mark.parametrize("model", FAMILIES)
def test_import_undoes_export(model):
    assert_round_trip(model, make_shapes(model, FAMILIES[model]))


@pytest.mark.parametrize("model", ["mobilenet_v2", "efficientnet_b0"])
def test_weights_are_written_for_the_library_that_computes_the_same(model):
    shapes, half = make_shapes(model, 32), {"strided_padding": "same"}
    for options, library in (
        (TENSORFLOW, "transformers"),
        (half, "torchvision"),
        ({}, "torchvision"),
    ):
        variables = fill(shapes)
        state_dict = exchange.export_state_dict(model, variables, 5, options)
        flat = flatten_paths(shapes)
        assert exchange.choose_spelling(model, flat, state_dict)[0].library == library
        back = exchange.import_state_dict(model, shapes, state_dict, "f")
        jax.tree.map(np.testing.assert_array_equal, variables, back)


LARGER = [name for name in models.list_names() if name not in FAMILIES]


@pytest.mark.parametrize(
    "model",
    ["alexnet", "vgg11", "vgg11_bn"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in LARGER],
)
def test_every_array_of_every_model_has_one_name(model):
    shapes = flatten_paths(make_shapes(model, models.get_published_input(model)[0]))
    for entries in names.list_spellings(model, shapes):
        assert len({e.name for e in entries}) == len(shapes)
        for entry in entries:
            assert np.prod(entry.torch_shape) == np.prod(entry.shape)


def test_option_b_has_its_shortcuts_under_their_names():
    shapes = make_shapes("resnet20", 8, resnet_shortcut="project")
    _, state_dict = assert_round_trip("resnet20", shapes)
    assert state_dict["layer2.0.shortcut.0.weight"].shape == (32, 16, 1, 1)
    assert state_dict["layer2.0.shortcut.1.num_batches_tracked"] == 5


def test_kernels_change_their_order():
    shapes = {
        "params": {
            "dense1": {"kernel": np.zeros((7 * 7 * 2, 4))},
            "stage1_conv1": {"kernel": np.zeros((3, 3, 5, 6))},
        }
    }
    flat = flatten_paths(fill(shapes))
    entries = {e.name: e for e in names.list_spellings("vgg11", flat)[0]}
    dense, conv = entries["classifier.0.weight"], entries["features.0.weight"]
    theirs = dense.layout.to_torch(flat[dense.path])
    ours = flat[dense.path].reshape(7, 7, 2, 4)
    assert theirs[3, 1 * 49 + 5 * 7 + 2] == ours[5, 2, 1, 3]
    theirs = conv.layout.to_torch(flat[conv.path])
    assert theirs[4, 3, 1, 2] == flat[conv.path][1, 2, 3, 4]


def respell(model, shapes, spelling):
    """Write random weights in a spelling that export does not use."""
    variables = fill(shapes)
    flat = flatten_paths(variables)
    entries = names.list_spellings(model, flat)[spelling]
    return variables, {e.name: e.layout.to_torch(flat[e.path]) for e in entries}


@pytest.mark.parametrize(
    ("model", "size", "name", "shape"),
    [
        ("densenet121", 32, "features.denseblock1.denselayer1.norm.1.weight", (64,)),
        ("mobilenet_v2", 32, "blocks.0.0.conv_pw.weight", (16, 32, 1, 1)),
        ("efficientnet_b0", 32, "blocks.1.0.se.conv_reduce.weight", (4, 96, 1, 1)),
        ("regnet_y_400mf", 8, "s2.b1.se.fc1.weight", (12, 104, 1, 1)),
        ("efficientnet_v2_s", 32, "blocks.1.0.conv_exp.weight", (96, 24, 3, 3)),
        ("mobilenet_v3_small", 32, "conv_head.weight", (1024, 576, 1, 1)),
        ("mnasnet0_5", 32, "blocks.6.0.conv_pwl.weight", (160, 576, 1, 1)),
        ("convnext_tiny", 32, "stages.0.blocks.0.gamma", (96,)),
        ("resnet50v2", 8, "stages.1.blocks.0.downsample.conv.weight", (512, 256, 1, 1)),
    ],
)
def test_other_spellings_are_read(model, size, name, shape):
    shapes = make_shapes(model, size)
    variables, state_dict = respell(model, shapes, 1)
    assert state_dict[name].shape == shape
    back = exchange.import_state_dict(model, shapes, state_dict, "f")
    jax.tree.map(np.testing.assert_array_equal, variables, back)


def test_no_second_copy_is_made_of_a_tensor():
    array = np.ones((5, 4), np.float32)
    dense = names.Layout("kernel").from_torch(array, (4, 5))
    assert dense.shape == (4, 5) and np.shares_memory(dense, array)
    array = np.ones((6, 5, 3, 2), np.float32)
    kernel = names.Layout("kernel").from_torch(array, (3, 2, 5, 6))
    assert kernel.shape == (3, 2, 5, 6) and np.shares_memory(kernel, array)


@pytest.mark.parametrize("dtype", [np.float16, "bfloat16", np.float64])
def test_other_precision_becomes_float32(dtype):
    shapes = make_shapes("resnet20", 8)
    dtype = jax.numpy.bfloat16 if dtype == "bfloat16" else dtype
    state_dict = exchange.export_state_dict("resnet20", fill(shapes), 0)
    halved = {name: x.astype(dtype) for name, x in state_dict.items()}
    back = exchange.import_state_dict("resnet20", shapes, halved, "f")
    kernel = back["params"]["head"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, halved["linear.weight"].T.astype(np.float32))


def test_each_kind_of_difference_is_listed():
    shapes = make_shapes("resnet20", 8)
    state_dict = exchange.export_state_dict("resnet20", fill(shapes), 0)
    del state_dict["bn1.weight"], state_dict["bn1.num_batches_tracked"]
    state_dict["extra"] = np.zeros(2, np.float32)
    state_dict["linear.bias"] = np.zeros(4, np.float32)
    state_dict["conv1.weight"] = state_dict["conv1.weight"].astype(np.complex64)
    with pytest.raises(UserError) as error:
        exchange.import_state_dict("resnet20", shapes, state_dict, "weights.pth")
    assert str(error.value).split("\n")[1:] == [
        "  missing: bn1.weight",
        "  unexpected: extra",
        "  differently shaped: linear.bias is [4], not [3]",
        "  of another dtype: conv1.weight is complex64, no float of 16, 32 or 64 bits",
    ]
    assert "weights.pth does not fit --model=resnet20" in str(error.value)


def test_weights_of_another_model_are_refused():
    state_dict = exchange.export_state_dict(
        "resnet20", fill(make_shapes("resnet20", 8)), 0
    )
    with pytest.raises(UserError, match="missing: layer1.3.bn1.bias.*(108|in all)"):
        exchange.import_state_dict(
            "resnet32", make_shapes("resnet32", 8), state_dict, "f"
        )
    with pytest.raises(UserError, match="unexpected: bn1.bias"):
        exchange.import_state_dict(
            "simple_cnn", make_shapes("simple_cnn", 8), state_dict, "f"
        )
