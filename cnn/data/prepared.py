"""What tensorflow-datasets wrote beside the records: features, splits and class names.

dataset_info.json, features.json and the files of labels are checked before the library
reads them: it imports whatever module features.json names, and makes lists as long as
a number in there says.
"""

import contextlib
import io
import json
import pathlib
import types
from collections.abc import Iterator, Sequence
from typing import Any

from cnn.data.shards import REMEDY
from cnn.errors import UserError
from cnn.runtime import own_files

_LIBRARY = "tensorflow_datasets."
# Of features.json: what names a class that is imported.
_IMPORTED = ("pythonClassName", "type", "proto_cls")
# Of lengths: larger numbers are damage.
_MOST = {"numClasses": 2**20, "num_classes": 2**20, "shardLengths": 2**40}


def open_builder(directory: pathlib.Path) -> Any:
    """Return the builder of a dataset that is prepared in a directory.

    Raises:
        UserError: a file in there is damaged, or names a class of another package.
    """
    for name in ("features.json", "dataset_info.json"):
        _check(directory / name)
    import tensorflow_datasets as tfds

    # Not asked whether it is prepared: it takes the path for a pattern.
    try:
        # Of a type that it does not know it prints how to install TensorFlow.
        with contextlib.redirect_stdout(io.StringIO()):
            builder = tfds.builder_from_directory(directory)
            for split in builder.info.splits.values():
                _ = split.num_examples, split.filepaths
        return builder
    except Exception as error:  # whatever comes of files that were tampered with
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{directory}: its dataset_info.json, features.json or files of labels are "
            f"damaged ({reason}); {REMEDY}"
        ) from error


def read_class_names(
    directory: pathlib.Path, name: str, feature: Any
) -> tuple[str, ...]:
    """Return the names of the classes of a feature, numbers where nobody named them.

    Args:
        name: of the feature.
        feature: the `ClassLabel`; names that it could not read, the library replaces by
            numbers in silence, hence they are read again.

    Raises:
        UserError: there are fewer or more than classes, one is there twice, or they
            are no text.
    """
    try:
        feature.load_metadata(directory, name)
        return tuple(feature.names)
    except ValueError as error:
        raise UserError(
            f"{directory}/{name}.labels.txt does not name the classes of features.json "
            f"({error}); {REMEDY}"
        ) from error


def list_files(builder: Any, instructions: Sequence[Any]) -> list[Any]:
    """Add files to instructions of which dataset_info.json says that they are empty.

    The library leaves them out, so that nobody would see that they are not.
    """
    named = {str(instruction.filename) for instruction in instructions}
    empty = []
    for split in builder.info.splits.values():
        if named.isdisjoint(map(str, split.filepaths)):
            continue
        for path, length in zip(split.filepaths, split.shard_lengths, strict=True):
            if not length:
                fields = {"skip": 0, "take": 0, "examples_in_shard": 0}
                empty.append(types.SimpleNamespace(filename=str(path), **fields))
    return [*instructions, *empty]


def _check(path: pathlib.Path) -> None:
    """Refuse what is no JSON, classes of other packages, and lengths without sense."""
    try:
        fields = list(_list_fields(json.loads(own_files.read(path))))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); {REMEDY}") from error
    for key, value in fields:
        is_imported = key in _IMPORTED and path.name == "features.json"
        if is_imported and isinstance(value, str) and not value.startswith(_LIBRARY):
            raise UserError(
                f"{path} names the class {value[:100]!r}, and only those of "
                f"tensorflow_datasets are imported; {REMEDY}"
            )
        for number in value if isinstance(value, list) else [value]:
            if key in _MOST and not _is_length(number, _MOST[key]):
                raise UserError(
                    f"{path}: {key} is {str(number)[:100]!r}, and must be a whole "
                    f"number up to {_MOST[key]:,}; {REMEDY}"
                )


def _is_length(value: Any, most: int) -> bool:
    """Return whether a value, written as Google's JSON does, is a sensible length."""
    text = str(value)
    return text.isdecimal() and len(text) < 20 and int(text) <= most


def _list_fields(content: Any) -> Iterator[tuple[str, Any]]:
    """List the keys and values of JSON, at any depth."""
    if isinstance(content, dict):
        yield from content.items()
        content = list(content.values())
    for value in content if isinstance(content, list) else ():
        yield from _list_fields(value)
