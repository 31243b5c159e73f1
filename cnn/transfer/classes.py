"""What becomes of the head: kept for the same classes, drawn anew for others."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cnn.data.images import Dataset
from cnn.errors import UserError
from cnn.progress import Terminal
from cnn.transfer import merge
from cnn.transfer.source import Source
from cnn.weights import exchange

if TYPE_CHECKING:
    from cnn.config import Config


def choose_reset(
    config: "Config",
    source: Source,
    shapes: Mapping[str, Any],
    head: str,
    dataset: Dataset,
    terminal: Terminal,
) -> set[str]:
    """Choose what is drawn anew: as the options say, or the head of other classes.

    Args:
        config: every option.
        source: the weights.
        shapes: our leaves by path.
        head: the last layer.
        dataset: the images and the names of their classes.
        terminal: told when a head is kept on trust.

    Returns:
        Paths without their collection.

    Raises:
        UserError: the source has the classes in another order and its head is kept.
    """
    patterns, ours = config.transfer.init_reset, dataset.class_names
    theirs = source.class_names
    if theirs:
        differ = theirs != ours
    else:
        count = _count_classes(config.model.model, source, shapes, head)
        differ = count != len(ours)
    is_permuted = differ and sorted(theirs) == sorted(ours)
    default = head if differ and not is_permuted else ""
    reset = merge.find_resets(patterns, shapes, default)
    if any(path.split("/")[0] == head for path in reset):
        return reset
    if is_permuted:
        raise UserError(
            f"--init_from={source.name} has the classes in another order: "
            f"{', '.join(theirs[:9])} there, {', '.join(ours[:9])} here; bring them "
            f"into its order with --classes, or give --init_reset={head}"
        )
    if differ and theirs:
        terminal.say(f"note      {head} is kept, although the classes have other names")
    elif not theirs:
        terminal.say(
            f"note      the source does not name its classes; {head} is kept, and they "
            "are taken to be in this dataset's order"
        )
    return reset


def _count_classes(
    model: str, source: Source, shapes: Mapping[str, Any], head: str
) -> int:
    """Return the number of a source's classes; 0 where a file has no head.

    A checkpoint says it, and of a file it is read off the head.
    """
    if source.description:
        return len(source.description["class_names"])
    for entry in exchange.choose_spelling(model, shapes, source.arrays):
        if entry.path == f"params/{head}/bias" and entry.name in source.arrays:
            return source.arrays[entry.name].size
    return 0
