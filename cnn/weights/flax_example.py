"""What Flax's imagenet example calls the modules of its ResNets.

Its blocks are numbered through all stages, and pad as TensorFlow does where they
stride. Source: https://github.com/google/flax/blob/main/examples/imagenet/models.py
"""

import re
from collections.abc import Iterable

from cnn.weights.spelling import Rule, Spelling

_BLOCK = re.compile(r"params/stage(\d+)_block(\d+)/(conv\d)")


def spell_resnet(paths: Iterable[str]) -> Spelling:
    """Spell a ResNet of these paths of ours."""
    found = [m.groups() for m in map(_BLOCK.match, paths) if m]
    blocks = sorted({(int(stage), int(number)) for stage, number, _ in found})
    is_bottleneck = any(conv == "conv3" for *_, conv in found)
    kind = "BottleneckResNetBlock" if is_bottleneck else "ResNetBlock"
    rules: list[Rule] = [
        ("stem", "conv_init"),
        ("stem_norm", "bn_init"),
        ("head", "Dense_0"),
    ]
    for place, (stage, number) in enumerate(blocks):
        ours, theirs = f"stage{stage}_block{number}/", f"{kind}_{place}/"
        rules += [
            (ours + r"conv(\d)", theirs + "Conv_{1-1}"),
            (ours + r"norm(\d)", theirs + "BatchNorm_{1-1}"),
            (ours + "shortcut_conv", theirs + "conv_proj"),
            (ours + "shortcut_norm", theirs + "norm_proj"),
        ]
    return Spelling("Flax's imagenet example", rules, {"strided_padding": "same"})
