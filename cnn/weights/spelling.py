"""What a library calls a family's modules: rules, and what its weights need of a model.

A rule is (pattern of our module's path, its name there, and maybe a shape there). In a
name, `{1}` is the pattern's first group and `{1-1}` that number less one. A pattern
that names a leaf (`…/scale`) gives the tensor's whole name. The shape, where given, is
what the tensor is reshaped to there; -1 is whatever is left.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.option import format_value

# What the weights of MobileNet v2 and EfficientNet need that TensorFlow trained.
TENSORFLOW = {"strided_padding": "same", "bn_epsilon": 0.001}
TORCHVISION = "torchvision"
Rule = tuple[str, str] | tuple[str, str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Spelling:
    """One library's names of a family's modules.

    Attributes:
        library: as it is told to users.
        rules: the first that matches a module names it.
        needs: options without which these weights do not give their numbers, by name.
        has_class: whether the library has the model, not its parts' names alone.
    """

    library: str
    rules: list[Rule]
    needs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    has_class: bool = True


@dataclasses.dataclass(frozen=True)
class Table:
    """How a family's arrays are written in PyTorch.

    Attributes:
        models: pattern of the models' names.
        list_spellings: of a model by its name; see `names.choose_written`.
        flattened: for dense layers that follow a flattening, by path, the side in
            pixels of what is flattened: PyTorch orders it C, H, W and we H, W, C.
    """

    models: str
    list_spellings: Callable[[str], list[Spelling]]
    flattened: Mapping[str, int] = dataclasses.field(default_factory=dict)


def check_needs(
    needs: Mapping[str, Any], what: str, options: ModelOptions, source: str
) -> None:
    """Refuse weights whose numbers the model does not give under its options.

    Args:
        needs: options that the weights need, by name.
        what: the weights are of, for the message.
        source: what they are called in it.

    Raises:
        UserError: naming the flags to type.
    """
    flags = [
        f"--{name}={format_value(value)}"
        for name, value in needs.items()
        if getattr(options, name) != value
    ]
    if flags:
        raise UserError(
            f"{source} is of {what}: with the same weights --model={options.model} "
            f"computes something else unless you give {' '.join(flags)}"
        )
