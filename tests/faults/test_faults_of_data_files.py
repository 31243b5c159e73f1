"""Faults of data files: 500 mutations of each kind, read with little memory.

A child reads one mutation after another and says of each what came of it: the same
images and labels, others, or one message with the name of the file. Others are allowed
only where a file has no checksum that could tell.
"""

import io
import itertools
import json
import sys
from pathlib import Path

import numpy as np
from faulty import fault
from fixtures_runs import ROOT
from mutations import mutate
from PIL import Image

sys.path.append(str(ROOT / "tests" / "data"))
import test_tfds  # noqa: E402

COUNT = 500
SECONDS = 600
EACH = 20
# Of the child: beside what it takes before the first mutation.
BYTES = 768 * 2**20

# Arguments: a JSON of what to do, see `_fuzz`.
CHILD = """
import json, pathlib, re, resource, signal, sys
told = json.loads(sys.argv[1])
sys.path[:0] = told["paths"]
import numpy as np
import mutations
from cnn import data
from cnn.errors import UserError

path = pathlib.Path(told["file"])
whole = path.read_bytes()

def read(resident):
    found = data.load_dataset(data.DataOptions(**told["options"], resident=resident))
    parts = [found.train, found.test]
    pixels = [part.read(np.arange(len(part))).tolist() for part in parts]
    labels = [part.labels.tolist() for part in parts]
    return {"pixels": pixels, "labels": labels, "classes": found.class_names}

def read_all():
    return [read(resident) for resident in told["residents"]]

before = read_all()
status = pathlib.Path("/proc/self/status").read_text()
taken = 1024 * int(re.search(r"VmData:\\s*(\\d+)", status)[1])
resource.setrlimit(resource.RLIMIT_DATA, (taken + told["bytes"],) * 2)
for seed in range(told["count"]):
    signal.alarm(told["seconds"])
    path.write_bytes(mutations.mutate(whole, seed))
    try:
        after = read_all()
        pairs = list(zip(before, after, strict=True))
        changed = {x for x in before[0] if any(a[x] != b[x] for a, b in pairs)}
        outcome = " and ".join(sorted(changed)) or "same"
        text = after[0]["classes"]
    except UserError as error:
        outcome, text = "refused", str(error)
    except BaseException as error:
        outcome, text = "raised", f"{type(error).__name__}: {error}"
    print(json.dumps([seed, outcome, text]), flush=True)
"""


def _fuzz(room, file, options, words=(), others=None, residents=("always", "never")):
    """Read the mutations of a file.

    Args:
        file: that the options lead to, sound.
        words: one of which a message must have besides the file's name.
        others: by what may come of it unseen (`pixels`, `classes and labels`, …) the
            function of a mutation and the names of the classes to whether it is fine.
        residents: values of `--resident` with which it is read.
    """
    whole = file.read_bytes()
    told = {
        "paths": [str(room.root), str(Path(__file__).parent)],
        "file": str(file),
        "options": options,
        "residents": residents,
        "count": COUNT,
        "seconds": EACH,
        "bytes": BYTES,
    }
    ended = room.python(CHILD, json.dumps(told), seconds=SECONDS)
    found = [json.loads(line) for line in ended.out.splitlines()]
    assert len(found) == COUNT, f"mutation {len(found)} ends the reader: {ended}"
    wrong = [x for x in found if not _is_fine(x, file, whole, words, others or {})]
    assert not wrong, f"{len(wrong)} of {COUNT}: {wrong[:5]}"
    counts = {x: sum(one[1] == x for one in found) for x in ("same", "refused")}
    assert counts["refused"] > COUNT // 10, counts
    assert "Traceback" not in ended.err, ended.err


def _is_fine(found, file, whole, words, others):
    seed, outcome, text = found
    if outcome == "refused":
        is_named = any(word in text for word in (str(file), *words))
        return is_named and len(text.splitlines()) == 1
    if outcome in others:
        return others[outcome](mutate(whole, seed), text)
    return outcome == "same"


def _accept(mutated, class_names):
    return True


def _make_pixels(count, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (count, 8, 8, 3), np.uint8)


def _write_folder(root, ending):
    """Write two classes of images; returns a file of the first."""
    for name, pixels in zip("ab", _make_pixels(8).reshape(2, 4, 8, 8, 3), strict=True):
        for part, some in (("train", pixels[:3]), ("test", pixels[3:])):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i, image in enumerate(some):
                big = Image.fromarray(image).resize((24, 24))
                big.save(folder / f"{i}.{ending}")
    return root / f"train/a/0.{ending}"


def _fuzz_images(room, ending, others=None):
    file = _write_folder(room.path / "images", ending)
    options = {"dataset": f"folder:{room.path}/images", "image_size": 12}
    _fuzz(room, file, options, others=others)


@fault(
    injected="500 seeded mutations of a JPEG file, read with 768 MiB",
    holds="it is read, or refused in one line with its name",
    without=[
        (
            "cnn/data/headers.py",
            "        except (decode.BadImage, OSError) as error:",
            "        except EOFError as error:",
        )
    ],
    n=COUNT,
)
def test_a_jpeg_file_is_mutated(room):
    _fuzz_images(room, "jpg", {"pixels": _accept})


@fault(
    injected="500 seeded mutations of a PNG file, read with 768 MiB",
    holds="the same pixels, or refused in one line with its name",
    without=[
        (
            "cnn/data/decode.py",
            "        if damaged := metadata.find_damaged_chunk(content):",
            "        if damaged := None:",
        )
    ],
    n=COUNT,
)
def test_a_png_file_is_mutated(room):
    _fuzz_images(room, "png")


@fault(
    injected="500 seeded mutations of a WebP file, read with 768 MiB",
    holds="it is read, or refused in one line with its name",
    without=[
        (
            "cnn/data/headers.py",
            "        except (decode.BadImage, OSError) as error:",
            "        except EOFError as error:",
        )
    ],
    n=COUNT,
)
def test_a_webp_file_is_mutated(room):
    _fuzz_images(room, "webp", {"pixels": _accept})


@fault(
    injected="500 seeded mutations of an archive of arrays, read with 768 MiB",
    holds="the same arrays, or refused in one line with its name",
    without=[
        (
            "cnn/data/npz.py",
            'UserError(f"{what} is damaged: {_describe(error)}") from error',
            "",
        )
    ],
    n=COUNT,
)
def test_an_archive_is_mutated(room):
    file = room.path / "arrays.npz"
    pixels, labels = _make_pixels(12), np.arange(12) % 3
    np.savez_compressed(
        file,
        x_train=pixels[:9],
        y_train=labels[:9],
        x_test=pixels[9:],
        y_test=labels[9:],
    )
    options = {"dataset": f"npz:{file}"}
    _fuzz(room, file, options, residents=("auto",))


@fault(
    injected="500 seeded mutations of a table of images, read with 768 MiB",
    holds="it is read, or refused in one line with its name or that of an image",
    without=[
        (
            "cnn/data/table.py",
            "        except csv.Error as error:",
            "        except EOFError as error:",
        )
    ],
    n=COUNT,
)
def test_a_table_is_mutated(room):
    _write_folder(room.path / "images", "png")
    lines = ["path,label,split"]
    for image in sorted((room.path / "images").rglob("*.png")):
        name = image.relative_to(room.path)
        lines.append(f"{name},{image.parent.name},{image.parent.parent.name}")
    file = room.path / "table.csv"
    file.write_text("\n".join(lines) + "\n")
    options = {"dataset": f"csv:{file}", "image_size": 12}
    kinds = ("classes", "labels", "pixels")
    others = {
        " and ".join(some): _accept
        for count in (1, 2, 3)
        for some in itertools.combinations(kinds, count)
    }
    _fuzz(room, file, options, [str(room.path)], others, residents=("auto",))


def _has_names(mutated, class_names):
    """Whether names of classes are those of the file, each once."""
    lines = [line.strip() for line in mutated.decode("utf-8", "replace").split("\n")]
    return [line for line in lines if line] == class_names


def _encode_bmp(pixels):
    """Encode an image in a format that has no checksum of its own."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "BMP")
    return file.getvalue()


def _fuzz_prepared(room, file_format, name, **how):
    directory = test_tfds.prepare(room.path / "tfds", file_format, encode=_encode_bmp)
    options = {"dataset": "tfds:tiny", "data_dir": str(room.path / "tfds")}
    _fuzz(room, directory / name, options, **how)


@fault(
    injected="500 seeded mutations of a TFRecord file, read with 768 MiB",
    holds="the same images and labels, or refused in one line with its name",
    without=[
        (
            "cnn/data/tfrecord.py",
            "content[-_FOOTER_BYTES:] != footer",
            "False",
        )
    ],
    n=COUNT,
)
def test_a_tfrecord_file_is_mutated(room):
    _fuzz_prepared(room, "tfrecord", "tiny-train.tfrecord-00001-of-00002")


@fault(
    injected="500 seeded mutations of an array_record file, read with 768 MiB",
    holds="the same images and labels, or refused in one line with its name",
    without=[
        (
            "cnn/data/array_record.py",
            "_DAMAGE = (OSError, RuntimeError, ValueError, IndexError, MemoryError)",
            "_DAMAGE = (EOFError,)",
        )
    ],
    n=COUNT,
)
def test_an_array_record_file_is_mutated(room):
    _fuzz_prepared(room, "array_record", "tiny-train.array_record-00001-of-00002")


@fault(
    injected="500 seeded mutations of dataset_info.json, read with 768 MiB",
    holds="the same images and labels, or refused in one line that names the data set",
    without=[
        (
            "cnn/data/prepared.py",
            "    except Exception as error:  # whatever comes of files",
            "    except EOFError as error:  # whatever comes of files",
        )
    ],
    n=COUNT,
)
def test_the_description_of_a_prepared_data_set_is_mutated(room):
    _fuzz_prepared(room, "tfrecord", "dataset_info.json", words=["tfds"])


@fault(
    injected="500 seeded mutations of features.json, read with 768 MiB",
    holds="the same images and labels, or refused in one line that names the data set",
    without=[
        (
            "cnn/data/prepared.py",
            "    except Exception as error:  # whatever comes of files",
            "    except EOFError as error:  # whatever comes of files",
        )
    ],
    n=COUNT,
)
def test_the_features_of_a_prepared_data_set_are_mutated(room):
    _fuzz_prepared(room, "tfrecord", "features.json", words=["tfds"])


@fault(
    injected="500 seeded mutations of label.labels.txt, read with 768 MiB",
    holds="the same images, or refused in one line that names the data set",
    without=[
        (
            "cnn/data/prepared.py",
            "        feature.load_metadata(directory, name)\n",
            "",
        )
    ],
    n=COUNT,
)
def test_the_names_of_the_classes_of_a_prepared_data_set_are_mutated(room):
    others = {"classes": _has_names}
    _fuzz_prepared(room, "tfrecord", "label.labels.txt", words=["tfds"], others=others)
