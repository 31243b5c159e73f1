"""MnasNet."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table
from cnn.weights.tables.inverted_residual import list_timm


def list_mnasnet(model: str) -> list[Spelling]:
    """List the spellings of MnasNet, torchvision's and timm's."""
    first = "stage1_block1/"
    rules: list[Rule] = [
        ("stem", "layers.0"),
        ("stem_norm", "layers.1"),
        (first + "depthwise_conv", "layers.3"),
        (first + "depthwise_norm", "layers.4"),
        (first + "project_conv", "layers.6"),
        (first + "project_norm", "layers.7"),
        ("last_conv", "layers.14"),
        ("last_norm", "layers.15"),
        ("head", "classifier.1"),
    ]
    for stage in range(2, 8):
        ours = rf"stage{stage}_block(\d)/"
        for i, part in enumerate(("expand", "depthwise", "project")):
            there = f"layers.{stage + 6}.{{1-1}}.layers."
            rules.append((f"{ours}{part}_conv", f"{there}{3 * i}"))
            rules.append((f"{ours}{part}_norm", f"{there}{3 * i + 1}"))
    return [Spelling(TORCHVISION, rules), Spelling("timm", list_timm())]


TABLE = Table(r"mnasnet\d+_\d+", list_mnasnet)
