"""Faults of decoded images that are kept in files (`--storage_cache`)."""

import json

import numpy as np
from faulty import fault, read_run
from fixtures_runs import TINY, make_flags
from PIL import Image

CHECK = (
    "cnn/data/storage_cache.py",
    "if count < len(self._row) or check != _compute_check(pixels):",
    "if count < len(self._row):",
)


def _choose(room, **more):
    """Write photographs; returns the options of a run on them."""
    random = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 5)):
        for name in "ab":
            folder = room.path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 256, (20, 20, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.jpg")
    choices = {"dataset": "folder:photos", "image_size": 16, "resident": "never"}
    return choices | {"train_examples": 0, "epochs": 2} | more


@fault(
    injected="a bit of every 7th decoded image that is kept flips between two runs",
    holds="these are decoded again: the same bits as without kept images",
    without=[CHECK],
)
def test_bits_of_kept_images_flip(room):
    choices = _choose(room)
    room.train("plain", **choices).check_done()
    room.train("first", **choices, storage_cache="kept").check_done()
    for path in (room.path / "kept").iterdir():
        content = bytearray(path.read_bytes())
        for place in range(4096 + 100, len(content), 7 * (16 * 16 * 3 + 8)):
            content[place] ^= 128
        path.write_bytes(content)
    room.train("second", **choices, storage_cache="kept").check_done()
    expected = read_run(room.path / "plain")
    assert read_run(room.path / "first") == expected
    assert read_run(room.path / "second") == expected


# Main with a number of bytes that may be written to kept images, then a kill.
KILLER = """
import json, os, signal, sys
import main
from cnn.data import storage_cache

(arguments, left), whole = json.loads(sys.argv[1]), storage_cache._write

def write(file, start, content):
    global left
    left -= len(content)
    if left < 0:
        whole(file, start, content[:left])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(file, start, content)

storage_cache._write = write
sys.exit(main.main(main.parse_flags(["main.py", *arguments])))
"""


@fault(
    injected="SIGKILL in the middle of writing a decoded image, 4 places",
    holds="the same command ends in the bits of a run without kept images",
    without=[CHECK],
    n=4,
)
def test_a_run_is_killed_while_it_keeps_images(room):
    choices = _choose(room)
    room.train("plain", **choices).check_done()
    for count in (0, 3, 20, 50):
        kept = choices | {"storage_cache": f"kept{count}"}
        flags = [f"--workdir=run{count}", *make_flags(TINY | kept)]
        left = 4096 + count * (16 * 16 * 3 + 8) + 300
        ended = room.python(KILLER, json.dumps([flags, left]))
        assert ended.code == 128 + 9, ended
        room.train(f"run{count}", **kept).check_done()
        assert read_run(room.path / f"run{count}") == read_run(room.path / "plain")


@fault(
    injected="a disk with less room than the decoded images take",
    holds="refused before training: the flag, what is missing; nothing is left",
    without=[
        ("cnn/data/storage_cache.py", "    if missing > free:", "    if False:"),
        ("cnn/data/storage_cache.py", "place.path.unlink(missing_ok=True)", "pass"),
    ],
)
def test_the_disk_is_too_small_for_decoded_images(room):
    choices = _choose(room)
    with room.small_disk(40_000) as disk:
        ended = room.train("run", **choices, storage_cache=disk / "kept")
        ended.check_refused("--storage_cache=", "GB more", "make room")
        assert not (disk / "kept").exists()
        assert not (room.path / "run" / "result.json").exists()
