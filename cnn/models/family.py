"""Family: what a file of models offers, by name.

A model's name is either in its family's `models`, or it is a pattern's: a form such as
`wrn_D_K` whose letters stand for numbers.
"""

import dataclasses
import re
from collections.abc import Mapping

from cnn.models.layers import Creator

# What a model was published for: (image size, channels, classes).
IMAGENET, CIFAR, DIGITS = (224, 3, 1000), (32, 3, 10), (8, 1, 10)


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Names that numbers complete.

    Attributes:
        form: for people, with a capital letter for each number: `wrn_D_K`.
        regex: what the names match whole.
        examples: names, that of the smallest model first.
        create: creates the model that `options.model` names; refuses numbers of which
            there is none.
    """

    form: str
    regex: str
    examples: tuple[str, ...]
    create: Creator


@dataclasses.dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        title: what people call them.
        models: by name, the smallest first.
        patterns: of further names; a name in `models` is none of theirs.
        input: what they were published for.
        inputs: the same of single models, where it is another.
    """

    title: str
    models: Mapping[str, Creator]
    patterns: tuple[Pattern, ...] = ()
    input: tuple[int, int, int] = IMAGENET
    inputs: Mapping[str, tuple[int, int, int]] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Return the names of its models, and the forms of its patterns."""
        return [*self.models, *(pattern.form for pattern in self.patterns)]

    @property
    def examples(self) -> list[str]:
        """Return the names of its models, and for each pattern examples."""
        return [*self.models, *(x for each in self.patterns for x in each.examples)]

    def find(self, name: str) -> Creator | None:
        """Return what creates the model of that name; None where it has none."""
        matching = (x.create for x in self.patterns if re.fullmatch(x.regex, name))
        return self.models.get(name) or next(matching, None)

    def get_input(self, name: str) -> tuple[int, int, int]:
        """Return what a model was published for: (image size, channels, classes)."""
        return self.inputs.get(name, self.input)
