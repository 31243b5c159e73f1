"""ResNet for CIFAR."""

from cnn.weights.spelling import Rule, Spelling, Table
from cnn.weights.tables.resnet import BLOCK, RESNET


def list_cifar_resnet(model: str) -> list[Spelling]:
    """List the spelling of github.com/akamaster/pytorch_resnet_cifar10."""
    own: list[Rule] = [
        (BLOCK + "shortcut_conv", "layer{1}.{2-1}.shortcut.0"),
        (BLOCK + "shortcut_norm", "layer{1}.{2-1}.shortcut.1"),
        ("head", "linear"),
    ]
    return [Spelling("akamaster/pytorch_resnet_cifar10", own + RESNET)]


TABLE = Table(r"resnet(20|32|44|56|110)", list_cifar_resnet)
