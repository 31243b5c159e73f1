"""Parameters, batch statistics and multiply-accumulates of the published models.

Sources: those of cnn/models/published.py for ImageNet; arithmetic for CIFAR.
"""

import dataclasses
import decimal

import pytest

from cnn import models
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.models.published import PUBLISHED
from cnn.models.summary import describe_model

# Batch statistics; parameters and multiply-accumulates are in cnn/models/published.py.
BATCH_STATS = {
    "alexnet": 0,
    "alexnet_2012": 0,
    "vgg11": 0,
    "vgg11_bn": 5_504,
    "vgg13": 0,
    "vgg13_bn": 5_888,
    "vgg16": 0,
    "vgg16_bn": 8_448,
    "vgg19": 0,
    "vgg19_bn": 11_008,
    "resnet18": 9_600,
    "resnet34": 17_024,
    "resnet50": 53_120,
    "resnet101": 105_344,
    "resnet152": 151_424,
    "resnext50_32x4d": 68_224,
    "resnext101_32x8d": 202_880,
    "resnext101_64x4d": 202_880,
    "wide_resnet50_2": 68_224,
    "wide_resnet101_2": 137_856,
    "squeezenet1_1": 0,
    "convnext_tiny": 0,
    "convnext_small": 0,
    "convnext_base": 0,
    "convnext_large": 0,
    "regnet_y_400mf": 27_152,
    "regnet_y_800mf": 30_432,
    "regnet_y_1_6gf": 52_672,
    "regnet_y_3_2gf": 66_160,
    "regnet_y_8gf": 86_528,
    "regnet_y_16gf": 122_816,
    "regnet_y_32gf": 158_288,
    "regnet_y_128gf": 415_072,
    "regnet_x_400mf": 37_856,
    "regnet_x_800mf": 37_312,
    "regnet_x_1_6gf": 43_504,
    "regnet_x_3_2gf": 62_560,
    "regnet_x_8gf": 90_464,
    "regnet_x_16gf": 111_168,
    "regnet_x_32gf": 162_016,
    "mnasnet0_5": 20_624,
    "mnasnet0_75": 29_808,
    "mnasnet1_0": 37_920,
    "mnasnet1_3": 48_816,
    "mobilenet_v3_small": 12_112,
    "mobilenet_v3_large": 24_400,
    "efficientnet_b1": 62_048,
    "efficientnet_b2": 67_568,
    "efficientnet_b3": 87_296,
    "efficientnet_b4": 125_200,
    "efficientnet_b5": 172_736,
    "efficientnet_b6": 224_432,
    "efficientnet_b7": 310_720,
    "efficientnet_v2_s": 153_872,
    "efficientnet_v2_m": 292_032,
    "efficientnet_v2_l": 512_576,
    "squeezenet1_0": 0,
    "shufflenet_v2_x0_5": 7_952,
    "shufflenet_v2_x1_0": 16_180,
    "shufflenet_v2_x1_5": 23_440,
    "shufflenet_v2_x2_0": 33_716,
    "googlenet": 15_072,
    "inception_v3": 36_224,
    "preact_resnet18": 7_808,
    "preact_resnet34": 15_232,
    "resnext101_32x4d": 137_856,
    "bit_r50x1": 0,
}
# Parameters and batch statistics of widths that torchvision takes as a number.
WIDTHS = {
    "mobilenet_v2_0_5": (1_968_680, 18_544),
    "mobilenet_v2_1_4": (6_108_776, 47_936),
    "mnasnet0_35": (1_788_232, 14_976),
    "mnasnet0_25": (1_606_024, 12_176),
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
    # 156 + 2416 + 48120 + 10164 + 850
    "lenet5": (61_706, 0, None),
    # Of the authors' prototxt: 14592 + 30880 + 15456, 460992 + 2 * 37056, 331968 +
    # 37056 + 1930.
    "nin": (966_986, 0, 0.222),
    # The paper rounds to 1.4 million: 2688 + 2 * 83040, 166080 + 2 * 331968, 331968 +
    # 37056 + 1930.
    "all_cnn_c": (1_369_738, 0, 0.271),
    # github.com/liuzhuang13/DenseNet: 0.8, 15.3 and 25.6 million
    "densenet_bc_100_12": (769_162, None, None),
    "densenet_bc_250_24": (15_324_406, None, None),
    "densenet_bc_190_40": (25_624_430, None, None),
    # arXiv:1603.05027, table 4: 1.7 and 10.2 million
    "preact_resnet_164": (1_703_258, 24_224, None),
    "preact_resnet_1001": (10_327_706, 149_216, None),
    # arXiv:1611.05431, table 7: 34.4 and 68.1 million
    "resnext29_8x64d": (34_426_698, None, None),
    "resnext29_16x64d": (68_155_210, None, None),
}
HUNDRED_CLASSES = {
    "wrn_16_4": 2_772_020,
    "wrn_16_8": 11_007_540,
    "wrn_22_8": 17_204_276,
    "wrn_28_10": 36_536_884,
    "wrn_40_4": 8_972_340,
    "all_cnn_c": 1_387_108,
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
SLOW |= {name for name in BATCH_STATS if name.startswith("regnet")} - {"regnet_y_400mf"}
SLOW |= {"convnext_small", "convnext_base", "convnext_large"}
SLOW |= {"densenet_bc_250_24", "densenet_bc_190_40", "preact_resnet_164"}
SLOW |= {"preact_resnet_1001", "densenet_bc_100_12", "resnext101_32x4d"}
SLOW |= {"wrn_40_1", "wrn_40_2", "wrn_40_4", "wrn_40_10"}


# The entries of models that there are.
ENTRIES = [name for name in PUBLISHED if any(x.find(name) for x in models.FAMILIES)]


def mark_slow(names):
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow) if name in SLOW else name for name in names]


def describe(name, num_classes, size=0, **choices):
    options = dataclasses.replace(ModelOptions(), model=name, **choices)
    published, channels, _ = models.get_published_input(name)
    size = size or published
    model = models.create_model(options, num_classes)
    return describe_model(model, (size, size, channels))


def assert_counts(found, parameters, batch_stats, gmacs):
    assert found["num_parameters"] == parameters
    if batch_stats is not None:
        assert found["num_batch_stats"] == batch_stats
    if gmacs is not None:
        digits = -decimal.Decimal(str(gmacs)).as_tuple().exponent
        assert round(found["macs"] / 1e9, digits) == gmacs


@pytest.mark.parametrize("name", mark_slow(ENTRIES))
def test_models_have_their_published_counts(name):
    entry, (size, _, classes) = PUBLISHED[name], models.get_published_input(name)
    found = describe(name, classes)
    assert_counts(found, entry.parameters, BATCH_STATS.get(name), entry.gmacs)
    sizes = [x.size for x in entry.weights if x.gmacs is None and x.sha256]
    assert not sizes or size in sizes


@pytest.mark.slow  # 384x384 of the largest
@pytest.mark.parametrize("name", ENTRIES)
def test_evaluations_of_another_size_have_their_counts(name):
    for weights in PUBLISHED[name].weights:
        if weights.gmacs is not None:
            found = describe(name, 1000, weights.size)
            assert_counts(found, PUBLISHED[name].parameters, None, weights.gmacs)


# One block of each kind is enough to know the smallest image: the first of a family.
SMALLEST = [next((n for n in x.models if n in ENTRIES), None) for x in models.FAMILIES]
SMALLEST = [name for name in SMALLEST if name] + ["alexnet_2012", "resnet50v2"]


@pytest.mark.parametrize(
    "name",
    [n if n in SMALLEST else pytest.param(n, marks=pytest.mark.slow) for n in ENTRIES],
)
def test_the_smallest_image_is_that_of_the_entry(name):
    smallest = PUBLISHED[name].smallest
    assert describe(name, 10, smallest)["output_shape"] == [10]
    if smallest > 1:
        with pytest.raises(UserError, match="too small|at least"):
            describe(name, 10, smallest - 1)


@pytest.mark.parametrize("name", WIDTHS)
def test_other_widths_have_their_counts(name):
    assert_counts(describe(name, 1000), *WIDTHS[name], None)


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


def test_big_transfer_has_its_count_with_all_classes_of_imagenet():
    """68.3 million, as of timm's resnetv2_50x1_bit.goog_in21k."""
    assert describe("bit_r50x1", 21_843)["num_parameters"] == 68_256_659


REFUSED = {
    "densenet_bc_41_12": "densenet_bc_40_12",
    "densenet_bc_99_0": "densenet_bc_100_1",
    "preact_resnet_165": "preact_resnet_164",
    "preact_resnet_2": "preact_resnet_11",
    "resnext29_0x64d": "resnext29_1x64d",
    "resnext90_32x4d": "resnext101_32x4d",
    "wide_resnet50_0": "wide_resnet50_1",
}


@pytest.mark.parametrize("name", REFUSED)
def test_numbers_of_which_there_is_no_model_are_refused_with_the_nearest(name):
    with pytest.raises(UserError, match=rf"did you mean {REFUSED[name]}\?"):
        models.create_model(ModelOptions(model=name), 10)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5"])
def test_the_stem_for_small_images_strides_alone(name):
    """The same parameters, and twice the pixels on each side at each layer."""
    usual, small = describe(name, 10), describe(name, 10, stem="cifar")
    assert small["num_parameters"] == usual["num_parameters"]
    assert 3.9 < small["macs"] / usual["macs"] < 4


@pytest.mark.parametrize("name", ["mobilenet_v2_0_0", "mnasnet0_00"])
def test_a_width_of_nothing_is_refused(name):
    with pytest.raises(UserError, match=f"--model={name}: its width is 0"):
        models.create_model(ModelOptions(model=name), 10)


@pytest.mark.parametrize(("sizes", "blocks"), BLOCKS)
def test_block_types_have_their_counts(sizes, blocks):
    found = describe(f"wrn_{6 * blocks + 4}_2", 10, wrn_block=sizes)
    assert found["num_parameters"] == BLOCKS[sizes, blocks]
