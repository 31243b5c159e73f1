"""ShuffleNet v2."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table

# Modules of a block: theirs by ours.
_BLOCK = {
    "shortcut_depthwise_conv": "branch1.0",
    "shortcut_depthwise_norm": "branch1.1",
    "shortcut_project_conv": "branch1.2",
    "shortcut_project_norm": "branch1.3",
    "expand_conv": "branch2.0",
    "expand_norm": "branch2.1",
    "depthwise_conv": "branch2.3",
    "depthwise_norm": "branch2.4",
    "project_conv": "branch2.5",
    "project_norm": "branch2.6",
}


def list_shufflenet_v2(model: str) -> list[Spelling]:
    """List torchvision's spelling, whose first stage is its stem."""
    rules: list[Rule] = [
        ("stem", "conv1.0"),
        ("stem_norm", "conv1.1"),
        ("last_conv", "conv5.0"),
        ("last_norm", "conv5.1"),
        ("head", "fc"),
    ]
    for stage in (1, 2, 3):
        for ours, theirs in _BLOCK.items():
            path = rf"stage{stage}_block(\d+)/{ours}"
            rules.append((path, f"stage{stage + 1}.{{1-1}}.{theirs}"))
    return [Spelling(TORCHVISION, rules)]


TABLE = Table(r"shufflenet_v2_\w+", list_shufflenet_v2)
