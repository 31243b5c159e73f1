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
        input: what they were published for; None: what their family was.
    """

    form: str
    regex: str
    examples: tuple[str, ...]
    create: Creator
    input: tuple[int, int, int] | None = None


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
        pattern = self._find_pattern(name)
        return self.models.get(name) or (pattern and pattern.create)

    def get_input(self, name: str) -> tuple[int, int, int]:
        """Return what a model was published for: (image size, channels, classes)."""
        pattern = self._find_pattern(name)
        of_pattern = pattern.input if pattern and name not in self.models else None
        return self.inputs.get(name, of_pattern or self.input)

    def _find_pattern(self, name: str) -> Pattern | None:
        matching = (x for x in self.patterns if re.fullmatch(x.regex, name))
        return next(matching, None)
