"""Faults of the other modes: killed, asked to stop, without a disk.

Those that have no such tests of their own elsewhere: describe, predict, inspect,
find_rate, visualize, and three formats of export.
"""

import errno
import itertools
import json
import shutil
import signal

import numpy as np
from failing import fail_everywhere, list_names
from faulty import fault, hash_tree
from fixtures_runs import TINY, make_flags
from PIL import Image

from cnn.errors import explain

SHORT = {"epochs": 1}
FORMATS = ("msgpack", "stablehlo", "onnx")
_RATES = make_flags(TINY | {"find_rate_steps": 20, "find_rate_min": 1e-2})
# By mode its flags, and of how many operations on files one is made to fail.
MODES = {
    "describe": (["--workdir=new", *make_flags(TINY)], 1),
    "predict": (["--workdir=run", "--predict_images=images"], 1),
    "inspect": (["--workdir=new", "--dataset=folder:images"], 4),
    "find_rate": (["--workdir=new", *_RATES], 4),
    "visualize": (["--workdir=run", "--pictures=curves"], 4),
}
EXPORTS = {name: (["--workdir=run", f"--export_format={name}"], 7) for name in FORMATS}


def make_source(room):
    """Make a directory with a run, and images of two classes; returns it."""
    room.train("source/run", **SHORT).check_done()
    chance = np.random.default_rng(0)
    for place in range(12):
        folder = room.path / f"source/images/{'ab'[place % 2]}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = chance.integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(folder / f"{place}.png")
    return room.path / "source"


def list_calls():
    """List the flags and the step of every mode and format."""
    calls = [([f"--mode={x}", *given], n) for x, (given, n) in MODES.items()]
    return calls + [(["--mode=export", *given], n) for given, n in EXPORTS.values()]


def fail_modes(room, *ways):
    """Let every mode and format fail, each in one of some ways, which take turns.

    Yields:
        The way, what a whole call left, and a call that failed.
    """
    for (flags, step), how in zip(list_calls(), itertools.cycle(ways)):
        whole, calls = fail_everywhere(room, flags, room.path / "source", how, step)
        for call in calls:
            yield how, whole, call
        shutil.rmtree(room.path / how)


def check_whole(call, whole, source):
    """Require that what a call has left has the bits of before or of the end.

    What is for the next call, or depends on time, need only be there whole as JSON.
    """
    end, before = hash_tree(whole), hash_tree(source)
    mended = hash_tree(call.mended)
    for name, found in hash_tree(call.failed).items():
        path = call.failed / name
        if ".partial." in name or path.name.startswith(".") or found == "a directory":
            continue
        if found in (end.get(name), before.get(name)):
            continue
        assert name == "run/model.json" or mended.get(name) != end.get(name), (
            name,
            call,
        )
        if path.suffix == ".json":
            json.loads(path.read_text())


def check_mended(call, whole):
    """Require that the same call afterwards did what an undisturbed one does."""
    assert call.again == 0, call
    assert list_names(call.mended) == list_names(whole), call


def check_explained(call, reason):
    """Require success, or a line that names a file and what to do; nothing is left."""
    assert call.code in (0, 2), call
    lines = call.told.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == (call.code == 2), call
    assert all(x.startswith(("error: ", "note: ")) for x in lines), call
    for line in errors:
        assert reason in line and ("/" in line or "new" in line), call
    left = [x for x in hash_tree(call.failed) if x.endswith(".new")]
    assert not left, (left, call)
    for path in call.failed.rglob("*.partial.csv"):
        assert len(path.read_bytes().splitlines()) > 1, call


def check_signal(call, number):
    """Require the signal's exit code and one line that says so."""
    assert call.code == 128 + number, call
    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    assert call.told.splitlines() == [
        f"note: stopped by {name}; what is written is whole, and the same command "
        "does the rest"
    ], call


_IN_PLACE = (
    "cnn/checkpoints/atomic.py",
    "    temporary = name_new(path)\n",
    "    temporary = path\n",
)


@fault(
    injected="SIGKILL at operations on files of describe, predict, inspect, find_rate, "
    "visualize, and of export for msgpack, stablehlo, onnx",
    holds="what is there is whole; the same command does the rest, nothing is left",
    without=[_IN_PLACE],
    n=30,
)
def test_other_modes_are_killed(room):
    source = make_source(room)
    for _, whole, call in fail_modes(room, "SIGKILL"):
        assert call.code in (0, -signal.SIGKILL), call
        check_whole(call, whole, source)
        check_mended(call, whole)


@fault(
    injected="a full disk, a used up quota or a broken disk, in turn, in the same "
    "from one operation on",
    holds="one line that names the file and the remedy; what is there is whole; with "
    "room the same command does the rest",
    without=[
        (
            "cnn/checkpoints/atomic.py",
            "                    temporary.unlink()\n",
            "                    pass\n",
        )
    ],
    n=30,
)
def test_the_disk_is_full_in_other_modes(room):
    source = make_source(room)
    for how, whole, call in fail_modes(room, "ENOSPC", "EDQUOT", "EIO"):
        check_explained(call, explain(OSError(getattr(errno, how), "")))
        check_whole(call, whole, source)
        check_mended(call, whole)


@fault(
    injected="SIGTERM or Ctrl-C at operations on files of the same modes",
    holds="exit code 143 or 130 and a line that says so; what is there is whole; the "
    "same command does the rest",
    without=[
        (
            "cnn/runtime/interrupt.py",
            "    del frame\n    _end(number)\n",
            "    del frame\n",
        )
    ],
    n=30,
)
def test_other_modes_are_asked_to_stop(room):
    source = make_source(room)
    for how, whole, call in fail_modes(room, "SIGTERM", "SIGINT"):
        check_signal(call, signal.Signals[how])
        check_whole(call, whole, source)
        check_mended(call, whole)
