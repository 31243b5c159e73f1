"""Names of a source brought under others by the rules of `--init_rename`."""

import re
from collections.abc import Mapping
from typing import Any

from cnn.errors import UserError
from cnn.weights.flax_names import split_collection


def rename(arrays: Mapping[str, Any], rules: tuple[str, ...]) -> dict[str, Any]:
    """Rename arrays by `--init_rename`, all at once, so that names may be exchanged.

    Args:
        rules: `pattern->new`, of names without their collection.

    Raises:
        UserError: a rule is malformed or matches nothing, or two arrays would have
            one name.
    """
    parsed = [_read_rule(rule) for rule in rules]
    used, renamed = set(), {}
    for name, array in arrays.items():
        collection, inside = split_collection(name)
        for rule, pattern, new in parsed:
            if found := re.match(pattern, inside):
                used.add(rule)
                inside = found.expand(new) + inside[found.end() :]
                break
        if collection + inside in renamed:
            raise UserError(
                f"--init_rename={','.join(rules)}: two arrays would be named {inside}"
            )
        renamed[collection + inside] = array
    for rule in rules:
        if rule not in used:
            raise UserError(
                f"--init_rename={rule} matches nothing in the source; it has "
                f"{', '.join(list(arrays)[:4])}, …"
            )
    return renamed


def _read_rule(rule: str) -> tuple[str, re.Pattern, str]:
    pattern, arrow, new = rule.partition("->")
    try:
        if not arrow or not pattern:
            raise ValueError("write old->new, such as 'conv1->stem'")
        compiled = re.compile(rf"(?:{pattern})(?=[/_.]|$)")
        compiled.sub(new, "")  # refuses a group that there is not
        return rule, compiled, new
    except (re.error, ValueError) as error:
        raise UserError(f"--init_rename={rule}: {error}") from None
