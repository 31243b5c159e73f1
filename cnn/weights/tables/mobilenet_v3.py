"""MobileNet v3."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table
from cnn.weights.tables.inverted_residual import (
    list_timm,
    list_torchvision_blocks,
    list_torchvision_ends,
    spell_timm_twice,
)
from cnn.weights.transformers_tables import number_blocks


def list_mobilenet_v3(model: str) -> list[Spelling]:
    """List the spellings of MobileNet v3, torchvision's and timm's."""
    blocks = number_blocks(model)
    (*_, last), (*_, block) = blocks, blocks.values()
    ends: list[Rule] = [("dense1", "classifier.0"), ("head", "classifier.3")]
    rules = [*ends, *list_torchvision_ends(len(blocks) + 1)]
    # timm's last stage is the convolution behind them, and its dense layer a 1x1 one.
    there, inputs = f"blocks.{last[len('stage(')]}.0.", 6 * block.features
    timm: list[Rule] = [
        ("last_conv", there + "conv"),
        ("last_norm", there + "bn1"),
        ("dense1/kernel", "conv_head.weight", (-1, inputs, 1, 1)),
        ("dense1", "conv_head"),
    ]
    return [
        Spelling(TORCHVISION, [*rules, *list_torchvision_blocks(model, True)]),
        *spell_timm_twice([*timm, *list_timm()]),
    ]


TABLE = Table(r"mobilenet_v3_(small|large)", list_mobilenet_v3)
