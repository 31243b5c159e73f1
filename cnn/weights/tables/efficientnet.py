"""EfficientNet."""

from cnn.weights import transformers_tables
from cnn.weights.spelling import TORCHVISION, Spelling, Table
from cnn.weights.tables.inverted_residual import list_timm, list_torchvision_ends


def list_efficientnet(model: str) -> list[Spelling]:
    """List the spellings of EfficientNet, torchvision's and timm's."""
    rules = list_torchvision_ends(8)
    for first, names in (
        ("1", ["depthwise", "excite", "project"]),
        (r"\d", ["expand", "depthwise", "excite", "project"]),
    ):
        for i, name in enumerate(names):
            ours = rf"stage({first})_block(\d+)/"
            there = f"features.{{1}}.{{2-1}}.block.{i}"
            if name == "excite":
                rules.append((ours + "excite/squeeze", there + ".fc1"))
                rules.append((ours + "excite/excite", there + ".fc2"))
            else:
                rules.append((f"{ours}{name}_conv", there + ".0"))
                rules.append((f"{ours}{name}_norm", there + ".1"))
    return [
        Spelling(TORCHVISION, rules),
        Spelling("timm", list_timm()),
        transformers_tables.spell_efficientnet(),
    ]


TABLE = Table("efficientnet_b0", list_efficientnet)
