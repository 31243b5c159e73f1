"""A model's architecture as a tree: what it has, what is folded, what it counts."""

import functools

import flax.linen as nn
import jax.numpy as jnp
import pytest

from cnn import models
from cnn.models.options import ModelOptions
from cnn.models.summary import describe_model
from cnn.visualize.compute import architecture
from cnn.visualize.compute.architecture import Block, Fork, Line, Repeat, Stage

# The smallest of each family; tracing the others takes seconds each.
FAST = {
    *("logistic_regression", "mlp", "simple_cnn", "sliding_regression"),
    *("locally_connected", "alexnet", "alexnet_2012", "vgg11"),
    *("resnet18", "densenet_bc_10_4", "squeezenet1_1", "mobilenet_v3_small"),
    *("shufflenet_v2_x0_5", "lenet5", "nin", "all_cnn_c", "resnet20", "wrn_10_1"),
    "airbench94",
}
NAMES = models.list_names()


@functools.cache
def find_with_description(name, shown=(), **changes):
    """Find an architecture, and return with it what describe says of the model."""
    size, channels, classes = models.get_published_input(name)
    model = models.create_model(ModelOptions(model=name, **changes), classes)
    described = []

    def describe(model, shape):
        described.append(describe_model(model, shape))
        return described[-1]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(architecture, "describe_model", describe)
        shape = size, size, channels
        return architecture.find_architecture(model, shape, shown), described[0]


def find(name, shown=(), **changes):
    return find_with_description(name, shown, **changes)[0]


def write(item):
    """Write what an item has on one line."""
    if isinstance(item, Line):
        return " · ".join(step.title for step in item.steps)
    if isinstance(item, Repeat):
        return f"{len(item.copies)} × {write(item.copies[0])}"
    if isinstance(item, Fork):
        join = f" {item.join.title}" if item.join else ""
        return f"({' | '.join(map(tell, item.branches))}){join}"
    return f"{item.title}[{tell(item.body)}]"


def tell(chain):
    return ", ".join(map(write, chain))


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_its_numbers_are_those_of_describe(name):
    found, described = find_with_description(name, ())
    assert found.parameters == described["num_parameters"]
    assert found.macs == described["macs"]
    *_, last = architecture.list_steps(found.body)
    assert list(last.shape) == described["output_shape"]
    assert architecture.UNORDERED not in tell(found.body)
    steps = architecture.list_steps(found.body)
    assert not any(step.field.unknown for step in steps)
    is_auxiliary = [step.path.endswith("_aux") for step in found.training]
    assert all(is_auxiliary) and bool(is_auxiliary) == (
        name in ("googlenet", "inception_v3")
    )


def test_stages_blocks_and_lines_of_resnets():
    stem, pool, *stages, average, head = find("resnet50").body
    assert tell([stem, pool, average, head]) == (
        "conv 7×7, 64, /2 · batch norm · ReLU, max pool 3×3, /2, global average, "
        "dense, 1000"
    )
    assert [type(x) for x in stages] == [Stage] * 4
    counts = [(len(x.body), len(x.body[1].copies)) for x in stages]
    assert counts == [(2, 2), (2, 3), (2, 5), (2, 2)]
    first, repeated = stages[1].body
    assert write(first) == (
        "Block[(conv 1×1, 128 · batch norm · ReLU, conv 3×3, 128, /2 · batch norm · "
        "ReLU, conv 1×1, 512 · batch norm | conv 1×1, 512, /2 · batch norm) +, ReLU]"
    )
    assert write(repeated) == (
        "3 × Block[(conv 1×1, 128 · batch norm · ReLU, conv 3×3, 128 · batch norm · "
        "ReLU, conv 1×1, 512 · batch norm | ) +, ReLU]"
    )


def test_what_comes_before_a_convolution_stays_with_it():
    body = find("wrn_10_1").body
    assert tell(body[-3:]) == "batch norm · ReLU, global average, dense, 10"
    assert write(body[1]) == (
        "WideBlock[(batch norm · ReLU · conv 3×3, 16, batch norm · ReLU · conv 3×3, 16 "
        "| ) +]"
    )
    # Both branches see the activated input where channels change.
    assert write(body[2]) == (
        "WideBlock[batch norm · ReLU, (conv 3×3, 32, /2 · batch norm · ReLU, conv 3×3, "
        "32 | conv 1×1, 32, /2) +]"
    )


def test_a_shortcut_that_pads_is_no_plain_one():
    first, _ = find("resnet20").body[2].body
    assert write(first.body[0]).endswith(
        "| every 2nd pixel, pad channels with zeros) +"
    )


def test_layers_that_concatenate_are_folded_though_their_inputs_grow():
    found = find("densenet_bc_22_12")
    repeats = [x for x in found.body if isinstance(x, Repeat)]
    assert [len(x.copies) for x in repeats] == [3, 3, 3]
    assert write(repeats[0]) == (
        "3 × (DenseLayer[batch norm · ReLU · conv 1×1, 48, batch norm · ReLU · conv "
        "3×3, 12] | ) concat"
    )
    widths = [architecture.find_last(x).shape[-1] for x in repeats[0].copies]
    assert widths == [36, 48, 60]


def test_split_channels_and_gates():
    stage = next(x for x in find("shufflenet_v2_x0_5").body if isinstance(x, Stage))
    assert write(stage.body[1]).startswith("3 × ShuffleBlock[(channels 1–24 | channels")
    assert write(stage.body[1]).endswith(") concat, shuffle]")
    block = find("mobilenet_v3_small").body[1]
    assert write(block.body[1]) == (
        "SqueezeExcite[(global average, conv 1×1, 8 · ReLU, conv 1×1, 16 · hard "
        "sigmoid | ) ×]"
    )


def test_kernels_and_biases_right_in_the_model():
    lines = find("locally_connected").body
    assert tell(lines) == (
        "locally connected 3×3, 16 · ReLU, locally connected 3×3, 32 · ReLU, dense, 10"
    )
    assert lines[0].steps[0].parameters == 3 * 3 * (3 * 3 * 16 + 16)
    assert tell(find("sliding_regression").body) == "conv 8×8, 10, global max, bias"


def test_operations_of_the_lectures_network():
    changes = {"downsampling": "space_to_depth", "head": "flatten", "widths": (2, 3)}
    found = find("simple_cnn", batch_norm=False, activation="gelu", **changes)
    assert tell(found.body) == (
        "conv 3×3, 2 · GELU, space to depth, conv 3×3, 3 · GELU, space to depth, "
        "flatten, dense, 10"
    )
    assert tell(find("alexnet_2012").body).startswith(
        "conv 11×11, 96, /4 · ReLU · local response norm, max pool 3×3, /2, conv 5×5, "
        "256, 2 groups · ReLU"
    )
    small = models.create_model(ModelOptions(model="alexnet"), 10)
    body = architecture.find_architecture(small, (100, 100, 3)).body
    assert "adaptive average pool, flatten" in tell(body)


def test_dropout_is_shown_where_it_is_asked_for():
    assert "dropout" not in tell(find("wrn_10_1").body)
    text = tell(find("wrn_10_1", ("Dropout",)).body)
    assert text.count("batch norm · ReLU · dropout · conv 3×3, 16") == 1
    assert text.count("dropout") == 3


class Tangled(nn.Module):
    """A graph that is neither in series nor in parallel, and a layer used twice."""

    @nn.compact
    def __call__(self, x, train=False, dropout_rate=None):
        dense = nn.Dense(4, name="stage1")
        a, b = nn.relu(dense(x)), nn.tanh(dense(x))
        c, d = a + b, a * b
        return nn.Dense(3, name="head")((c - d + a)[:, 0, 0])


def test_a_layer_that_is_used_twice_is_counted_once():
    found = architecture.find_architecture(Tangled(), (2, 2, 4))
    assert found.parameters == (4 * 4 + 4) + (4 * 3 + 3)
    assert architecture.UNORDERED not in tell(found.body[-1:])


class Crossed(nn.Module):
    """Three sums of two layers, which cross."""

    @nn.compact
    def __call__(self, x, train=False):
        a, b = nn.Dense(4, name="first")(x), nn.Dense(4, name="second")(x)
        c, d = nn.relu(a), nn.tanh(b)
        return jnp.sum((c + b) * (d + a) * c, axis=(1, 2))


def test_connections_that_cross_are_said_not_to_be_drawn():
    found = architecture.find_architecture(Crossed(), (2, 2, 4))
    assert architecture.UNORDERED in tell(found.body)
    assert found.parameters == 2 * (4 * 4 + 4)
    blocks = [x for x in architecture.list_parts(found.body[0]) for x in x]
    assert any(isinstance(x, Block) for x in [*found.body, *blocks])
