"""Receptive fields: the closed form of each architecture, and gradients.

The forms are written out here layer by layer, as the papers have them, and summed by
size += (window - 1) · jump, jump *= stride. A stage is a list of (window, stride).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import config as config_module
from cnn import models
from cnn.state import create_variables
from cnn.visualize import features
from cnn.visualize.reach import Reach
from cnn.visualize.receptive_field import compute_fields

C3 = (3, 1)
# What is computed once is compiled for speed of compiling.
QUICKLY = {"xla_backend_optimization_level": 0}


def make_vgg(*counts):
    stages, pool = {}, []
    for number, count in enumerate(counts, start=1):
        stages[f"stage{number}"] = pool + [C3] * count
        pool = [(2, 2)]
    return stages


def make_resnet(counts, each, stem):
    """Stages of blocks with `each` 3x3 convolutions, the first of a stage halving."""
    stages = {"stem": stem[:1]}
    for number, count in enumerate(counts, start=1):
        blocks = [C3] * (each * count)
        if number > 1:
            blocks[0] = (3, 2)
        stages[f"stage{number}"] = (stem[1:] if number == 1 else []) + blocks
    return stages


def make_imagenet(counts, each):
    return make_resnet(counts, each, [(7, 2), (3, 2)])


def make_densenet(*counts):
    stages, before = {"stem": [(7, 2)]}, [(3, 2)]
    for number, count in enumerate(counts, start=1):
        stages[f"stage{number}"] = before + [C3] * count
        before = [(2, 2)]
    return stages


def make_cifar(blocks):
    return make_resnet([blocks] * 3, 2, [C3])


WHOLE = "whole"
ALEXNET = {
    "stage1": [(11, 4)],
    "stage2": [(3, 2), (5, 1)],
    "stage3": [(3, 2), C3],
    "stage4": [C3],
    "stage5": [C3],
}
MOBILENET = {"stem": [(3, 2)]} | {
    f"stage{i}": [(3, stride)] + [C3] * (count - 1)
    for i, (count, stride) in enumerate(
        [(1, 1), (2, 2), (3, 2), (4, 2), (3, 1), (3, 2), (1, 1)], start=1
    )
}
FORMS = {
    "logistic_regression": {},
    "mlp": {"dense1": WHOLE, "dense2": WHOLE},
    "simple_cnn": {"stage1": [C3], "stage2": [(2, 2), C3], "stage3": [(2, 2), C3]},
    "sliding_regression": {"alignments": [(8, 1)]},
    "locally_connected": {"local1": [(3, 2)], "local2": [(3, 2)]},
    "alexnet": ALEXNET,
    "alexnet_2012": ALEXNET,
    "vgg11": make_vgg(1, 1, 2, 2, 2),
    "vgg13": make_vgg(2, 2, 2, 2, 2),
    "vgg16": make_vgg(2, 2, 3, 3, 3),
    "vgg19": make_vgg(2, 2, 4, 4, 4),
    "resnet18": make_imagenet([2, 2, 2, 2], 2),
    "resnet34": make_imagenet([3, 4, 6, 3], 2),
    "resnet50": make_imagenet([3, 4, 6, 3], 1),
    "resnet101": make_imagenet([3, 4, 23, 3], 1),
    "resnet152": make_imagenet([3, 8, 36, 3], 1),
    "resnet20": make_cifar(3),
    "resnet32": make_cifar(5),
    "resnet44": make_cifar(7),
    "resnet56": make_cifar(9),
    "resnet110": make_cifar(18),
    "wrn_16_4": make_cifar(2),
    "densenet121": make_densenet(6, 12, 24, 16),
    "densenet161": make_densenet(6, 12, 36, 24),
    "densenet169": make_densenet(6, 12, 32, 32),
    "densenet201": make_densenet(6, 12, 48, 32),
    "squeezenet1_1": {
        "stem": [(3, 2)],
        "stage1": [(3, 2)] + [C3] * 2,
        "stage2": [(3, 2)] + [C3] * 2,
        "stage3": [(3, 2)] + [C3] * 4,
    },
    "mobilenet_v2": MOBILENET,
    # From the first squeeze-and-excitation on, every value sees the whole image.
    "efficientnet_b0": {"stem": [(3, 2)]} | {f"stage{i}": WHOLE for i in range(1, 8)},
    "convnext_tiny": {
        "stem": [(4, 4)],
        "stage1": [(7, 1)] * 3,
        "stage2": [(2, 2)] + [(7, 1)] * 3,
        "stage3": [(2, 2)] + [(7, 1)] * 9,
        "stage4": [(2, 2)] + [(7, 1)] * 3,
    },
}
FORMS |= {f"{name}_bn": FORMS[name] for name in ("vgg11", "vgg13", "vgg16", "vgg19")}
FORMS |= dict.fromkeys(
    ["resnext50_32x4d", "wide_resnet50_2", "resnet50v2"], FORMS["resnet50"]
)
FORMS |= dict.fromkeys(
    ["resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2", "resnet101v2"],
    FORMS["resnet101"],
)
FORMS["resnet152v2"] = FORMS["resnet152"]
# From the models' papers and https://distill.pub/2019/computing-receptive-fields/,
# whose ResNets stride elsewhere in a block; the rest is arithmetic.
PUBLISHED = {
    ("vgg16", "stage5"): 196,  # 212 after the last pooling
    ("alexnet", "stage5"): 163,  # 195 after the last pooling
    ("resnet18", "stage4"): 435,
    ("resnet50", "stage4"): 427,
    ("mobilenet_v2", "stage7"): 491,
}
QUICK = ["logistic_regression", "mlp", "simple_cnn", "sliding_regression"]
QUICK += ["locally_connected", "alexnet", "vgg11_bn", "resnet18", "resnet20"]
QUICK += ["wrn_16_4", "squeezenet1_1", "mobilenet_v2"]


def sum_form(form):
    """Return size and stride of each stage; None where it is the whole image."""
    size, jump, found = 1, 1, {}
    for name, layers in form.items():
        if layers == WHOLE:
            found[name] = None
            continue
        for window, stride in layers:
            size += (window - 1) * jump
            jump *= stride
        found[name] = size, jump
    return found


def make_function(name, image_shape, num_classes=10, **changes):
    """Return a model with zeros for weights; only its operations matter."""
    options = config_module.make_config({"model": name} | changes).make_static()
    model = models.create_model(options.model, num_classes)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, image_shape))

    def function(images, variables=None):
        if variables is None:
            variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        logits, updated = model.apply(variables, images, mutable=["features"])
        found = updated.get("features", {})
        return logits, {n.removesuffix("_out"): x[0] for n, x in found.items()}

    return function, shapes


def list_fields(name, size, channels, **changes):
    function, _ = make_function(name, (size, size, channels), **changes)
    stages = features.list_stages(function, (size, size, channels))
    return {stage.name: stage.field for stage in stages}


def test_every_model_has_a_form():
    names = {name.replace("wrn_D_K", "wrn_16_4") for name in models.MODELS}
    assert set(FORMS) == names and set(QUICK) <= names


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FORMS],
)
def test_fields_are_the_closed_form(name):
    size, channels, _ = models.get_published_input(name)
    expected = sum_form(FORMS[name])
    fields = list_fields(name, size, channels)
    assert list(fields) == list(expected), "stages, in the order of computation"
    for stage, form in expected.items():
        for reach in fields[stage]:
            found = reach and (reach.size, reach.stride)
            assert found == form, (stage, reach)
        if (name, stage) in PUBLISHED:
            assert form[0] == PUBLISHED[name, stage]


def make_positive(shapes):
    """Make weights that cannot cancel, and that carry a corner of a field to its end.

    Kernels are positive and add up to one. Two opposite corners of a window hold nearly
    all of that, so that a corner of the field still has a gradient of about 2^-108
    after the 108 convolutions of resnet110; even weights would leave it 9^-108, which
    is 0 in float32.
    """
    noise = np.random.default_rng(0).uniform(0.9, 1.1, 9973)

    def draw(path, x):
        kind = jax.tree_util.keystr(path)
        if "kernel" not in kind:
            return np.full(x.shape, float("scale" in kind or "var" in kind), x.dtype)
        weights = np.resize(noise.astype(x.dtype), x.shape) / x.shape[-2]
        if len(x.shape) < 4:
            return weights
        share = np.full(x.shape[-4:-2], 0.02 / np.prod(x.shape[-4:-2]), x.dtype)
        share[0, 0] += 0.49
        share[-1, -1] += 0.49
        return weights * share[:, :, None, None]

    return jax.tree_util.tree_map_with_path(draw, shapes)


def measure_extents(function, variables, stages, images):
    """Find where the centre of each stage has a gradient, by one compiled program.

    Returns:
        For each stage, along rows and along columns, the first and the last pixel.
    """

    def pick(images, variables):
        found = function(images, variables)[1]
        centres = [found[s.name][:, s.shape[0] // 2, s.shape[1] // 2] for s in stages]
        return jnp.stack([jnp.sum(centre) for centre in centres])

    compute = jax.jit(jax.jacrev(pick), compiler_options=QUICKLY)
    touched = np.any(np.asarray(compute(images, variables)) != 0, axis=(1, 4))
    return [
        [np.flatnonzero(one.any(axis=1 - axis))[[0, -1]] for axis in (0, 1)]
        for one in touched
    ]


def make_ramps(height, width, channels):
    """Make images that rise and fall towards a corner: a maximum picks first or last.

    They are dim, so that no ReLU6 saturates.
    """
    ramp = np.add.outer(np.arange(height), np.arange(width)) / (height + width) + 0.1
    images = 0.01 * np.stack([ramp, ramp[::-1, ::-1]])[..., None]
    return jnp.asarray(images.repeat(channels, axis=-1), jnp.float32)


def list_small_stages(name, shape, only=None, **changes):
    """List the stages whose field has at most 300 pixels, and their model."""
    function, shapes = make_function(name, shape, **changes)
    stages = [
        stage
        for stage in features.list_stages(function, shape)
        if None not in stage.field and max(reach.size for reach in stage.field) <= 300
    ]
    return [s for s in stages if not only or s.name in only], function, shapes


def check_by_gradients(name, shape, axes=(0, 1), only=None, **changes):
    """Compare fields along some axes with where the gradient is not zero."""
    stages, function, shapes = list_small_stages(name, shape, only, **changes)
    variables, images = make_positive(shapes), make_ramps(*shape)
    extents = measure_extents(function, variables, stages, images)
    for stage, extent in zip(stages, extents, strict=True):
        for axis in axes:
            low, high = stage.field[axis].locate(stage.shape[axis] // 2)
            # The sliding regression's weights are as large as the image.
            is_inside = 0 < low and high < shape[axis]
            assert is_inside or name == "sliding_regression", "give a larger image"
            first, last = extent[axis]
            expected = max(low, 0), min(high, shape[axis])
            assert (first, last + 1) == expected, (stage.name, axis)
    return len(stages)


@pytest.mark.parametrize("downsampling", ["stride", "max_pool", "space_to_depth"])
def test_fields_are_where_gradients_are(downsampling):
    changes = {"widths": (2, 2, 2), "downsampling": downsampling}
    assert check_by_gradients("simple_cnn", (40, 40, 1), **changes) == 3


def test_fields_without_sharing_are_where_gradients_are():
    changes = {"local_widths": (2, 2)}
    assert check_by_gradients("locally_connected", (15, 15, 1), **changes) == 2


def test_fields_of_residual_blocks_are_where_gradients_are():
    stages = ("stem", "stage2")
    assert check_by_gradients("resnet20", (48, 48, 3), only=stages) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FORMS if any(sum_form(FORMS[n]).values())])
def test_small_fields_are_where_gradients_are(name):
    """Along rows in a tall image, then along columns in a wide one: both are small."""
    channels = models.get_published_input(name)[1]
    small = [x for x in sum_form(FORMS[name]).values() if x and x[0] <= 300]
    length = 32 * (max(size + 2 * stride for size, stride in small) // 32 + 1)
    width = 64
    for axis, shape in enumerate([(length, width), (width, length)]):
        shape = (*shape, channels)
        assert check_by_gradients(name, shape, axes=(axis,)) == len(small)


def test_a_place_is_located():
    reach = Reach(axis=1, stride=4, first=-3, last=6)
    assert reach.size == 10
    assert reach.locate(2) == (5, 15)


def test_an_unknown_operation_is_refused():
    images = jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32)
    with pytest.raises(NotImplementedError, match="cumsum"):
        compute_fields(lambda x: jnp.cumsum(x, axis=1), images)


def test_what_is_flattened_sees_everything():
    images = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    fields = compute_fields(lambda x: x.reshape(2, 64) @ jnp.ones((64, 3)), images)
    assert fields == (None, None)
