"""EfficientNet v2."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table
from cnn.weights.tables.inverted_residual import (
    list_timm,
    list_torchvision_blocks,
    list_torchvision_ends,
    spell_timm_twice,
)
from cnn.weights.transformers_tables import number_blocks


def list_efficientnet_v2(model: str) -> list[Spelling]:
    """List the spellings of EfficientNet v2, torchvision's and timm's."""
    *_, last = number_blocks(model)
    rules = list_torchvision_ends(int(last[len("stage(")]) + 1)
    first, fused = r"stage1_block(\d+)/fused_", r"stage([23])_block(\d+)/"
    there = "blocks.{1-1}.{2-1}."
    timm: list[Rule] = [
        (first + "conv", "blocks.0.{1-1}.conv"),
        (first + "norm", "blocks.0.{1-1}.bn1"),
        (fused + "fused_conv", there + "conv_exp"),
        (fused + "fused_norm", there + "bn1"),
        (fused + "project_norm", there + "bn2"),
    ]
    return [
        Spelling(TORCHVISION, [*rules, *list_torchvision_blocks(model, False)]),
        *spell_timm_twice([*timm, *list_timm()]),
    ]


TABLE = Table(r"efficientnet_v2_[sml]", list_efficientnet_v2)
