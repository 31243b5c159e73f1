"""Faults of data: files that lie, that are damaged, and that change during a run."""

import gzip
import io
import json
import os
import shutil
import signal
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import sklearn
from faulty import SECONDS, fault, finish, read_run
from fixtures_runs import ROOT, TINY, make_flags
from PIL import Image

sys.path.append(str(ROOT / "tests" / "data"))
import test_tfds  # noqa: E402

TRAIN = "tiny-train.{}-00001-of-00002"
AGAIN = "prepare the dataset again"
CHECKSUM = ("cnn/data/tfrecord.py", "content[-_FOOTER_BYTES:] != footer", "False")
COUNT_OF_RECORDS = ("cnn/data/shards.py", "    if count != promised:", "    if False:")
STAMP_OF_RECORD = (
    "cnn/data/tfds.py",
    "            if not expected.is_met(position, content):",
    "            if False:",
)
STAMP_OF_FILE = (
    "cnn/data/files.py",
    "                if not expected.is_met(positions[i], content):",
    "                if False:",
)


def _encode_bmp(pixels):
    """Encode an image in a format that has no checksum of its own."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def _prepare(room, file_format="tfrecord", name="tfds"):
    """Prepare a dataset of 23 and 7 images; returns its directory."""
    return test_tfds.prepare(room.path / name, file_format, encode=_encode_bmp)


def _choose(room, **more):
    """Return the options of a run on it."""
    changes = {"dataset": "tfds:tiny", "data_dir": room.path / "tfds"}
    changes |= {"batch_size": 5}
    return changes | {"train_examples": 0, "validation_fraction": 0.0} | more


def _edit(path, place, text):
    content = bytearray(path.read_bytes())
    content[place : place + len(text)] = text
    path.write_bytes(content)


# Files that are damaged before a run.


@fault(
    injected="the label of one record becomes another class",
    holds="refused: the file, the record, and to prepare the data set again",
    without=[CHECKSUM],
)
def test_a_label_in_a_tfrecord_file_is_changed(room):
    path = _prepare(room) / TRAIN.format("tfrecord")
    content = path.read_bytes()
    length = struct.unpack_from("<Q", content)[0]
    record = content[12 : 12 + length]
    # The examples of the file begin with the 10th: its label, of 3 classes, is 1.
    changed = test_tfds.make_example(_encode_example(10), 2)
    (place,) = (i for i in range(length) if record[i] != changed[i])
    _edit(path, 12 + place, changed[place : place + 1])
    ended = room.train("run", **_choose(room))
    ended.check_refused(str(path), "record 0", "checksum", AGAIN)


def _encode_example(position):
    """Return the file of a training image."""
    return _encode_bmp(test_tfds.make_pixels("train")[position])


@fault(
    injected="one bit of a test image flips after training",
    holds="evaluation is refused: the file, the record, the remedy",
    without=[CHECKSUM],
)
def test_a_bit_of_an_image_in_a_tfrecord_file_flips(room):
    path = _prepare(room) / "tiny-test.tfrecord-00000-of-00001"
    room.train("run", **_choose(room, epochs=1)).check_done()
    content = path.read_bytes()
    place = content.index(b"BM", len(content) // 2) + 80
    _edit(path, place, bytes([content[place] ^ 1]))
    ended = room.main("--mode=evaluate", "--workdir=run")
    ended.check_refused(str(path), "record", "checksum", AGAIN)


@fault(
    injected="the first record claims 10^18 bytes",
    holds="refused before anything is read: the file, the record, the remedy",
    without=[
        ("cnn/data/tfrecord.py", "    if len(wrong):", "    if False:"),
        ("cnn/data/tfrecord.py", "    if place != end:", "    if False:"),
        COUNT_OF_RECORDS,
    ],
)
def test_a_length_in_a_tfrecord_file_is_forged(room):
    path = _prepare(room) / TRAIN.format("tfrecord")
    _edit(path, 0, struct.pack("<Q", 10**18))
    ended = room.train("run", **_choose(room))
    ended.check_refused(str(path), "record 0", "length", AGAIN)


@fault(
    injected="the file ends after a whole record, others are missing",
    holds="refused: how many it holds and how many were promised",
    without=[COUNT_OF_RECORDS],
)
def test_the_last_records_of_a_tfrecord_file_are_missing(room):
    path = _prepare(room) / TRAIN.format("tfrecord")
    content = path.read_bytes()
    length = struct.unpack_from("<Q", content)[0]
    path.write_bytes(content[: 12 + length + 4])
    ended = room.train("run", **_choose(room))
    ended.check_refused(str(path), "holds 1 records", "promises 13", AGAIN)


@fault(
    injected="dataset_info.json says 10^10 examples are in a file of 13",
    holds="refused before memory is taken for them",
    without=[COUNT_OF_RECORDS],
)
def test_a_prepared_data_set_promises_too_much(room):
    for file_format in ("tfrecord", "array_record"):
        directory = _prepare(room, file_format)
        info = json.loads((directory / "dataset_info.json").read_text())
        info["splits"][0]["shardLengths"][1] = str(10**10)
        (directory / "dataset_info.json").write_text(json.dumps(info))
        ended = room.train("run", **_choose(room))
        path = directory / TRAIN.format(file_format)
        ended.check_refused(str(path), "promises 10000000000", AGAIN)
        shutil.rmtree(room.path / "tfds")


@fault(
    injected="dataset_info.json says 0 examples are in a file of 13",
    holds="refused, and not trained on the other files alone",
    without=[COUNT_OF_RECORDS],
)
def test_a_file_of_a_prepared_data_set_is_said_to_be_empty(room):
    directory = _prepare(room)
    info = json.loads((directory / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"][1] = "0"
    (directory / "dataset_info.json").write_text(json.dumps(info))
    ended = room.train("run", **_choose(room))
    ended.check_refused(str(directory / TRAIN.format("tfrecord")), "promises 0", AGAIN)


@fault(
    injected="features.json names a class in a module that writes a file",
    holds="refused, the module is not imported",
    without=[("cnn/data/prepared.py", "if is_imported and", "if False and")],
)
def test_features_name_a_module_of_an_attacker(room):
    directory = _prepare(room)
    written = room.path / "written"
    (room.path / "evil.py").write_text(f"open({str(written)!r}, 'w').close()\n")
    path = directory / "features.json"
    module = "tensorflow_datasets.core.features.text_feature.Text"
    path.write_text(path.read_text().replace(module, "evil.Text"))
    where = {"PYTHONPATH": f"{room.root}:{room.path}"}
    flags = make_flags(TINY | _choose(room))
    ended = room.main("--workdir=run", *flags, env=where)
    assert not written.exists()
    ended.check_refused(str(path), "evil.Text", AGAIN)


@fault(
    injected="label.labels.txt names two of three classes",
    holds="refused, and not trained with numbers for names",
    without=[
        ("cnn/data/prepared.py", "        feature.load_metadata(directory, name)\n", "")
    ],
)
def test_names_of_classes_are_missing(room):
    path = _prepare(room) / "label.labels.txt"
    path.write_text("ant\nbee\n")
    room.train("run", **_choose(room)).check_refused(str(path), "2 names", AGAIN)


def _copy_digits(room, change):
    """Let a package with a changed file stand before scikit-learn."""
    source = Path(sklearn.__file__).parent / "datasets/data/digits.csv.gz"
    file = room.path / "packages/sklearn/datasets/data/digits.csv.gz"
    file.parent.mkdir(parents=True)
    (room.path / "packages/sklearn/__init__.py").touch()
    file.write_bytes(change(source.read_bytes()))
    where = {"PYTHONPATH": f"{room.path}/packages:{room.root}"}
    return room.main("--workdir=run", *make_flags(TINY), env=where), file


@fault(
    injected="one label in the file that scikit-learn brings is another",
    holds="refused: the file, and to install scikit-learn again",
    without=[("cnn/data/digits.py", ".hexdigest() == _SHA256:", ".hexdigest():")],
)
def test_a_label_of_the_digits_is_changed(room):
    def change(content):
        first, rest = gzip.decompress(content).split(b"\n", 1)
        assert first.endswith(b",0")
        return gzip.compress(first[:-1] + b"7\n" + rest)

    ended, file = _copy_digits(room, change)
    ended.check_refused(str(file), "install", "scikit-learn")


@fault(
    injected="the file that scikit-learn brings is cut in the middle",
    holds="refused: the file, and to install scikit-learn again",
    without=[
        (
            "cnn/data/digits.py",
            "    except (OSError, EOFError, ValueError, zlib.error) as error:",
            "    except OSError as error:",
        )
    ],
)
def test_the_file_of_the_digits_is_cut_off(room):
    ended, file = _copy_digits(room, lambda content: content[: len(content) // 2])
    ended.check_refused(str(file), "install", "scikit-learn")


def _write_archive(path, **changes):
    draws = np.random.RandomState(0)
    arrays = {
        "x_train": draws.randint(0, 256, (30, 6, 5, 3), np.uint8),
        "y_train": np.arange(30) % 3,
        "x_test": draws.randint(0, 256, (9, 6, 5, 3), np.uint8),
        "y_test": np.arange(9) % 3,
    }
    np.savez(path, allow_pickle=True, **arrays | changes)


def _train_archive(room):
    changes = {"dataset": f"npz:{room.path}/data.npz", "batch_size": 5}
    return room.train("run", train_examples=0, epochs=1, **changes)


def _write_headers(room, shapes, size=0):
    """Write an archive whose arrays claim shapes, and its directory a size of them."""
    path = room.path / "data.npz"
    _write_archive(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(f"{name}.npy") for name in shapes}
        others = {
            x: archive.read(x) for x in archive.namelist() if x[:-4] not in shapes
        }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in others.items():
            archive.writestr(name, content)
        for name, shape in shapes.items():
            header = io.BytesIO()
            fields = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(header, fields)
            start = len(header.getvalue())
            archive.writestr(f"{name}.npy", header.getvalue() + members[name][128:])
            if size:
                archive.getinfo(f"{name}.npy").file_size = size + start
    return path


@fault(
    injected="headers of arrays say 1 channel of 3, zip's checksums fit",
    holds="refused: file, array, what it claims and what is there",
    without=[("cnn/data/npz.py", "    if size != held or", "    if")],
)
def test_an_array_in_an_archive_claims_less_than_it_holds(room):
    shapes = {"x_train": (30, 6, 5, 1), "x_test": (9, 6, 5, 1)}
    path = _write_headers(room, shapes)
    ended = _train_archive(room)
    ended.check_refused(f"{path}: x_train", "damaged", "2,700")


@fault(
    injected="header and directory claim 10^14 bytes",
    holds="refused before memory is taken: what it takes and what there is",
    without=[("cnn/data/npz.py", "    if size > memory:", "    if False:")],
)
def test_an_array_in_an_archive_claims_more_than_the_machine_has(room):
    shape = (10**14 // 90, 6, 5, 3)
    path = _write_headers(room, {"x_train": shape}, 10**14 // 90 * 90)
    _train_archive(room).check_refused(f"{path}: x_train", "GiB", "the machine has")


class _Writes:
    """What makes a directory when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


@fault(
    injected="an array of objects whose pickle makes a directory",
    holds="refused, nothing is unpickled",
    without=[
        ("cnn/data/npz.py", "allow_pickle=False", "allow_pickle=True"),
        ("cnn/data/npz.py", "    if dtype.hasobject:", "    if False:"),
        ("cnn/data/npz.py", "    if size != held or", "    if"),
    ],
)
def test_an_archive_holds_objects(room):
    made = room.path / "made"
    labels = np.array([_Writes(made)] * 30, object)
    _write_archive(room.path / "data.npz", y_train=labels)
    ended = _train_archive(room)
    assert not made.exists()
    ended.check_refused("y_train", "never unpickled")


def _write_folder(room, names="ab", each=10, size=(8, 8)):
    draws = np.random.RandomState(0)
    for name in names:
        folder = room.path / "images" / name
        folder.mkdir(parents=True)
        for i in range(each):
            pixels = draws.randint(0, 256, (*size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return room.path / "images"


def _choose_folder(room, **more):
    changes = {"dataset": f"folder:{room.path}/images", "batch_size": 4}
    return changes | {"train_examples": 0, "validation_fraction": 0.0} | more


def _write_png(path, pixels, checksum=None):
    """Write rows of pixels [H, W, 3] as a PNG file, its IDAT with a checksum."""
    height, width, _ = pixels.shape

    def chunk(kind, content, crc=None):
        crc = zlib.crc32(kind + content) if crc is None else crc
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", rows, checksum) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@fault(
    injected="a PNG file's pixels are changed, its checksum is not",
    holds="refused: the file and the remedy",
    without=[
        (
            "cnn/data/decode.py",
            "        if damaged := metadata.find_damaged_chunk(content):",
            "        if damaged := None:",
        )
    ],
)
def test_pixels_of_a_png_file_are_changed(room):
    path = _write_folder(room) / "a/3.png"
    _write_png(path, np.full((8, 8, 3), 7, np.uint8), checksum=1)
    ended = room.train("run", **_choose_folder(room, epochs=1))
    ended.check_refused(str(path), "damaged", "--bad_images=skip")


@fault(
    injected="a sound PNG file of 9,000 × 9,000 pixels, 240 kB",
    holds="refused before it is decoded",
    without=[
        (
            "cnn/data/decode.py",
            "    if image.width * image.height > MAX_PIXELS:",
            "    if False:",
        )
    ],
)
def test_an_image_is_far_larger_than_its_file(room):
    path = _write_folder(room) / "a/3.png"
    _write_png(path, np.zeros((9000, 9000, 3), np.uint8))
    ended = room.train("run", **_choose_folder(room, epochs=1, image_size=8))
    ended.check_refused(str(path), "oversized", "--bad_images=skip")


@fault(
    injected="a table has a cell of 20 MB",
    holds="refused: the file and the line",
    without=[
        (
            "cnn/data/table.py",
            "        except csv.Error as error:",
            "        except EOFError as error:",
        )
    ],
)
def test_a_line_of_a_table_is_huge(room):
    path = room.path / "table.csv"
    path.write_text("path,label\na.png,1\nb.png," + "x" * 20_000_000 + "\n")
    ended = room.train("run", dataset=f"csv:{path}")
    ended.check_refused(f"{path}, line 3", "field larger than field limit")


@fault(
    injected="a named pipe in the place of a TFRecord file, an array_record file and "
    "dataset_info.json",
    holds="refused with its name, and nobody waits",
    without=[
        (
            "cnn/runtime/own_files.py",
            "    if path.exists() and not (path.is_file() or path.is_dir()):",
            "    if False:",
        )
    ],
    n=3,
)
def test_a_file_of_a_prepared_data_set_is_a_pipe(room):
    for form in ("tfrecord", "array_record"):
        path = _prepare(room, form, form) / TRAIN.format(form)
        path.unlink()
        os.mkfifo(path)
        options = _choose(room, data_dir=room.path / form)
        ended = room.train("run", seconds=60, **options)
        ended.check_refused(path.name, "no file but a device, a pipe")
    info = path.parent / "dataset_info.json"
    info.unlink()
    os.mkfifo(info)
    ended = room.train("run", seconds=60, **options)
    ended.check_refused(info.name, "no file but a device, a pipe")


# Data that change during a run.


def _disturb(room, change, **options):
    """Change data once a run has its first checkpoint; returns how it ended."""
    options = {
        "epochs": 60,
        "resident": "never",
        "checkpoint_every_epochs": 1,
    } | options
    process = room.start("--workdir=run", *make_flags(TINY | options))
    deadline = time.monotonic() + SECONDS
    while not list((room.path / "run").glob("checkpoints/*/manifest.json")):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    try:
        assert process.poll() is None
        change()
    finally:
        process.send_signal(signal.SIGCONT)
    return finish(process), options


def _check_disturbed(room, path, changed, words, **options):
    """Change a file's content while it is streamed, put it back, and resume.

    Args:
        changed: its new content; None: it is deleted.
        words: of the message, beside its name.
    """
    before = path.read_bytes()

    def change():
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)

    ended, options = _disturb(room, change, **options)
    ended.check_refused(str(path), *words)
    path.write_bytes(before)
    room.train("run", **options).check_done()
    room.train("whole", **options).check_done()
    assert read_run(room.path / "run") == read_run(room.path / "whole")


RESUME = "since the start of this run; put it back and resume"


@fault(
    injected="a streamed image becomes another one, of the same size",
    holds="an error with its name; put back, the run resumes to the same bits",
    without=[STAMP_OF_FILE],
)
def test_a_streamed_image_is_replaced(room):
    path = _write_folder(room) / "a/3.png"
    _write_png(room.path / "other.png", np.full((8, 8, 3), 7, np.uint8))
    other = (room.path / "other.png").read_bytes()
    words = ["has changed", RESUME]
    _check_disturbed(room, path, other, words, **_choose_folder(room))


@fault(
    injected="a byte of a streamed image of 108 kB changes, which its stamp leaves out",
    holds="an error with its name; put back, the run resumes to the same bits",
    without=[
        ("cnn/data/stamps.py", "return first in (-1, checksum)", "return True"),
    ],
)
def test_the_middle_of_a_streamed_image_changes(room):
    path = _write_folder(room) / "a/3.png"
    large = bytearray(_encode_bmp(np.full((190, 190, 3), 7, np.uint8)))
    path.write_bytes(large)
    large[30_000] ^= 1
    options = _choose_folder(room) | {"image_size": 8}
    _check_disturbed(room, path, large, ["has changed", RESUME], **options)


@fault(
    injected="a streamed image is deleted",
    holds="an error with its name; put back, the run resumes to the same bits",
    without=[
        (
            "cnn/data/files.py",
            "            except FileNotFoundError:\n",
            "            except EOFError:\n",
        )
    ],
)
def test_a_streamed_image_is_deleted(room):
    path = _write_folder(room) / "a/3.png"
    _check_disturbed(room, path, None, ["is gone", RESUME], **_choose_folder(room))


@fault(
    injected="a streamed TFRecord file is cut off",
    holds="an error with its name and no SIGBUS; put back, it resumes to the same bits",
    without=[
        ("cnn/data/tfrecord.py", "if len(content) < ends[i] or", "if"),
        CHECKSUM,
        STAMP_OF_RECORD,
    ],
)
def test_a_streamed_tfrecord_file_is_cut_off(room):
    path = _prepare(room) / TRAIN.format("tfrecord")
    cut = path.read_bytes()[:100]
    words = ["checksum", AGAIN]
    _check_disturbed(room, path, cut, words, **_choose(room))


def _make_other_images(room, file_format):
    """Return a sound file of the same data set with other images of equal size."""
    directory = _prepare(room, file_format, "other")
    path = directory / TRAIN.format(file_format)
    images = [_encode_bmp(255 - x) for x in test_tfds.make_pixels("train")[10:]]
    labels = [i % 3 for i in range(10, 23)]
    records = map(test_tfds.make_example, images, labels)
    test_tfds.WRITERS[file_format](path, list(records))
    return path.read_bytes()


@fault(
    injected="a streamed TFRecord file becomes a sound one with other images",
    holds="an error with its name; put back, the run resumes to the same bits",
    without=[STAMP_OF_RECORD],
)
def test_a_streamed_tfrecord_file_is_replaced(room):
    path = _prepare(room) / TRAIN.format("tfrecord")
    other = _make_other_images(room, "tfrecord")
    words = ["record", "has changed", RESUME]
    _check_disturbed(room, path, other, words, **_choose(room))


@fault(
    injected="a streamed array_record file becomes a sound one with other images",
    holds="an error with its name; put back, the run resumes to the same bits",
    without=[STAMP_OF_RECORD],
)
def test_a_streamed_array_record_file_is_replaced(room):
    path = _prepare(room, "array_record") / TRAIN.format("array_record")
    other = _make_other_images(room, "array_record")
    words = ["record", "has changed", RESUME]
    _check_disturbed(room, path, other, words, **_choose(room))
