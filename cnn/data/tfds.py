"""Prepared tensorflow-datasets, read without TensorFlow and without a network.

`tfds:NAME[/CONFIG][:VERSION]`, `rest` without `tfds:`, names a directory
NAME/CONFIG/VERSION below `--data_dir`. Labels are read once at loading, from every
file; images are decoded when they are read. A feature that is a sequence of class
labels gives an image any number of them. Every record is verified by its checksum
whenever it is read, and an image by its stamp: it is the one that was there at loading.

A prepared dataset is found by its directories alone; its code does not run, because
that may try the network for minutes.
"""

import dataclasses
import os
import pathlib
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnn.data import array_record, decode, images, prepared, shards, tfrecord
from cnn.data.names import check_class_names
from cnn.data.options import DataOptions
from cnn.data.stamps import Expected, stamp_bytes
from cnn.errors import UserError, suggest

_CHUNK = 4096
# How records are read, by the format of their files.
_FORMATS = {
    "array_record": array_record.open_records,
    "tfrecord": tfrecord.open_records,
}


class NotPrepared(UserError):
    """A dataset is not in the directory of prepared ones."""


ReadRecords = Callable[[np.ndarray], Sequence[bytes]]
# From the position of an example to its name in messages.
Locate = Callable[[int], str]
_VERSION = re.compile(r"\d+\.\d+\.\d+")


def load(rest: str, options: DataOptions) -> images.Dataset:
    """Load the splits of a prepared dataset.

    Raises:
        UserError: it is not prepared in `--data_dir` (with the command), a split
            does not exist, or it does not classify images.
    """
    class_names, read_split = _open(rest, options)
    validation = options.validation_split
    return images.Dataset(
        name=f"tfds:{rest}",
        class_names=class_names,
        train=read_split("train_split", options.train_split),
        validation=read_split("validation_split", validation) if validation else None,
        test=read_split("test_split", options.test_split),
    )


def load_evaluated(rest: str, options: DataOptions, split: str) -> images.Evaluated:
    """Load a split of a prepared dataset to be evaluated; no other one is read.

    Args:
        split: of `choose_parts`; `all` takes the whole of every split that the
            options name, so that slices that overlap count once.

    Raises:
        UserError: as `load`, or the options name no such split.
    """
    class_names, read_split = _open(rest, options)
    named = {
        part: getattr(options, f"{part}_split")
        for part in ("train", "validation", "test")
        if getattr(options, f"{part}_split")
    }
    chosen, is_whole = images.choose_parts(f"tfds:{rest}", named, split), split == "all"
    if is_whole:
        pieces = [piece for part in chosen for piece in named[part].split("+")]
        splits = dict.fromkeys(piece.partition("[")[0].strip() for piece in pieces)
    else:
        splits = [named[chosen[0]]]
    return images.Evaluated(
        name=f"tfds:{rest}",
        class_names=class_names,
        images=read_split(f"{chosen[0]}_split", "+".join(splits)),
        is_whole=is_whole,
    )


def has_several_labels(rest: str, options: DataOptions) -> bool:
    """Return whether the labels of a prepared dataset are a sequence."""
    builder = prepared.open_builder(find_directory(rest, options.data_dir))
    key = _find_features(builder, rest, options.task)[1]
    return _is_sequence(builder.info.features[key])


def _open(
    rest: str, options: DataOptions
) -> tuple[tuple[str, ...], Callable[[str, str], images.Images]]:
    """Return the names of the classes and the function that reads a flag's split."""
    directory = find_directory(rest, options.data_dir)
    builder = prepared.open_builder(directory)
    image_key, label_key = _find_features(builder, rest, options.task)
    shape = find_shape(builder.info.features[image_key], rest, options)
    feature = builder.info.features[label_key]
    several = _is_sequence(feature)
    named = feature.feature if several else feature
    class_names = prepared.read_class_names(directory, label_key, named)
    check_class_names(f"tfds:{rest}", class_names)

    def read_split(flag: str, split: str) -> images.Images:
        read_records, locate = _open_split(builder, rest, flag, split)
        count = builder.info.splits[split].num_examples
        keys = image_key, label_key
        lists, stamps = _read_labels(read_records, count, keys, locate)
        if several:
            labels = _make_matrix(lists, len(class_names), locate)
        else:
            labels = _make_vector(lists, locate)
        read_contents = _make_contents(read_records, image_key, stamps, locate)
        names = _name_examples(builder, split)

        def make(options: DataOptions, shape: tuple[int, int, int]) -> images.Images:
            layout = decode.make_layout(options)
            layout = dataclasses.replace(layout, channels=shape[-1])
            return images.Images(
                labels=labels,
                shape=shape,
                read=_make_read(read_contents, shape, layout, locate),
                names=names,
                stamps=stamps,
                contents=read_contents,
                layout=dataclasses.astuple(layout),
                refit=refit,
            )

        def refit(options: DataOptions) -> images.Images:
            size = options.stored_size
            return make(options, (size, size, shape[-1]))

        return make(options, shape)

    return class_names, read_split


def _find_features(builder: Any, rest: str, task: str) -> tuple[str, str]:
    """Return the keys of the image and of its label, or of its sequence of labels.

    Args:
        task: of `--task`; where there are both, `multilabel` takes the sequence.
    """
    from tensorflow_datasets import features

    known = builder.info.features
    if isinstance(known, features.FeaturesDict):
        images = [key for key in known if isinstance(known[key], features.Image)]
        labels = [key for key in known if isinstance(known[key], features.ClassLabel)]
        several = [key for key in known if _is_sequence(known[key])]
        supervised = builder.info.supervised_keys
        pairs = [supervised] if supervised and len(supervised) == 2 else []
        for found in (several, labels) if task == "multilabel" else (labels, several):
            if len(images) == len(found) == 1:
                pairs.append((images[0], found[0]))
            for image, label in pairs:
                if image in images and label in found:
                    return image, label
    raise UserError(
        f"--dataset=tfds:{rest} does not classify images: it needs one image and one "
        "class label, or a sequence of class labels, among its features, which are "
        f"{sorted(known.keys())}"
    )


def _is_sequence(feature: Any) -> bool:
    """Return whether a feature is a sequence of class labels."""
    from tensorflow_datasets import features

    is_sequence = isinstance(feature, features.Sequence)
    return is_sequence and isinstance(feature.feature, features.ClassLabel)


def find_shape(feature: Any, rest: str, options: DataOptions) -> tuple[int, int, int]:
    """Return the shape (H, W, C) that images of this feature are read in."""
    if np.dtype(feature.np_dtype).kind == "f":
        raise UserError(
            f"--dataset=tfds:{rest} holds floating-point images, which have no fixed "
            "range; only 8- and 16-bit images are read"
        )
    height, width, channels = feature.shape
    channels = options.channels or (1 if channels == 1 else 3)
    if options.stored_size:
        return options.stored_size, options.stored_size, channels
    if height is None or width is None:
        raise UserError(
            f"the images of tfds:{rest} differ in size; set --image_size to the "
            "height and width in pixels to bring them to"
        )
    if height * width > decode.MAX_PIXELS:
        raise UserError(
            f"the images of tfds:{rest} are {height}x{width} pixels by features.json, "
            f"and at most {decode.MAX_PIXELS:,} are read; {shards.REMEDY}"
        )
    return height, width, channels


def _open_split(
    builder: Any, rest: str, flag: str, split: str
) -> tuple[ReadRecords, Locate]:
    """Return the function that reads serialized examples of a split or a slice."""
    try:
        instructions = builder.info.splits[split].file_instructions
    except (ValueError, KeyError) as error:
        raise UserError(
            f"--{flag}={split}: tfds:{rest} has no such split; it has "
            f"{', '.join(builder.info.splits)}, of which slices are written "
            "as train[:90%]"
        ) from error
    if not sum(instruction.take for instruction in instructions):
        raise UserError(f"--{flag}={split} of tfds:{rest} holds no example")
    file_format = builder.info.file_format.value
    if file_format not in _FORMATS:
        raise UserError(
            f"tfds:{rest} is prepared as {file_format}, which is not read; prepare it "
            "again with --file_format=array_record"
        )

    def locate(position: int) -> str:
        where = shards.locate(instructions, position)
        return f"tfds:{rest}, split {split}, example {position} ({where})"

    files = prepared.list_files(builder, instructions)
    return _FORMATS[file_format](files), locate


def _parse_example(record: bytes, locate: Locate, position: int) -> Any:
    """Return the features of a serialized example, by name."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError as error:
        raise UserError(
            f"{locate(position)}: its record is damaged; {shards.REMEDY}"
        ) from error


def _name_examples(builder: Any, split: str) -> np.ndarray:
    """Name the examples of a split, or a slice, by their place in the whole split."""
    first_of = {}
    for part, info in builder.info.splits.items():
        ends = np.cumsum([0, *info.shard_lengths])
        for path, first in zip(info.filepaths, ends, strict=False):
            first_of[str(path)] = part, int(first)
    names = []
    for instruction in builder.info.splits[split].file_instructions:
        part, first = first_of[str(instruction.filename)]
        first += instruction.skip
        names.append(images.number_examples(part, instruction.take, first))
    return np.concatenate(names)


def _read_labels(
    read_records: ReadRecords, count: int, keys: tuple[str, str], locate: Locate
) -> tuple[list[list[int]], np.ndarray]:
    """Read each example's labels and the stamp of its encoded image.

    Args:
        keys: of the image and of its labels.
    """
    labels = []
    stamps = np.empty(count, dtype=object)
    for start in range(0, count, _CHUNK):
        positions = np.arange(start, min(start + _CHUNK, count))
        for position, record in zip(positions, read_records(positions), strict=True):
            features = _parse_example(record, locate, position)
            labels.append(list(features[keys[1]].int64_list.value))
            stamps[position] = stamp_bytes(_get_image(features, keys[0]))
    return labels, stamps


def _make_vector(lists: list[list[int]], locate: Locate) -> np.ndarray:
    """Return the only label of each example, [N]."""
    for position, labels in enumerate(lists):
        if len(labels) != 1:
            raise UserError(f"{locate(position)}: it has no label; {shards.REMEDY}")
    return np.array(lists, np.int64).reshape(-1)


def _make_matrix(
    lists: list[list[int]], num_classes: int, locate: Locate
) -> np.ndarray:
    """Return which classes each example has as labels, 0 and 1 [N, K]."""
    matrix = np.zeros((len(lists), num_classes), np.uint8)
    for position, labels in enumerate(lists):
        wrong = [label for label in labels if not 0 <= label < num_classes]
        if wrong:
            raise UserError(
                f"{locate(position)}: its label {wrong[0]} is outside "
                f"0..{num_classes - 1}; {shards.REMEDY}"
            )
        matrix[position, labels] = 1
    return matrix


def _get_image(features: Any, key: str) -> bytes:
    return b"".join(features[key].bytes_list.value)


def _make_contents(
    read_records: ReadRecords, key: str, stamps: np.ndarray, locate: Locate
) -> Callable[[np.ndarray], list[bytes]]:
    expected = Expected(stamps)

    def read_contents(positions: np.ndarray) -> list[bytes]:
        found = []
        for position, record in zip(positions, read_records(positions), strict=True):
            content = _get_image(_parse_example(record, locate, position), key)
            if not expected.is_met(position, content):
                raise UserError(
                    f"{locate(position)} has changed since the start of this run; put "
                    "it back and resume"
                )
            found.append(content)
        return found

    return read_contents


def _make_read(
    read_contents: Callable[[np.ndarray], list[bytes]],
    shape: tuple[int, int, int],
    layout: decode.Layout,
    locate: Locate,
) -> Callable[[np.ndarray], np.ndarray]:
    def read(positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions)
        contents = read_contents(positions)

        def decode_one(i: int) -> np.ndarray:
            try:
                image = decode.decode(contents[i], layout)
            except decode.BadImage as error:
                name = locate(positions[i])
                raise UserError(f"{name}: {error}; {shards.REMEDY}") from error
            if image.shape != shape:
                raise UserError(
                    f"{locate(positions[i])}: the image is {image.shape} but "
                    f"features.json says {shape}; set --image_size"
                )
            return image

        threads = sum(map(len, contents)) > len(contents) * decode.THREADS_PAY_BYTES
        return decode.stack(decode_one, len(contents), shape, threads)

    return read


def find_directory(rest: str, data_dir: str) -> pathlib.Path:
    """Return the directory of a prepared dataset, of its newest version by default.

    Args:
        rest: NAME[/CONFIG][:VERSION]; a single prepared configuration need not be
            named.
        data_dir: `--data_dir`; empty: where tensorflow-datasets puts them.

    Raises:
        UserError: it is not prepared there, with the command that prepares it.
    """
    root = pathlib.Path(
        data_dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    ).expanduser()
    name, _, version = rest.partition(":")
    if not re.fullmatch(r"\w+(/[\w.+-]+)?", name):
        raise UserError(
            f"--dataset=tfds:{rest}: write tfds:NAME, tfds:NAME/CONFIG or "
            "tfds:NAME:VERSION"
        )
    configs = _list_prepared(root)
    dataset, _, config = name.partition("/")
    if not config and name not in configs:
        inside = sorted(known for known in configs if known.startswith(f"{dataset}/"))
        if len(inside) == 1:
            name = inside[0]
        elif inside:
            raise UserError(
                f"--dataset=tfds:{rest}: choose one of its configurations, "
                f"{', '.join('tfds:' + known for known in inside)}"
            )
    if name not in configs:
        raise NotPrepared(how_to_prepare(rest, root, configs))
    versions = configs[name]
    if version and version not in versions:
        raise UserError(
            f"--dataset=tfds:{rest}: version {version} is not prepared in {root}; "
            f"prepared: {', '.join(versions)}"
        )
    return root / name / (version or versions[-1])


def _list_prepared(root: pathlib.Path) -> dict[str, list[str]]:
    """Map each prepared NAME or NAME/CONFIG to its versions, oldest first."""
    found: dict[str, list[str]] = {}
    for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json"):
        for info in root.glob(pattern):
            version = info.parent.name
            if _VERSION.fullmatch(version) and (info.parent / "features.json").exists():
                name = info.parent.parent.relative_to(root).as_posix()
                found.setdefault(name, []).append(version)
    for versions in found.values():
        versions.sort(key=lambda version: [int(part) for part in version.split(".")])
    return found


def how_to_prepare(
    rest: str, root: pathlib.Path, configs: dict[str, list[str]] | None = None
) -> str:
    """Say how to prepare a dataset, and which prepared one has a similar name."""
    near = suggest(rest.partition(":")[0], configs) if configs else ""
    near = near.replace("did you mean ", "did you mean tfds:").rstrip("?")
    near = near.replace("known: ", "prepared there: ")
    return (
        f"--dataset=tfds:{rest} is not prepared in --data_dir={root}{near}. To prepare "
        "it (needs the network, and TensorFlow beside tensorflow-datasets): "
        f"tfds build {rest} {shlex.quote(f'--data_dir={root}')} "
        "--file_format=array_record"
    )
