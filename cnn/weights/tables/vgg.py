"""VGG."""

import re

from cnn.models import vgg
from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table


def list_vgg(model: str) -> list[Spelling]:
    """List torchvision's spelling of VGG, and timm's (convolutions for dense)."""
    features: list[Rule] = []
    place, normalised = 0, model.endswith("_bn")
    for stage, depth in enumerate(vgg.DEPTHS[int(re.sub(r"\D", "", model))], start=1):
        for number in range(1, depth + 1):
            features.append((f"stage{stage}_conv{number}", f"features.{place}"))
            if normalised:
                there = f"features.{place + 1}"
                features.append((f"stage{stage}_norm{number}", there))
            place += 3 if normalised else 2
        place += 1
    torchvision = [("dense1", "0"), ("dense2", "3"), ("head", "6")]
    timm: list[Rule] = [
        ("dense1/kernel", "pre_logits.fc1.weight", (4096, -1, 7, 7)),
        ("dense2/kernel", "pre_logits.fc2.weight", (4096, -1, 1, 1)),
        (r"dense(\d)", "pre_logits.fc{1}"),
        ("head", "head.fc"),
    ]
    dense = [(ours, f"classifier.{there}") for ours, there in torchvision]
    return [
        Spelling(TORCHVISION, features + dense),
        Spelling("timm", features + timm),
    ]


TABLE = Table(r"vgg\d+(_bn)?", list_vgg, {"dense1": 7})
