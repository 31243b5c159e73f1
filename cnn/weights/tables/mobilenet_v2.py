"""MobileNet v2."""

from cnn.models import mobilenet_v2
from cnn.weights import transformers_tables
from cnn.weights.spelling import TORCHVISION, Spelling, Table
from cnn.weights.tables.inverted_residual import list_timm, list_torchvision_ends


def list_mobilenet(model: str) -> list[Spelling]:
    """List the spellings of MobileNet v2, torchvision's and timm's."""
    rules, place = list_torchvision_ends(18), 0
    for stage, (expansion, *_, depth) in enumerate(mobilenet_v2.STAGES, 1):
        for number in range(1, depth + 1):
            ours, place = f"stage{stage}_block{number}/", place + 1
            names = ["depthwise"] if expansion == 1 else ["expand", "depthwise"]
            for i, name in enumerate(names):
                rules.append((f"{ours}{name}_conv", f"features.{place}.conv.{i}.0"))
                rules.append((f"{ours}{name}_norm", f"features.{place}.conv.{i}.1"))
            last = len(names)
            rules.append((f"{ours}project_conv", f"features.{place}.conv.{last}"))
            rules.append((f"{ours}project_norm", f"features.{place}.conv.{last + 1}"))
    return [
        Spelling(TORCHVISION, rules),
        Spelling("timm", list_timm()),
        transformers_tables.spell_mobilenet_v2(),
    ]


TABLE = Table("mobilenet_v2", list_mobilenet)
