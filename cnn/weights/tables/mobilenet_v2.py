"""MobileNet v2."""

from cnn.weights import transformers_tables
from cnn.weights.spelling import TORCHVISION, Spelling, Table
from cnn.weights.tables.inverted_residual import (
    list_parts,
    list_timm,
    list_torchvision_ends,
)


def list_mobilenet(model: str) -> list[Spelling]:
    """List the spellings of MobileNet v2, torchvision's and timm's."""
    rules = list_torchvision_ends(18)
    blocks = transformers_tables.number_blocks(model)
    for place, (ours, block) in enumerate(blocks.items(), start=1):
        *names, _ = list_parts(ours, block)
        for i, name in enumerate(names):
            rules.append((f"{ours}{name}_conv", f"features.{place}.conv.{i}.0"))
            rules.append((f"{ours}{name}_norm", f"features.{place}.conv.{i}.1"))
        last = len(names)
        rules.append((f"{ours}project_conv", f"features.{place}.conv.{last}"))
        rules.append((f"{ours}project_norm", f"features.{place}.conv.{last + 1}"))
    return [
        Spelling(TORCHVISION, rules),
        Spelling("timm", list_timm()),
        transformers_tables.spell_mobilenet_v2(model),
    ]


TABLE = Table(r"mobilenet_v2(_\d+_\d+)?", list_mobilenet)
