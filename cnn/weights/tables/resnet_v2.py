"""ResNet v2: pre-activated ResNets and BiT."""

import re

from cnn.weights.spelling import Rule, Spelling, Table
from cnn.weights.tables.own import OWN
from cnn.weights.tables.resnet import BLOCK


def list_resnet_v2(model: str) -> list[Spelling]:
    """List timm's spelling of ResNet v2; `resnet50v2` and the like are written in ours.

    timm has no class for the three stages of `preact_resnet_N`. Its head is a 1x1
    convolution.
    """
    there = "stages.{1-1}.blocks.{2-1}."
    rules: list[Rule] = [
        ("stem", "stem.conv"),
        (BLOCK + r"(conv|norm)(\d)", there + "{3}{4}"),
        (BLOCK + "shortcut_conv", there + "downsample.conv"),
        ("norm", "norm"),
        ("head/kernel", "head.fc.weight", (-1, _count_features(model), 1, 1)),
        ("head", "head.fc"),
    ]
    timm = Spelling("timm", rules, has_class=not model.startswith("preact_resnet_"))
    return [OWN, timm] if model.endswith("v2") else [timm]


def _count_features(model: str) -> int:
    """Count the channels before the head."""
    if width := re.fullmatch(r"bit_r\d+x(\d+)", model):
        return 2048 * int(width[1])
    if model.startswith("preact_resnet_"):
        return 256
    return 2048 if model.endswith("v2") else 512


TABLE = Table(r"preact_resnet(18|34|_\d+)|resnet\d+v2|bit_r\d+x\d+", list_resnet_v2)
