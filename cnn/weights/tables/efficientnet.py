"""EfficientNet."""

import re

from cnn.weights import transformers_tables
from cnn.weights.spelling import TORCHVISION, Spelling, Table
from cnn.weights.tables.inverted_residual import (
    list_timm,
    list_torchvision_blocks,
    list_torchvision_ends,
    spell_timm_twice,
)


def list_efficientnet(model: str) -> list[Spelling]:
    """List the spellings of EfficientNet, torchvision's and timm's."""
    rules = [*list_torchvision_ends(8), *list_torchvision_blocks(model, False)]
    timm = [Spelling("timm", list_timm())]
    if re.fullmatch("efficientnet_b[567]", model):
        timm = spell_timm_twice(list_timm())
    theirs = transformers_tables.spell_efficientnet(model)
    return [Spelling(TORCHVISION, rules), *timm, theirs]


TABLE = Table(r"efficientnet_b\d", list_efficientnet)
