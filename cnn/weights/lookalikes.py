"""Architectures whose tensors are those of ours, and which compute something else.

Their weights would be taken without a word and give wrong numbers, so what a file says
of itself is compared with the model.
"""

import re
from collections.abc import Mapping
from typing import Any

from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.weights.spelling import TENSORFLOW, check_needs

# Patterns of names in timm (without the tag behind a point) and of layers' classes,
# with what they do otherwise; and the options that do it too, where there are any.
_Rule = tuple[str, str, Mapping[str, Any] | None]
_NAMES: tuple[_Rule, ...] = (
    (r"\w*resnetblur\d+\w*|efficientnet_blur_b\d", "blurs before each stride", None),
    (r"(se|eca)?resnetaa\d+\w*|\w*\d_aa", "averages before each stride", None),
    (r"tf_(efficientnet|mobilenet|mixnet)\w+", "pads as TensorFlow does", TENSORFLOW),
)
_LAYERS: tuple[_Rule, ...] = (
    (r"\w*Blur\w*", "blurs before each stride", None),
    (r"(Conv2d|\w*Pool2d)Same\w*", "pads as TensorFlow does", TENSORFLOW),
)


def check(options: ModelOptions, says: Mapping[str, str], source: str) -> None:
    """Refuse a file that says that it is of an architecture that only looks alike.

    Args:
        options: of the model.
        says: as of `load.Weights`.
        source: what the file is called in messages.

    Raises:
        UserError: with what it says, where, and what that does otherwise; or with the
            options that do it too.
    """
    for place, text in says.items():
        is_layers = place.endswith("layers")
        names = [each.rpartition(".")[2] for each in text.split()] if is_layers else []
        rules = _LAYERS if is_layers else _NAMES
        for name in names or [_shorten(text)]:
            for pattern, what, needs in rules:
                if not re.fullmatch(pattern, name):
                    continue
                called = f"a layer {name}" if is_layers else f"{text} in {place}"
                if needs is None:
                    raise UserError(
                        f"{source} does not fit --model={options.model}: it names "
                        f"{called}, which {what}; the names and shapes of its tensors "
                        "are the same, its numbers would not be"
                    )
                check_needs(needs, f"{called}, which {what}", options, source)


def _shorten(architecture: str) -> str:
    """Return the name of an architecture without its place, tag and hash."""
    return re.split(r"[.-]", architecture.rpartition("/")[2])[0].lower()
