"""Prepared tensorflow-datasets, read without TensorFlow and without a network.

`tfds:NAME[/CONFIG][:VERSION]` names a directory NAME/CONFIG/VERSION below
`--data_dir`. array_record files are read through `as_data_source`, tfrecord files by
an index of their records. Labels are read once at loading, which goes through every
file; images are decoded when they are read.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cnn.data import decode, images, pool, prepared, tfrecord
from cnn.errors import UserError

if TYPE_CHECKING:
    from cnn.data import DataOptions

_CHUNK = 4096
_REMEDY = "prepare the dataset again"

ReadRecords = Callable[[np.ndarray], Sequence[bytes]]


def load(rest: str, options: "DataOptions") -> images.Dataset:
    """Load the splits of a prepared dataset.

    Args:
        rest: NAME[/CONFIG][:VERSION].
        options: `data_dir`, the three splits, and the layout of the images.

    Raises:
        UserError: it is not prepared in `--data_dir` (with what to type), a split
            does not exist, or it does not classify images.
    """
    directory = prepared.find_directory(rest, options.data_dir)
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(directory)
    if not builder.is_prepared():
        raise UserError(prepared.how_to_prepare(rest, directory.parent))
    image_key, label_key = _find_features(builder, rest)
    shape = _find_shape(builder.info.features[image_key], rest, options)

    def read_split(flag: str, split: str) -> images.Images:
        where = f"tfds:{rest}, split {split}"
        read_records = _open_split(builder, rest, flag, split)
        count = builder.info.splits[split].num_examples
        labels = _read_labels(read_records, count, label_key, where)
        return images.Images(
            labels=labels,
            shape=shape,
            read=_make_read(read_records, image_key, shape, options, where),
        )

    validation = options.validation_split
    return images.Dataset(
        name=f"tfds:{rest}",
        class_names=tuple(builder.info.features[label_key].names),
        train=read_split("train_split", options.train_split),
        validation=read_split("validation_split", validation) if validation else None,
        test=read_split("test_split", options.test_split),
    )


def _find_features(builder: Any, rest: str) -> tuple[str, str]:
    """Return the keys of the image and of its label."""
    from tensorflow_datasets import features

    known = builder.info.features
    if isinstance(known, features.FeaturesDict):
        keys = builder.info.supervised_keys
        pairs = [keys] if keys and len(keys) == 2 else []
        by_kind = [
            [key for key in known if isinstance(known[key], kind)]
            for kind in (features.Image, features.ClassLabel)
        ]
        if all(len(found) == 1 for found in by_kind):
            pairs.append((by_kind[0][0], by_kind[1][0]))
        for image, label in pairs:
            if not (isinstance(image, str) and isinstance(label, str)):
                continue
            if isinstance(known[image], features.Image) and isinstance(
                known[label], features.ClassLabel
            ):
                return image, label
    raise UserError(
        f"--dataset=tfds:{rest} does not classify images: it needs one image and one "
        f"class label among its features, which are {sorted(known.keys())}"
    )


def _find_shape(
    feature: Any, rest: str, options: "DataOptions"
) -> tuple[int, int, int]:
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
    return height, width, channels


def _open_split(builder: Any, rest: str, flag: str, split: str) -> ReadRecords:
    """Return what reads serialized examples [n] of a split or a slice of one."""
    from tensorflow_datasets import decode as tfds_decode

    raw = tfds_decode.DeserializeMethod.RAW_BYTES
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
    if builder.info.file_format.value == "tfrecord":
        return tfrecord.open_records(instructions)
    try:
        source = builder.as_data_source(split=split, deserialize_method=raw)
    except (OSError, NotImplementedError) as error:
        raise UserError(f"tfds:{rest}, split {split}: {error}") from error

    def read_records(positions: np.ndarray) -> Sequence[bytes]:
        try:
            return source.__getitems__(positions.tolist())
        except (OSError, RuntimeError, ValueError, IndexError) as error:
            raise UserError(
                f"tfds:{rest}, split {split}: {error}; {_REMEDY}"
            ) from error

    return read_records


def _parse_example(record: bytes, where: str, position: int) -> Any:
    """Return the features of a serialized example, by name."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        return tf_example_pb2.Example.FromString(record).features.feature
    except DecodeError as error:
        raise UserError(
            f"{where}, example {position}: its record is damaged; {_REMEDY}"
        ) from error


def _read_labels(
    read_records: ReadRecords, count: int, key: str, where: str
) -> np.ndarray:
    labels = np.empty(count, dtype=np.int64)
    for start in range(0, count, _CHUNK):
        positions = np.arange(start, min(start + _CHUNK, count))
        for position, record in zip(positions, read_records(positions), strict=True):
            values = _parse_example(record, where, position)[key].int64_list.value
            if len(values) != 1:
                raise UserError(
                    f"{where}, example {position}: it has no label; {_REMEDY}"
                )
            labels[position] = values[0]
    return labels


def _make_read(
    read_records: ReadRecords,
    key: str,
    shape: tuple[int, int, int],
    options: "DataOptions",
    where: str,
) -> Callable[[np.ndarray], np.ndarray]:
    layout = dataclasses.replace(options.layout, channels=shape[-1])

    def read(positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions)
        contents = [
            b"".join(_parse_example(record, where, position)[key].bytes_list.value)
            for position, record in zip(positions, read_records(positions), strict=True)
        ]

        def decode_one(i: int) -> np.ndarray:
            name = f"{where}, example {positions[i]}"
            try:
                image = decode.decode(contents[i], layout)
            except decode.BadImage as error:
                raise UserError(f"{name}: {error}; {_REMEDY}") from error
            if image.shape != shape:
                raise UserError(
                    f"{name}: the image is {image.shape} but features.json says "
                    f"{shape}; set --image_size"
                )
            return image

        threads = sum(map(len, contents)) > len(contents) * pool.THREADS_PAY_BYTES
        return pool.stack(decode_one, len(contents), shape, threads)

    return read
