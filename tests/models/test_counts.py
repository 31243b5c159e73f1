"""Parameters, batch statistics and multiply-accumulates of the published models.

Sources: torchvision's metadata for ImageNet; arithmetic for CIFAR.
"""

import dataclasses

import pytest

from cnn import models
from cnn.models.options import ModelOptions
from cnn.models.summary import describe_model

# model: (parameters, batch statistics, 1e9 multiply-accumulates), 1000 classes
IMAGENET = {
    "alexnet": (61_100_840, 0, 0.714),
    "alexnet_2012": (60_965_224, 0, None),
    "vgg11": (132_863_336, 0, 7.609),
    "vgg11_bn": (132_868_840, 5_504, 7.609),
    "vgg13": (133_047_848, 0, 11.308),
    "vgg13_bn": (133_053_736, 5_888, 11.308),
    "vgg16": (138_357_544, 0, 15.47),
    "vgg16_bn": (138_365_992, 8_448, 15.47),
    "vgg19": (143_667_240, 0, 19.632),
    "vgg19_bn": (143_678_248, 11_008, 19.632),
    "resnet18": (11_689_512, 9_600, 1.814),
    "resnet34": (21_797_672, 17_024, 3.664),
    "resnet50": (25_557_032, 53_120, 4.089),
    "resnet101": (44_549_160, 105_344, 7.801),
    "resnet152": (60_192_808, 151_424, 11.514),
    "resnext50_32x4d": (25_028_904, 68_224, 4.23),
    "resnext101_32x8d": (88_791_336, 202_880, 16.414),
    "resnext101_64x4d": (83_455_272, 202_880, 15.46),
    "wide_resnet50_2": (68_883_240, 68_224, 11.398),
    "wide_resnet101_2": (126_886_696, 137_856, 22.753),
    "densenet121": (7_978_856, None, 2.834),
    "densenet169": (14_149_480, None, 3.36),
    "densenet201": (20_013_928, None, 4.291),
    "densenet161": (28_681_000, None, 7.728),
    "squeezenet1_1": (1_235_496, 0, 0.349),
    "mobilenet_v2": (3_504_872, None, 0.301),
    "efficientnet_b0": (5_288_548, None, 0.386),
    "convnext_tiny": (28_589_128, 0, 4.456),
}
TEN_CLASSES = {"alexnet": 57_044_810, "resnet50": 23_528_522}
# The same, 10 classes; every further class adds one row of the head.
CIFAR = {
    "resnet20": (269_722, 1_376, 0.0406),
    "resnet32": (464_154, 2_272, 0.069),
    "resnet44": (658_586, 3_168, 0.097),
    "resnet56": (853_018, 4_064, 0.1255),
    "resnet110": (1_727_962, 8_096, 0.253),
    "wrn_16_4": (2_748_890, 3_616, 0.393),
    "wrn_16_8": (10_961_370, 7_200, 1.548),
    "wrn_22_8": (17_158_106, 10_784, 2.454),
    "wrn_28_10": (36_479_194, 17_952, 5.243),
    "wrn_40_4": (8_949_210, 10_784, 1.299),
    "wrn_10_1": (77_850, None, None),
    "wrn_16_1": (175_066, None, None),
    "wrn_16_2": (691_674, None, None),
    "wrn_28_1": (369_498, None, None),
    "wrn_28_2": (1_467_610, None, None),
    "wrn_40_1": (563_930, None, None),
    "wrn_40_2": (2_243_546, None, None),
    "wrn_40_10": (55_841_754, None, None),
}
HUNDRED_CLASSES = {
    "wrn_16_4": 2_772_020,
    "wrn_16_8": 11_007_540,
    "wrn_22_8": 17_204_276,
    "wrn_28_10": 36_536_884,
    "wrn_40_4": 8_972_340,
}
# Blocks of wide ResNets of width 2, by (convolutions, n blocks a stage).
BLOCKS = {
    ((1, 3, 1), 6): 1_429_082,
    ((3, 1), 6): 1_211_354,
    ((1, 3), 6): 1_297_370,
    ((3, 1, 1), 6): 1_343_066,
    ((3, 3), 4): 1_467_610,
    ((3, 1, 3), 3): 1_145_498,
}
SLOW = {"resnet110", "resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d"}
SLOW |= {"wide_resnet101_2", "densenet169", "densenet201", "densenet161"}
SLOW |= {"wrn_40_1", "wrn_40_2", "wrn_40_4", "wrn_40_10"}


def mark_slow(names):
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow) if name in SLOW else name for name in names]


def describe(name, num_classes, **choices):
    options = dataclasses.replace(ModelOptions(), model=name, **choices)
    size, channels, _ = models.get_published_input(name)
    model = models.create_model(options, num_classes)
    return describe_model(model, (size, size, channels))


def assert_counts(found, parameters, batch_stats, gmacs):
    assert found["num_parameters"] == parameters
    if batch_stats is not None:
        assert found["num_batch_stats"] == batch_stats
    if gmacs is not None:
        digits = len(str(gmacs).partition(".")[2])
        assert round(found["macs"] / 1e9, digits) == gmacs


@pytest.mark.parametrize("name", mark_slow(IMAGENET))
def test_imagenet_models_have_their_counts(name):
    assert_counts(describe(name, 1000), *IMAGENET[name])


@pytest.mark.parametrize("name", TEN_CLASSES)
def test_imagenet_models_have_their_counts_with_ten_classes(name):
    assert describe(name, 10)["num_parameters"] == TEN_CLASSES[name]


@pytest.mark.parametrize("name", mark_slow(CIFAR))
def test_cifar_models_have_their_counts(name):
    assert_counts(describe(name, 10), *CIFAR[name])


@pytest.mark.parametrize("name", mark_slow(HUNDRED_CLASSES))
def test_cifar_models_have_their_counts_with_hundred_classes(name):
    assert describe(name, 100)["num_parameters"] == HUNDRED_CLASSES[name]


@pytest.mark.parametrize("name", mark_slow(["resnet20", "resnet110"]))
def test_projection_shortcuts_add_their_parameters(name):
    found = describe(name, 10, resnet_shortcut="project")
    assert found["num_parameters"] == CIFAR[name][0] + 2_752


def test_a_resnet_with_the_stem_for_small_images_has_its_count():
    """As of github.com/kuangliu/pytorch-cifar."""
    assert describe("resnet18", 10, stem="cifar")["num_parameters"] == 11_173_962


@pytest.mark.parametrize(("sizes", "blocks"), BLOCKS)
def test_block_types_have_their_counts(sizes, blocks):
    found = describe(f"wrn_{6 * blocks + 4}_2", 10, wrn_block=sizes)
    assert found["num_parameters"] == BLOCKS[sizes, blocks]
