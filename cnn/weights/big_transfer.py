"""What the `.npz` files of Big Transfer (BiT) call the modules of its ResNets.

Their head is a 1x1 convolution, and their arrays lie under `resnet/`. Source:
https://github.com/google-research/big_transfer/blob/master/bit_pytorch/models.py
"""

import re
from collections.abc import Iterable

from cnn.weights.leaf import Leaf, read
from cnn.weights.spelling import Rule, Spelling

FIRST = "params/resnet/root_block/standardized_conv2d/kernel"
_CONV, _NORM = "standardized_conv2d", "group_norm"
_BLOCK = re.compile(r"params/stage(\d+)_block(\d+)/")


def spell_bit(paths: Iterable[str]) -> Spelling:
    """Spell a BiT of these paths of ours."""
    rules: list[Rule] = [
        ("stem", f"resnet/root_block/{_CONV}"),
        *_spell_norm("norm", "resnet/"),
        ("head", "resnet/head/conv2d"),
    ]
    for stage, number in {m.groups() for m in map(_BLOCK.match, paths) if m}:
        ours = f"stage{stage}_block{number}/"
        theirs = f"resnet/block{stage}/unit{int(number):02}/"
        for place, part in enumerate("abc", start=1):
            rules.append((f"{ours}conv{place}", f"{theirs}{part}/{_CONV}"))
            rules += _spell_norm(f"{ours}norm{place}", f"{theirs}{part}/")
        rules.append((f"{ours}shortcut_conv", f"{theirs}a/proj/{_CONV}"))
    return Spelling("Big Transfer", rules)


def squeeze_head(kernel: Leaf) -> Leaf:
    """Make of a 1x1 convolution's kernel [1, 1, I, O] a dense layer's."""
    if tuple(kernel.shape[:2]) != (1, 1) or len(kernel.shape) != 4:
        return kernel
    shape = tuple(kernel.shape[2:])
    return Leaf(shape, kernel.dtype, lambda: read(kernel).reshape(shape))


def _spell_norm(ours: str, theirs: str) -> list[Rule]:
    return [
        (f"{ours}/scale", f"{theirs}{_NORM}/gamma"),
        (f"{ours}/bias", f"{theirs}{_NORM}/beta"),
    ]
