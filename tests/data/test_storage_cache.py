"""Decoded images in files: the same images, decoded once, and never a wrong one."""

import collections
import dataclasses
import errno
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from data import test_tfds
from fixtures_runs import read_lines, train_run
from PIL import Image
from test_resume import Stopper

from cnn import data
from cnn.data import chunks, decode, storage_cache
from cnn.errors import UserError
from cnn.runtime import devices
from cnn.runtime.interrupt import Interrupted
from cnn.training import same_data

SIZE = 12


def write_photos(root, parts):
    """Write JPEG files of two classes, so many of each for each part."""
    random = np.random.default_rng(0)
    for part, count in parts.items():
        for name in "ab":
            place = root / part / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (16, 24, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.jpg")


@pytest.fixture
def folder(tmp_path):
    """Return class folders of 20 photographs each, for training, and 3 to test on."""
    write_photos(tmp_path / "photos", {"train": 20, "test": 3})
    return tmp_path / "photos"


@pytest.fixture
def decoded(monkeypatch):
    """Return how many images have been decoded."""
    count, whole = collections.Counter(), decode.decode

    def decode_counted(*arguments):
        count["images"] += 1
        return whole(*arguments)

    monkeypatch.setattr(decode, "decode", decode_counted)
    return count


def load(folder, cache=None, **more):
    more = {"image_size": SIZE, "resident": "never"} | more
    options = data.DataOptions(dataset=f"folder:{folder}", **more)
    if cache is not None:
        options = dataclasses.replace(options, storage_cache=str(cache))
    return data.load_dataset(options)


def read(part, seed=0):
    """Read a set in an order of its own; returns the images in that of the set."""
    order = np.random.default_rng(seed).permutation(len(part))
    return part.read(order)[np.argsort(order)]


def find_file(cache, part):
    """Return the file of a set: the only one that is as large."""
    size = storage_cache.HEADER_BYTES + len(part) * (8 + SIZE * SIZE * 3)
    (path,) = (x for x in cache.iterdir() if x.stat().st_size == size)
    return path


def test_images_are_the_same_and_decoded_once(folder, tmp_path, decoded):
    expected = {x: read(getattr(load(folder), x)) for x in ("train", "test")}
    decoded.clear()
    for number in range(3):  # of runs
        dataset = load(folder, tmp_path / "cache")
        for seed in range(2):  # epochs
            for name, images in expected.items():
                found = read(getattr(dataset, name), seed)
                np.testing.assert_array_equal(found, images)
        assert decoded["images"] == 46, number
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_an_image_that_is_asked_for_twice_is_decoded_once(folder, tmp_path, decoded):
    train = load(folder, tmp_path).train
    found = train.read(np.array([5, 2, 5, 2]))
    np.testing.assert_array_equal(found, load(folder).train.read([5, 2, 5, 2]))
    assert decoded["images"] == 2 + 4


def test_many_images_are_read_in_blocks(folder, tmp_path, monkeypatch):
    """What is decoded is kept before the next block, and memory is that of one."""
    monkeypatch.setattr(storage_cache, "_BLOCK_BYTES", 7 * (8 + SIZE * SIZE * 3))
    expected, sizes = read(load(folder).train), []
    whole = decode.stack

    def stack(make, count, *rest):
        sizes.append(count)
        return whole(make, count, *rest)

    monkeypatch.setattr(decode, "stack", stack)
    np.testing.assert_array_equal(read(load(folder, tmp_path).train), expected)
    assert sizes == [7, 7, 7, 7, 7, 5]


@pytest.mark.parametrize("kind", ["tfrecord", "array_record"])
def test_records_are_kept_too(tmp_path, decoded, kind):
    test_tfds.prepare(tmp_path / "tfds", kind)
    options = data.DataOptions(
        dataset="tfds:tiny", data_dir=str(tmp_path / "tfds"), resident="never"
    )
    kept = dataclasses.replace(options, storage_cache=str(tmp_path / "cache"))
    expected = read(data.load_dataset(options).train)
    for _ in range(2):
        found = read(data.load_dataset(kept).train)
        np.testing.assert_array_equal(found, expected)
    assert decoded["images"] == 2 * len(expected)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 10},
        {"channels": 1},
        {"resize_mode": "squash"},
        {"resize_size": 14},
        {"resize_interpolation": "nearest"},
        {"train_examples": 10},
    ],
)
def test_other_images_are_in_another_file(folder, tmp_path, options):
    read(load(folder, tmp_path / "cache").train)
    found = read(load(folder, tmp_path / "cache", **options).train)
    np.testing.assert_array_equal(found, read(load(folder, **options).train))


def test_another_decoder_decodes_again(folder, tmp_path, decoded, monkeypatch):
    read(load(folder, tmp_path).train)
    monkeypatch.setattr(storage_cache, "_describe_decoder", lambda: ["another"])
    read(load(folder, tmp_path).train)
    assert decoded["images"] == 80


def test_images_of_evaluation_have_a_size_of_their_own(folder, tmp_path, decoded):
    more = {"eval_image_size": 10, "eval_resize_size": 14}
    expected = load(folder, **more).test
    for _ in range(2):
        test = load(folder, tmp_path / "cache", **more).test
        assert test.shape == (10, 10, 3)
        np.testing.assert_array_equal(read(test), read(expected))
    # What evaluates takes the file of training, and room for no other.
    names = set(os.listdir(tmp_path / "cache"))
    options = data.DataOptions(
        dataset=f"folder:{folder}",
        image_size=10,
        resize_size=14,
        storage_cache=str(tmp_path / "cache"),
    )
    decoded.clear()
    found = data.load_evaluated(options, "test", ()).images
    np.testing.assert_array_equal(read(found), read(test))
    assert decoded["images"] == 0 and set(os.listdir(tmp_path / "cache")) == names


def test_a_split_alone_takes_room_for_itself(folder, tmp_path):
    options = data.DataOptions(
        dataset=f"folder:{folder}", image_size=SIZE, storage_cache=str(tmp_path / "new")
    )
    for own_classes in ((), None):
        found = data.load_evaluated(options, "test", own_classes).images
        np.testing.assert_array_equal(read(found), read(load(folder).test))
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_a_changed_file_is_decoded_again(folder, tmp_path):
    before = read(load(folder, tmp_path / "cache").train)
    path = folder / "train" / "a" / "3.jpg"
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(path)
    after = read(load(folder, tmp_path / "cache").train)
    np.testing.assert_array_equal(after, read(load(folder).train))
    assert np.any(before != after, axis=(1, 2, 3)).sum() == 1


def test_pixels_are_permuted_after_they_were_kept(folder, tmp_path):
    for shuffled in (True, False):
        found = load(folder, tmp_path / "cache", shuffle_pixels=shuffled)
        expected = read(load(folder, shuffle_pixels=shuffled).train)
        np.testing.assert_array_equal(read(found.train), expected)


@pytest.mark.parametrize("length", [1, 8, 300, 439])
def test_an_image_that_was_half_written_is_decoded_again(folder, tmp_path, length):
    expected = read(load(folder).train)
    train = load(folder, tmp_path).train
    read(train)
    path = find_file(tmp_path, train)
    with path.open("r+b") as file:  # the rest of the second image is not there
        start = storage_cache.HEADER_BYTES + 440 + length
        file.seek(start)
        file.write(bytes(440 - length))
    np.testing.assert_array_equal(read(load(folder, tmp_path).train), expected)
    np.testing.assert_array_equal(read(train), expected)


def test_no_bit_is_taken_that_has_flipped(folder, tmp_path):
    expected = read(load(folder).train)
    train = load(folder, tmp_path).train
    read(train)
    path = find_file(tmp_path, train)
    whole = path.read_bytes()
    for seed in range(50):
        random = np.random.default_rng(seed)
        content = bytearray(whole)
        place = random.integers(storage_cache.HEADER_BYTES, len(content))
        content[place] ^= 1 << random.integers(8)
        path.write_bytes(content)
        np.testing.assert_array_equal(read(load(folder, tmp_path).train), expected)


def test_a_file_that_was_cut_off_is_filled_again(folder, tmp_path):
    expected = read(load(folder).train)
    train = load(folder, tmp_path).train
    read(train)
    path = find_file(tmp_path, train)
    for length in (0, 10, storage_cache.HEADER_BYTES, path.stat().st_size // 2):
        os.truncate(path, length)
        np.testing.assert_array_equal(read(train), expected)
        np.testing.assert_array_equal(read(load(folder, tmp_path).train), expected)


KILLED = """
import os, signal, sys
import numpy as np
from cnn import data
from cnn.data import storage_cache

options = data.DataOptions(
    dataset=f"folder:{sys.argv[1]}", image_size=12, resident="never",
    storage_cache=sys.argv[2],
)
left, whole = int(sys.argv[3]), storage_cache._write

def write(file, start, content):
    global left
    left -= len(content)
    if left < 0:
        whole(file, start, content[:left])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, start, content)

storage_cache._write = write
for part in ("train", "test"):
    images = getattr(data.load_dataset(options), part)
    images.read(np.arange(len(images)))
"""


@pytest.mark.parametrize("written", [0, 100, 3000, 4096, 10_000, 20_000])
def test_what_a_killed_process_leaves_is_used_or_filled(folder, tmp_path, written):
    cache = tmp_path / "cache"
    arguments = [str(folder), str(cache), str(written)]
    ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert ended.returncode == -9
    for name in ("train", "test"):
        found = read(getattr(load(folder, cache), name))
        np.testing.assert_array_equal(found, read(getattr(load(folder), name)))


def test_two_fill_one_file_at_once(folder, tmp_path):
    arguments = [str(folder), str(tmp_path), str(10**9)]
    command = [sys.executable, "-c", KILLED, *arguments]
    both = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    np.testing.assert_array_equal(
        read(load(folder, tmp_path).train), read(load(folder).train)
    )


def test_a_foreign_file_is_left_alone(folder, tmp_path):
    cache = tmp_path / "cache"
    path = find_file(cache, load(folder, cache).train)
    for content in (b"mine", b"mine" * 10_000):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path.name} in --storage_cache holds"):
            load(folder, cache)
        assert path.read_bytes() == content
    path.unlink()
    (tmp_path / "other").write_bytes(b"")
    for make, reason in ((os.symlink, "is a link to"), (os.link, "has another name")):
        make(tmp_path / "other", path)
        with pytest.raises(UserError, match=reason):
            load(folder, cache)
        path.unlink()
    assert (tmp_path / "other").read_bytes() == b""
    path.mkdir()
    with pytest.raises(UserError, match=r"of --storage_cache cannot be read.* direct"):
        load(folder, cache)
    beside = cache / "notes.txt"
    beside.write_text("mine")
    path.rmdir()
    read(load(folder, cache).train)
    assert beside.read_text() == "mine"


def test_a_disk_without_room_is_said_before_anything_is_written(
    folder, tmp_path, monkeypatch
):
    cache = tmp_path / "cache"
    usage = shutil.disk_usage(tmp_path)
    needed = 2 * storage_cache.HEADER_BYTES + 46 * (8 + SIZE * SIZE * 3)
    small = usage._replace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    with pytest.raises(UserError, match=r"--storage_cache=.*/cache: .* GB more, and"):
        load(folder, cache)
    assert not cache.exists()
    small = usage._replace(free=needed)
    load(folder, cache)
    small = usage._replace(free=0)  # what it has taken is not wanted again
    load(folder, cache)


def test_a_disk_that_fills_up_meanwhile_is_said(folder, tmp_path, monkeypatch):
    def fill(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = tmp_path / "cache"
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", fill)
        with pytest.raises(UserError, match=r"--storage_cache cannot .*: make room on"):
            load(folder, cache)
    assert not any(cache.iterdir())
    train = load(folder, cache).train
    monkeypatch.setattr(storage_cache, "_write", fill)
    with pytest.raises(UserError, match=r"--storage_cache cannot .*: make room on"):
        read(train)


def test_disks_that_take_no_room_ahead_are_used(folder, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    expected = read(load(folder).train)
    monkeypatch.setattr(os, "posix_fallocate", refuse)
    np.testing.assert_array_equal(read(load(folder, tmp_path / "a").train), expected)
    monkeypatch.delattr(os, "posix_fallocate")
    np.testing.assert_array_equal(read(load(folder, tmp_path / "b").train), expected)


def test_a_directory_that_cannot_be_made_is_refused(folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    for cache in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(UserError, match=r"--storage_cache=.*cannot be made"):
            load(folder, cache)


def test_what_is_decoded_at_once_needs_no_files(folder, tmp_path):
    with pytest.raises(UserError, match=r"^--storage_cache=.* --resident=always dec"):
        load(folder, tmp_path, resident="always")


def test_a_look_writes_nothing(folder, tmp_path, decoded):
    options = data.DataOptions(
        dataset=f"folder:{folder}", image_size=SIZE, storage_cache=str(tmp_path / "new")
    )
    data.load_dataset(options, preview=True)
    assert not (tmp_path / "new").exists() and not decoded


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """Return photographs, and what a run on them comes to without a cache."""
    root = tmp_path_factory.mktemp("streamed")
    write_photos(root / "photos", {"train": 20, "test": 5})
    return (
        root / "photos",
        train(root / "run", root / "photos"),
        read_lines(root / "run"),
    )


def train(directory, photos, terminal=None, **more):
    more = {"resident": "never", "train_examples": 0, "epochs": 2} | more
    more |= {"dataset": f"folder:{photos}", "image_size": SIZE, "batch_size": 8}
    return train_run(directory, terminal, **more)["state_sha256"]


def test_a_run_has_the_same_bits(streamed, tmp_path, decoded):
    photos, state, lines = streamed
    cache = str(tmp_path / "cache")
    for number, resident in enumerate(("never", "auto")):
        directory = tmp_path / resident
        found = train(directory, photos, storage_cache=cache, resident=resident)
        assert (found, read_lines(directory)) == (state, lines)
        assert decoded["images"] == 50, number


def test_a_stopped_run_resumes_to_the_same_bits(streamed, tmp_path, decoded, no_pauses):
    photos, state, lines = streamed
    cache = str(tmp_path / "cache")
    with pytest.raises(Interrupted):
        train(tmp_path / "run", photos, Stopper(3), storage_cache=cache)
    found = train(tmp_path / "run", photos, storage_cache=cache)
    assert (found, read_lines(tmp_path / "run")) == (state, lines)
    assert decoded["images"] == 50


def test_a_copy_elsewhere_is_compared_without_decoding(tmp_path, streamed, decoded):
    photos, run = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(streamed[0], photos)
    train(run, photos, storage_cache=str(tmp_path / "cache"), epochs=1)
    shutil.rmtree(tmp_path / "cache")
    shutil.move(photos, tmp_path / "moved")
    decoded.clear()
    options = data.DataOptions(dataset=f"folder:{tmp_path}/moved", image_size=SIZE)
    found = same_data.find_moved(run, options)
    assert found["dataset"] == options.dataset
    assert not decoded and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("is_host", [True, False])
def test_kept_images_are_held_by_other_devices_alone(
    folder, tmp_path, monkeypatch, is_host
):
    """In the host's own memory they would be there twice."""
    monkeypatch.setattr(devices, "lie_in_host_memory", lambda mesh: is_host)
    options = data.DataOptions(storage_cache=str(tmp_path / "cache"))
    images = load(folder, tmp_path / "cache").train
    loader = chunks.Loader(images, options, devices.make_mesh())
    assert loader.is_resident == (not is_host)
    positions = np.arange(40, dtype=np.int32).reshape(4, 10)
    found = np.asarray(loader.fill(positions)["images"]).reshape(40, SIZE, SIZE, 3)
    np.testing.assert_array_equal(found, read(load(folder).train))
    # Features of the images are not what is kept.
    assert options.fits_in_memory(1) and not options.keeps_in_memory(1)
