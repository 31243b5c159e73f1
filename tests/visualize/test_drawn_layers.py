"""A model's layers from its traced operations, and what pictures of kernels say."""

import types

import every_model
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnn.models import summary
from cnn.models.variables import flatten_paths, is_kernel
from cnn.visualize.compute import kernels, layers
from cnn.visualize.draw import kernels as drawing
from cnn.visualize.draw import picture

# Those whose first weights are not shared by places; of which only the first are
# small images, one a class.
OF_PIXELS = {"logistic_regression": True, "sliding_regression": True, "mlp": False}
RANDOM = np.random.default_rng(2)


def list_layers(name, size=None, **changes):
    """List the layers of a model of zeros that share one small piece of memory."""
    model, size = (
        every_model.create(name, **changes),
        size or every_model.find_size(name),
    )
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    zero = np.zeros((), np.float32)
    variables = jax.tree.map(lambda x: np.broadcast_to(zero, x.shape), shapes)
    return variables, size, layers.list_layers(model.apply, variables, (size, size, 3))


def test_kernels_come_in_the_order_of_execution():
    _, _, found = list_layers("resnet20")
    names = [layer.name for layer in found]
    assert names[:3] == ["stem", "stage1_block1/conv1", "stage1_block1/conv2"]
    assert len(found) == 20 and names[-1] == "head"
    assert found[2].after == {found[0].path, found[1].path}


@pytest.mark.parametrize("name", every_model.mark_slow(every_model.LARGER))
def test_every_model_is_drawn_as_what_it_is(name):
    variables, size, found = list_layers(name)
    paths = flatten_paths(variables)
    known = {path for path in paths if is_kernel(path) and "_aux/" not in path}
    assert {layer.path for layer in found} == known
    total = summary.describe_model(every_model.create(name), (size, size, 3))["macs"]
    assert sum(layer.macs for layer in found) == total
    assert not found[0].after and all(layer.after for layer in found[1:])
    weights = kernels.find_pixel_weights(found, (size, size, 3))
    assert (weights is not None) == (name in OF_PIXELS)
    if weights:
        of = "class" if OF_PIXELS[name] else "hidden unit"
        title = drawing.describe_pixel_weights(weights, len(weights.images))
        assert title == f"the weights of each {of}"
    elif name != "locally_connected":
        total = found[0].kernel.shape[-1]
        assert found[0].kernel.shape[2] == 3
        title = drawing.describe_first(found, total)
        assert title.startswith(f"the {total} kernels of {found[0].name}, ")
        assert ("groups" in title) == (name == "alexnet_2012")


@pytest.mark.parametrize(
    "name, size, changes, title",
    [
        ("alexnet", 64, {}, "the 64 kernels of stage1_conv, 11×11"),
        (
            "alexnet_2012",
            67,
            {},
            "the 96 kernels of stage1_conv, 11×11, in the 2 groups that stage2_conv "
            "keeps apart",
        ),
        ("vgg11", 32, {}, "the 64 kernels of stage1_conv1, 3×3"),
        ("simple_cnn", 8, {"batch_norm": False}, "the 3 kernels of stage1_conv, 3×3"),
    ],
)
def test_models_without_normalisation_are_convolutions(name, size, changes, title):
    _, size, found = list_layers(name, size, **changes)
    assert kernels.find_pixel_weights(found, (size, size, 3)) is None
    assert drawing.describe_first(found, found[0].kernel.shape[-1]) == title


def test_layers_are_found_however_they_are_called():
    """Through calls and branches, names of any kind, weights that are changed first."""

    def apply(variables, images):
        once = variables["a"] - variables["a"].mean()
        x = lax.platform_dependent(images, cpu=lambda x: x * 2, default=lambda x: x)
        x = jax.jit(lambda x, k: convolve(x, k, 1))(x, once)
        x = jax.checkpoint(lambda x, k: convolve(x, k, 2))(x + variables["b"], once)
        return jnp.tanh(x).mean((1, 2)) @ variables["deep"]["w"] @ variables["a"][0, 0]

    def convolve(x, kernel, groups):
        kernel = kernel if groups == 1 else jnp.concatenate([kernel[:, :, :2]] * 2, 3)
        numbers = ("NHWC", "HWIO", "NHWC")
        options = {"dimension_numbers": numbers, "feature_group_count": groups}
        return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", **options)

    shapes = {"a": (2, 2, 4, 4), "b": (1, 1, 1, 4), "deep": {"w": (8, 4)}}
    zeros = lambda shape: np.zeros(shape, np.float32)  # noqa: E731
    variables = jax.tree.map(zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))
    found = layers.list_layers(apply, variables, (5, 5, 4))
    assert [(x.name, x.groups, x.after) for x in found] == [
        ("a", 1, frozenset()),
        ("deep/w", 1, {"a"}),
    ]


def draw(method, found, folder, *given):
    run = types.SimpleNamespace(layers=found, name="run")
    subject = types.SimpleNamespace(
        name_file=lambda folder, run, *parts: folder / f"{'_'.join(parts)}.png",
        entitle=lambda run, text: f"{run.name}: {text}",
    )
    with picture.use_style():
        return method(subject, run, *given, folder)


def fill(found):
    return [
        layers.Layer(
            x.path,
            RANDOM.normal(size=x.kernel.shape).astype(np.float32),
            x.groups,
            x.after,
        )
        for x in found[:2]
    ]


def test_columns_are_drawn_apart(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(drawing, "_show_kernels", lambda *given: seen.append(given))
    found = fill(list_layers("alexnet_2012", 67)[2])
    found[0].kernel[..., 50] = 0
    drawn = draw(drawing._draw_first, found, tmp_path)
    assert [sorted(order) for _, _, order, *_ in seen] == [
        list(range(48)),
        list(range(48, 96)),
    ]
    assert "2 groups" in drawn.title and "of channels 50, ≈ 0" in drawn.caption


def test_places_are_drawn_with_kernels_of_their_own(tmp_path):
    found = fill(list_layers("locally_connected")[2])
    drawn = draw(drawing._draw_places, found, tmp_path, found[0])
    assert drawn.path.is_file()
    expected = "run: local1, 8 of 16 channels: the 3×3 kernels of 3×3 places"
    assert drawn.title == expected


def test_a_layer_in_groups_is_named_so(tmp_path):
    kernel = RANDOM.normal(size=(3, 3, 2, 20)).astype(np.float32)
    layer = layers.Layer("params/deep/kernel", kernel, 10, frozenset())
    drawn = draw(drawing._draw_deeper, [layer], tmp_path, layer)
    expected = "run: deep, 2 of 2 channels in each of 10 groups × 16 of 20 kernels"
    assert drawn.title == expected and "its own group alone" in drawn.caption


def test_kernels_of_one_channel_each_are_a_sheet(tmp_path):
    kernel = RANDOM.normal(size=(3, 3, 1, 70)).astype(np.float32)
    layer = layers.Layer("params/deep/kernel", kernel, 70, frozenset())
    drawn = draw(drawing._draw_depthwise, [layer], tmp_path, layer)
    assert drawn.title == "run: deep, 64 of 70 kernels, each of one channel"
    assert drawn.path.is_file()
