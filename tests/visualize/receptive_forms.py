"""The closed form of every architecture's receptive fields, and models to compare.

The forms are written out here layer by layer, as the papers have them, and summed by
size += (window - 1) · jump, jump *= stride. A stage is a list of (window, stride).
"""

import jax
import jax.numpy as jnp

from cnn import config as config_module
from cnn import models
from cnn.models.variables import create_variables

C3 = (3, 1)


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


def make_regnet(*counts):
    return {"stem": [(3, 2)]} | {
        f"stage{i}": [(3, 2)] + [C3] * (count - 1)
        for i, count in enumerate(counts, start=1)
    }


def make_convnext(*counts):
    stages, before = {"stem": [(4, 4)]}, []
    for number, count in enumerate(counts, start=1):
        stages[f"stage{number}"] = before + [(7, 1)] * count
        before = [(2, 2)]
    return stages


def make_cifar(blocks):
    return make_resnet([blocks] * 3, 2, [C3])


WHOLE = "whole"


def make_inverted(*rows):
    """Stages of inverted residuals from (kernel size, stride, blocks)."""
    return {"stem": [(3, 2)]} | {
        f"stage{number}": [(size, stride)] + [(size, 1)] * (count - 1)
        for number, (size, stride, count) in enumerate(rows, start=1)
    }


ALEXNET = {
    "stage1": [(11, 4)],
    "stage2": [(3, 2), (5, 1)],
    "stage3": [(3, 2), C3],
    "stage4": [C3],
    "stage5": [C3],
}
MOBILENET = make_inverted(
    (3, 1, 1), (3, 2, 2), (3, 2, 3), (3, 2, 4), (3, 1, 3), (3, 2, 3), (3, 1, 1)
)
MNASNET = make_inverted(
    (3, 1, 1), (3, 2, 3), (5, 2, 3), (5, 2, 3), (3, 1, 2), (5, 2, 4), (3, 1, 1)
)
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
    "airbench94": {"stem": [(2, 1)]}
    | {f"stage{i}": [C3, (2, 2), C3] for i in (1, 2, 3)},
    "squeezenet1_1": {
        "stem": [(3, 2)],
        "stage1": [(3, 2)] + [C3] * 2,
        "stage2": [(3, 2)] + [C3] * 2,
        "stage3": [(3, 2)] + [C3] * 4,
    },
    "squeezenet1_0": {
        "stem": [(7, 2)],
        "stage1": [(3, 2)] + [C3] * 3,
        "stage2": [(3, 2)] + [C3] * 4,
        "stage3": [(3, 2)] + [C3],
    },
    "lenet5": {"stage1": [(5, 1)], "stage2": [(2, 2), (5, 1)]},
    "nin": {"stage1": [(5, 1)], "stage2": [(3, 2), (5, 1)], "stage3": [(3, 2), C3]},
    "all_cnn_c": {
        "stage1": [C3, C3, (3, 2)],
        "stage2": [C3, C3, (3, 2)],
        "stage3": [C3],
    },
    "googlenet": {
        "stem": [(7, 2), (3, 2), C3],
        "stage1": [(3, 2)] + [C3] * 2,
        "stage2": [(3, 2)] + [C3] * 5,
        "stage3": [(2, 2)] + [C3] * 2,
    },
    "inception_v3": {
        "stem": [(3, 2), C3, C3, (3, 2), C3],
        "stage1": [(3, 2)] + [(5, 1)] * 3,
        "stage2": [C3, (3, 2)] + [(7, 1)] * 8,
        "stage3": [(7, 1), (3, 2)] + [(5, 1)] * 2,
    },
    "mobilenet_v2": MOBILENET,
    # From the first squeeze-and-excitation on, every value sees the whole image.
    "efficientnet_b0": {"stem": [(3, 2)]} | {f"stage{i}": WHOLE for i in range(1, 8)},
    "convnext_tiny": make_convnext(3, 3, 9, 3),
    "regnet_x_400mf": make_regnet(1, 2, 7, 12),
    "regnet_x_800mf": make_regnet(1, 3, 7, 5),
    "regnet_x_1_6gf": make_regnet(2, 4, 10, 2),
    "regnet_x_3_2gf": make_regnet(2, 6, 15, 2),
    "regnet_x_8gf": make_regnet(2, 5, 15, 1),
    "regnet_x_16gf": make_regnet(2, 6, 13, 1),
    "regnet_x_32gf": make_regnet(2, 7, 13, 1),
    "efficientnet_v2_s": make_inverted((3, 1, 2), (3, 2, 4), (3, 2, 4))
    | {f"stage{i}": WHOLE for i in range(4, 7)},
    "efficientnet_v2_m": make_inverted((3, 1, 3), (3, 2, 5), (3, 2, 5))
    | {f"stage{i}": WHOLE for i in range(4, 8)},
    "efficientnet_v2_l": make_inverted((3, 1, 4), (3, 2, 7), (3, 2, 7))
    | {f"stage{i}": WHOLE for i in range(4, 8)},
    "mobilenet_v3_small": {"stem": [(3, 2)]}
    | {f"stage{i}": WHOLE for i in range(1, 6)},
    "mobilenet_v3_large": make_inverted((3, 1, 1), (3, 2, 2))
    | {f"stage{i}": WHOLE for i in range(3, 7)},
    "mobilenet_v2_0_5": MOBILENET,
}
SHUFFLENET = {
    "stem": [(3, 2)],
    "stage1": [(3, 2), (3, 2)] + [C3] * 3,
    "stage2": [(3, 2)] + [C3] * 7,
    "stage3": [(3, 2)] + [C3] * 3,
}
FORMS |= {f"shufflenet_v2_x{x}": SHUFFLENET for x in ("0_5", "1_0", "1_5", "2_0")}
FORMS |= {f"{name}_bn": FORMS[name] for name in ("vgg11", "vgg13", "vgg16", "vgg19")}
FORMS |= dict.fromkeys(
    ["resnext50_32x4d", "wide_resnet50_2", "resnet50v2"], FORMS["resnet50"]
)
FORMS |= dict.fromkeys(
    ["resnext101_32x8d", "resnext101_64x4d", "wide_resnet101_2", "resnet101v2"],
    FORMS["resnet101"],
)
FORMS |= dict.fromkeys(
    ["mnasnet0_35", "mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3"], MNASNET
)
FORMS |= {f"efficientnet_b{n}": FORMS["efficientnet_b0"] for n in range(1, 8)}
FORMS["resnet152v2"] = FORMS["resnet152"]
FORMS |= {f"convnext_{x}": make_convnext(3, 3, 27, 3) for x in ("small", "base")}
FORMS["convnext_large"] = FORMS["convnext_base"]
SIZES = ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf", "128gf")
FORMS |= {
    f"regnet_y_{size}": {"stem": [(3, 2)]} | {f"stage{i}": WHOLE for i in (1, 2, 3, 4)}
    for size in SIZES
}
FORMS |= {"wide_resnet50_4": FORMS["resnet50"], "resnext101_32x4d": FORMS["resnet101"]}
FORMS |= {"preact_resnet18": FORMS["resnet18"], "preact_resnet34": FORMS["resnet34"]}
# Group normalisation sees the whole image.
FORMS |= dict.fromkeys(
    ["bit_r50x1", "bit_r101x1", "bit_r50x3", "bit_r152x2", "bit_r101x3", "bit_r152x4"],
    {"stem": [(7, 2)]} | {f"stage{i}": WHOLE for i in range(1, 5)},
)
FORMS |= dict.fromkeys(
    ["resnext29_2x4d", "resnext29_8x64d"], make_resnet([3] * 3, 1, [C3])
)
FORMS |= {
    f"preact_resnet_{9 * blocks + 2}": {"stem": [C3], "stage1": [C3] * blocks}
    | {f"stage{i}": [(1, 2)] + [C3] * blocks for i in (2, 3)}
    for blocks in (1, 18)
}
FORMS |= {
    f"densenet_bc_{6 * n + 4}_{growth}": {"stem": [C3], "stage1": [C3] * n}
    | {f"stage{i}": [(2, 2)] + [C3] * n for i in (2, 3)}
    for n, growth in ((1, 4), (6, 12), (16, 12))
}


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
