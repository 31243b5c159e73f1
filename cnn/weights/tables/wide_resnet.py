"""Wide ResNet for CIFAR."""

from cnn.weights.spelling import Rule, Spelling, Table
from cnn.weights.tables.resnet import BLOCK


def list_wide_resnet(model: str) -> list[Spelling]:
    """List the spelling of github.com/xternalz/WideResNet-pytorch."""
    there = "block{1}.layer.{2-1}."
    rules: list[Rule] = [
        ("stem", "conv1"),
        (BLOCK + r"conv(\d)", there + "conv{3}"),
        (BLOCK + r"norm(\d)", there + "bn{3}"),
        (BLOCK + "shortcut_conv", there + "convShortcut"),
        ("norm", "bn1"),
        ("head", "fc"),
    ]
    return [Spelling("xternalz/WideResNet-pytorch", rules)]


TABLE = Table(r"wrn_\d+_\d+", list_wide_resnet)
