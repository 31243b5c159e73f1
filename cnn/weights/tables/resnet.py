"""ResNet, ResNeXt and wide ResNet."""

import re

from cnn.weights import transformers_tables
from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table

BLOCK = r"stage(\d+)_block(\d+)/"
RESNET: list[Rule] = [
    ("stem", "conv1"),
    ("stem_norm", "bn1"),
    (BLOCK + r"conv(\d)", "layer{1}.{2-1}.conv{3}"),
    (BLOCK + r"norm(\d)", "layer{1}.{2-1}.bn{3}"),
    (BLOCK + "shortcut_conv", "layer{1}.{2-1}.downsample.0"),
    (BLOCK + "shortcut_norm", "layer{1}.{2-1}.downsample.1"),
    ("head", "fc"),
]


def list_resnet(model: str) -> list[Spelling]:
    """List the spelling of ResNet, ResNeXt and wide ResNet; timm's is the same.

    torchvision has no class for the three stages of `resnext29_GxWd`.
    """
    has_class = not model.startswith("resnext29_")
    spellings = [Spelling(TORCHVISION, RESNET, has_class=has_class)]
    if re.fullmatch(r"resnet\d+", model):
        spellings.append(transformers_tables.spell_resnet())
    return spellings


TABLE = Table(r"(wide_)?resne(x)?t\d+(_\w+)?", list_resnet)
