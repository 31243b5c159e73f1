"""What was published for each model: counts, and how its weights were evaluated.

A model is an entry of `PUBLISHED`, and each file of weights that its authors or
torchvision offer is one of the entry's. Counts are of the image size and the classes
that `models.get_published_input` has; those of models without weights are of their
papers, or arithmetic. Accuracies are in percent, of ImageNet's validation set.

Sources: torchvision.models' `…_Weights`, their `meta` and `transforms`; of BiT timm's
`resnetv2_…_bit.goog_in21k_ft_in1k`. GoogLeNet's and Inception's files renormalise what
ImageNet's mean and std have scaled (`transform_input`): as a whole that is 0.5 and 0.5.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF: Any = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@dataclasses.dataclass(frozen=True)
class Weights:
    """A published file of weights, and how it was evaluated.

    Images are resized until the shorter side has `resize` pixels, the central `size` of
    both sides are cut out, and channels in [0, 1] are scaled by `mean` and `std`.

    Attributes:
        name: as torchvision's.
        sha256: the first digits of the file's, which stand in its name too; empty:
            unknown.
        top1: accuracy in percent; None: not published.
        top5: likewise.
        size: of the square that the model sees, in pixels.
        resize: of the shorter side before, in pixels.
        by: `resize_interpolation`.
        mean: of each channel.
        std: of each channel.
        gmacs: where they are not the entry's, whose size is another.
    """

    name: str
    sha256: str = ""
    top1: float | None = None
    top5: float | None = None
    size: int = 224
    resize: int = 256
    by: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    gmacs: float | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Return the evaluation as options of `DataOptions`, by name."""
        return {
            "image_size": self.size,
            "resize_mode": "crop",
            "resize_size": self.resize,
            "resize_interpolation": self.by,
            "mean": self.mean,
            "std": self.std,
        }


@dataclasses.dataclass(frozen=True)
class Published:
    """What was published of a model.

    Attributes:
        parameters: how many.
        gmacs: 1e9 multiply-accumulates for an image; None: unknown.
        weights: the oldest first.
        smallest: side of the smallest image that it takes, in pixels.
    """

    parameters: int
    gmacs: float | None
    weights: tuple[Weights, ...]
    smallest: int


def _of(
    parameters: int, gmacs: float | None, *weights: Weights, smallest: int = 1
) -> Published:
    return Published(parameters, gmacs, weights, smallest)


_V1 = functools.partial(Weights, "IMAGENET1K_V1")
_V2 = functools.partial(Weights, "IMAGENET1K_V2", resize=232)
_E2E = functools.partial(
    Weights, "IMAGENET1K_SWAG_E2E_V1", size=384, resize=384, by="bicubic"
)
_LINEAR = functools.partial(
    Weights, "IMAGENET1K_SWAG_LINEAR_V1", resize=224, by="bicubic"
)
_BIT = functools.partial(Weights, "GOOG_IN21K_FT_IN1K", size=448, resize=448, **_HALF)

PUBLISHED: Mapping[str, Published] = {
    "alexnet": _of(61_100_840, 0.714, _V1("7be5be79", 56.522, 79.066), smallest=63),
    "vgg11": _of(132_863_336, 7.609, _V1("8a719046", 69.02, 88.628), smallest=32),
    "vgg11_bn": _of(132_868_840, 7.609, _V1("6002323d", 70.37, 89.81), smallest=32),
    "vgg13": _of(133_047_848, 11.308, _V1("19584684", 69.928, 89.246), smallest=32),
    "vgg13_bn": _of(133_053_736, 11.308, _V1("abd245e5", 71.586, 90.374), smallest=32),
    "vgg16": _of(138_357_544, 15.47, _V1("397923af", 71.592, 90.382), smallest=32),
    "vgg16_bn": _of(138_365_992, 15.47, _V1("6c64b313", 73.36, 91.516), smallest=32),
    "vgg19": _of(143_667_240, 19.632, _V1("dcbb9e9d", 72.376, 90.876), smallest=32),
    "vgg19_bn": _of(143_678_248, 19.632, _V1("c79401a0", 74.218, 91.842), smallest=32),
    "resnet18": _of(11_689_512, 1.814, _V1("f37072fd", 69.758, 89.078)),
    "resnet34": _of(21_797_672, 3.664, _V1("b627a593", 73.314, 91.42)),
    "resnet50": _of(
        25_557_032,
        4.089,
        _V1("0676ba61", 76.13, 92.862),
        _V2("11ad3fa6", 80.858, 95.434),
    ),
    "resnet101": _of(
        44_549_160,
        7.801,
        _V1("63fe2227", 77.374, 93.546),
        _V2("cd907fc2", 81.886, 95.78),
    ),
    "resnet152": _of(
        60_192_808,
        11.514,
        _V1("394f9c45", 78.312, 94.046),
        _V2("f82ba261", 82.284, 96.002),
    ),
    "resnext50_32x4d": _of(
        25_028_904,
        4.23,
        _V1("7cdf4587", 77.618, 93.698),
        _V2("1a0047aa", 81.198, 95.34),
    ),
    "resnext101_64x4d": _of(
        83_455_272, 15.46, _V1("173b62eb", 83.246, 96.454, resize=232)
    ),
    "resnext101_32x8d": _of(
        88_791_336,
        16.414,
        _V1("8ba56ff5", 79.312, 94.526),
        _V2("110c445d", 82.834, 96.228),
    ),
    "wide_resnet50_2": _of(
        68_883_240,
        11.398,
        _V1("95faca4d", 78.468, 94.086),
        _V2("9ba9bcbe", 81.602, 95.758),
    ),
    "wide_resnet101_2": _of(
        126_886_696,
        22.753,
        _V1("32ee1156", 78.848, 94.284),
        _V2("d733dc28", 82.51, 96.02),
    ),
    "densenet121": _of(7_978_856, 2.834, _V1("a639ec97", 74.434, 91.972), smallest=29),
    "densenet169": _of(14_149_480, 3.36, _V1("b2777c0a", 75.6, 92.806), smallest=29),
    "densenet201": _of(20_013_928, 4.291, _V1("c1103571", 76.896, 93.37), smallest=29),
    "densenet161": _of(28_681_000, 7.728, _V1("8d451a50", 77.138, 93.56), smallest=29),
    "squeezenet1_1": _of(
        1_235_496, 0.349, _V1("b8a52dc0", 58.178, 80.624), smallest=17
    ),
    "squeezenet1_0": _of(1_248_424, 0.819, _V1("b66bff10", 58.092, 80.42), smallest=21),
    "googlenet": _of(
        13_004_888, 1.498, _V1("1378be20", 69.778, 89.53, **_HALF), smallest=15
    ),
    "inception_v3": _of(
        27_161_264,
        5.713,
        _V1("0cc3c7bd", 77.294, 93.45, size=299, resize=342, **_HALF),
        smallest=75,
    ),
    "shufflenet_v2_x0_5": _of(1_366_792, 0.04, _V1("f707e7126e", 60.552, 81.746)),
    "shufflenet_v2_x1_0": _of(2_278_604, 0.145, _V1("5666bf0f80", 69.362, 88.316)),
    "shufflenet_v2_x1_5": _of(
        3_503_624, 0.296, _V1("3c479a10", 72.996, 91.086, resize=232)
    ),
    "shufflenet_v2_x2_0": _of(
        7_393_996, 0.583, _V1("8be3c8ee", 76.23, 93.006, resize=232)
    ),
    "mobilenet_v2": _of(
        3_504_872,
        0.301,
        _V1("b0353104", 71.878, 90.286),
        _V2("7ebf99e0", 72.154, 90.822),
    ),
    "mobilenet_v3_small": _of(2_542_856, 0.057, _V1("047dcff4", 67.668, 87.402)),
    "mobilenet_v3_large": _of(
        5_483_032,
        0.217,
        _V1("8738ca79", 74.042, 91.34),
        _V2("5c1a4163", 75.274, 92.566),
    ),
    "mnasnet0_5": _of(2_218_512, 0.104, _V1("3ffadce67e", 67.734, 87.49)),
    "mnasnet0_75": _of(3_170_208, 0.215, _V1("7090bc5f", 71.18, 90.496, resize=232)),
    "mnasnet1_0": _of(4_383_312, 0.314, _V1("f206786ef8", 73.456, 91.51)),
    "mnasnet1_3": _of(6_282_256, 0.526, _V1("a4c69d6f", 76.506, 93.522, resize=232)),
    "efficientnet_b0": _of(
        5_288_548, 0.386, _V1("7f5810bc", 77.692, 93.532, by="bicubic")
    ),
    "efficientnet_b1": _of(
        7_794_184,
        0.687,
        _V1("bac287d4", 78.642, 94.186, size=240, by="bicubic"),
        _V2("c27df63c", 79.838, 94.934, size=240, resize=255),
    ),
    "efficientnet_b2": _of(
        9_109_994,
        1.088,
        _V1("c35c1473", 80.608, 95.31, size=288, resize=288, by="bicubic"),
    ),
    "efficientnet_b3": _of(
        12_233_232,
        1.827,
        _V1("b3899882", 82.008, 96.054, size=300, resize=320, by="bicubic"),
    ),
    "efficientnet_b4": _of(
        19_341_616,
        4.394,
        _V1("23ab8bcd", 83.384, 96.594, size=380, resize=384, by="bicubic"),
    ),
    "efficientnet_b5": _of(
        30_389_784,
        10.266,
        _V1("1a07897c", 83.444, 96.628, size=456, resize=456, by="bicubic"),
    ),
    "efficientnet_b6": _of(
        43_040_704,
        19.068,
        _V1("24a108a5", 84.008, 96.916, size=528, resize=528, by="bicubic"),
    ),
    "efficientnet_b7": _of(
        66_347_960,
        37.746,
        _V1("c5b4e57e", 84.122, 96.908, size=600, resize=600, by="bicubic"),
    ),
    "efficientnet_v2_s": _of(
        21_458_488,
        8.366,
        _V1("dd5fe13b", 84.228, 96.878, size=384, resize=384),
    ),
    "efficientnet_v2_m": _of(
        54_139_356,
        24.582,
        _V1("dc08266a", 85.112, 97.156, size=480, resize=480),
    ),
    "efficientnet_v2_l": _of(
        118_515_272,
        56.08,
        _V1("59c71312", 85.808, 97.788, size=480, resize=480, by="bicubic", **_HALF),
    ),
    "regnet_x_400mf": _of(
        5_495_976,
        0.414,
        _V1("adf1edd5", 72.834, 90.95),
        _V2("62229a5f", 74.864, 92.322),
    ),
    "regnet_x_800mf": _of(
        7_259_656, 0.8, _V1("ad17e45c", 75.212, 92.348), _V2("94a99ebd", 77.522, 93.826)
    ),
    "regnet_x_1_6gf": _of(
        9_190_136, 1.603, _V1("e3633e7f", 77.04, 93.44), _V2("a12f2b72", 79.668, 94.922)
    ),
    "regnet_x_3_2gf": _of(
        15_296_552,
        3.177,
        _V1("f342aeae", 78.364, 93.992),
        _V2("7071aa85", 81.196, 95.43),
    ),
    "regnet_x_8gf": _of(
        39_572_648,
        7.995,
        _V1("03ceed89", 79.344, 94.686),
        _V2("2b70d774", 81.682, 95.678),
    ),
    "regnet_x_16gf": _of(
        54_278_536,
        15.941,
        _V1("2007eb11", 80.058, 94.944),
        _V2("ba3796d7", 82.716, 96.196),
    ),
    "regnet_x_32gf": _of(
        107_811_560,
        31.736,
        _V1("9d47f8d0", 80.622, 95.248),
        _V2("6eb8fdc6", 83.014, 96.288),
    ),
    "regnet_y_400mf": _of(
        4_344_144,
        0.402,
        _V1("c65dace8", 74.046, 91.716),
        _V2("e6988f5f", 75.804, 92.742),
    ),
    "regnet_y_800mf": _of(
        6_432_512,
        0.834,
        _V1("1b27b58c", 76.42, 93.136),
        _V2("58fc7688", 78.828, 94.502),
    ),
    "regnet_y_1_6gf": _of(
        11_202_430,
        1.612,
        _V1("b11a554e", 77.95, 93.966),
        _V2("0d7bc02a", 80.876, 95.444),
    ),
    "regnet_y_3_2gf": _of(
        19_436_338,
        3.176,
        _V1("b5a9779c", 78.948, 94.576),
        _V2("9180c971", 81.982, 95.972),
    ),
    "regnet_y_8gf": _of(
        39_381_472,
        8.473,
        _V1("d0d0e4a8", 80.032, 95.048),
        _V2("dc2b1b54", 82.828, 96.33),
    ),
    "regnet_y_16gf": _of(
        83_590_140,
        15.912,
        _V1("9e6ed7dd", 80.424, 95.24),
        _V2("3e4a00f9", 82.886, 96.328),
        _E2E("43afe44d", 86.012, 98.054, gmacs=46.735),
        _LINEAR("f3ec0043", 83.976, 97.244),
    ),
    "regnet_y_32gf": _of(
        145_046_770,
        32.28,
        _V1("4dee3f7a", 80.878, 95.34),
        _V2("8db6d4b5", 83.368, 96.498),
        _E2E("04fdfa75", 86.838, 98.362, gmacs=94.826),
        _LINEAR("e1583746", 84.622, 97.48),
    ),
    "regnet_y_128gf": _of(
        644_812_894,
        127.518,
        _E2E("c8ce3e52", 88.228, 98.682, gmacs=374.57),
        _LINEAR("cbe8ce12", 86.068, 97.844),
    ),
    "convnext_tiny": _of(
        28_589_128, 4.456, _V1("983f1562", 82.52, 96.146, resize=236), smallest=32
    ),
    "convnext_small": _of(
        50_223_688, 8.684, _V1("0c510722", 83.616, 96.65, resize=230), smallest=32
    ),
    "convnext_base": _of(
        88_591_464, 15.355, _V1("6075fbad", 84.062, 96.87, resize=232), smallest=32
    ),
    "convnext_large": _of(
        197_767_336, 34.361, _V1("ea097f82", 84.414, 96.976, resize=232), smallest=32
    ),
    "bit_r50x1": _of(25_549_352, 4.089, _BIT()),
    "bit_r101x1": _of(44_541_480, 7.801, _BIT()),
    "bit_r50x3": _of(217_319_080, 36.08, _BIT()),
    "bit_r101x3": _of(387_934_888, 69.49, _BIT()),
    "bit_r152x2": _of(236_335_208, 45.81, _BIT()),
    "bit_r152x4": _of(936_533_224, 182.8, _BIT(size=480, resize=480)),
    # Without published weights.
    "alexnet_2012": _of(60_965_224, 0.724, smallest=67),
    "preact_resnet18": _of(11_687_720, 1.814),
    "preact_resnet34": _of(21_795_880, 3.664),
    "resnext101_32x4d": _of(44_177_704, 7.97),
    "resnet50v2": _of(25_549_352, 4.089),
    "resnet101v2": _of(44_541_480, 7.801),
    "resnet152v2": _of(60_185_128, 11.514),
    "resnet20": _of(269_722, 0.0406),
    "resnet32": _of(464_154, 0.0689),
    "resnet44": _of(658_586, 0.0972),
    "resnet56": _of(853_018, 0.1255),
    "resnet110": _of(1_727_962, 0.2529),
    "wrn_10_1": _of(77_850, 0.0125),
    "wrn_16_4": _of(2_748_890, 0.3926),
    "wrn_28_10": _of(36_479_194, 5.2433),
    "logistic_regression": _of(650, 6.4e-07),
    "mlp": _of(26_122, 2.586e-05),
    "simple_cnn": _of(94_186, 0.0006095, smallest=8),
    "sliding_regression": _of(650, 4.096e-05),
    "locally_connected": _of(6_410, 6.224e-06, smallest=7),
    "wide_resnet50_4": _of(223_439_144, 37.11),
    "densenet_bc_10_4": _of(2_666, 0.001243, smallest=4),
    "densenet_bc_40_12": _of(176_122, 0.07237, smallest=4),
    "densenet_bc_100_12": _of(769_162, 0.2879, smallest=4),
    "mobilenet_v2_0_5": _of(1_968_680, 0.09713),
    "mnasnet0_35": _of(1_788_232, 0.05888),
    "lenet5": _of(61_706, 0.0004165, smallest=16),
    "nin": _of(966_986, 0.2225, smallest=4),
    "all_cnn_c": _of(1_369_738, 0.2708, smallest=9),
    "preact_resnet_11": _of(126_746, 0.01722),
    "preact_resnet_164": _of(1_703_258, 0.2445),
    "resnext29_2x4d": _of(953_034, 0.1287),
    "resnext29_8x64d": _of(34_426_698, 5.387),
    "airbench94": _of(1_971_640, 0.1181, smallest=9),
}
