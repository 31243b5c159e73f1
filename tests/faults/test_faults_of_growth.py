"""Faults of growth: what a process takes after hours is what it took after minutes."""

import json
import os
import time

import numpy as np
from faulty import fault, hash_tree
from fixtures_runs import TINY, make_flags
from PIL import Image
from soak import soak

# tensorstore 0.1.86 leaks the items of what its `to_json` returns, for each array of a
# checkpoint that is written or read. Of the tiny run these are 220 KiB a call, and
# 370 KiB an epoch with its checkpoints; nothing else grows.
MOST_OF_A_CALL, MOST_OF_AN_EPOCH = 400, 800
_NOTHING_LEFT = (
    "no file, thread, signal handler or temporary directory is left; memory grows by "
    "less than 400 KiB a call, which tensorstore leaks"
)
_HANDLERS = (
    "cnn/runtime/interrupt.py",
    "        for number, handler in before.items():",
    "        for number, handler in ():",
)
CODE = """
import contextlib, gc, io, json, os, signal, sys, tempfile
from absl import flags
from absl.testing import flagsaver
import main

def call(arguments):
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver(), contextlib.redirect_stdout(io.StringIO()):
        assert main.main(main.parse_flags(["main.py", *arguments])) == 0

def classify():
    import cnn, numpy as np
    run = cnn.load("run")
    run.classify(np.zeros((3, 8, 8, 1), np.uint8))

def count():
    gc.collect()
    rss = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return {
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "kib": rss // 1024,
        "temporary": len(os.listdir(tempfile.gettempdir())),
        "handlers": str([signal.getsignal(x) for x in signal.valid_signals()]),
    }

times, arguments = int(sys.argv[1]), sys.argv[2:]
for i in range(times):
    call([x.replace("NUMBER", str(i)) for x in arguments]) if arguments else classify()
    if i == times // 3:
        first = count()
print(json.dumps([first, count()]))
"""


def check_no_growth(room, times, *arguments, kib):
    """Require that calls in one process leave nothing, from a third of them on.

    NUMBER in their arguments is which call it is.
    """
    temporary = room.path / "temporary"
    temporary.mkdir(exist_ok=True)
    env = {"TMPDIR": str(temporary)}
    ended = room.python(CODE, times, *arguments, env=env, seconds=900).check_done()
    first, last = json.loads(ended.out.splitlines()[-1])
    assert last["files"] <= first["files"] + 2, (first, last)
    assert last["threads"] <= first["threads"] + 2, (first, last)
    assert last["temporary"] <= first["temporary"], (first, last)
    assert last["handlers"] == first["handlers"], (first, last)
    grown = (last["kib"] - first["kib"]) / (times - times // 3 - 1)
    assert grown <= kib, (grown, first, last)


@fault(
    injected="50 evaluations in one process, and 50 times `cnn.load` and `classify`",
    holds=_NOTHING_LEFT,
    without=[_HANDLERS],
    n=100,
)
def test_fifty_evaluations_in_one_process(room):
    room.train("run").check_done()
    where = "--workdir=run", "--compilation_cache=off"
    check_no_growth(room, 50, "--mode=evaluate", *where, kib=MOST_OF_A_CALL)
    check_no_growth(room, 50, kib=MOST_OF_A_CALL)


@fault(
    injected="50 predictions, 50 exports for torch, 50 conversions in one process",
    holds=_NOTHING_LEFT,
    without=[_HANDLERS],
    n=150,
)
def test_fifty_calls_of_other_modes_in_one_process(room):
    room.train("run").check_done()
    for place in range(3):
        pixels = np.full((8, 8), 80 * place, np.uint8)
        Image.fromarray(pixels).save(room.path / f"{place}.png")
    run, off = "--workdir=run", "--compilation_cache=off"
    shape = ["--image_size=8", "--channels=1", "--scaling=unit"]
    names = ("model", "widths", "downsampling", "head")
    shape += make_flags({name: TINY[name] for name in names})
    source = "--source=run/model.safetensors"
    for flags in (
        ["--mode=predict", run, "--predict_images=*.png"],
        ["--mode=export", run],
        ["--mode=convert", source, "--workdir=converted/NUMBER", *shape],
    ):
        check_no_growth(room, 50, *flags, off, kib=MOST_OF_A_CALL)
    for directory in ("run", "converted"):
        left = [x for x in hash_tree(room.path / directory) if ".new" in x]
        assert not left, left


@fault(
    injected="a run of 200 epochs that writes 200 checkpoints",
    holds="three checkpoints at most lie there, no file or thread is left open; memory "
    "grows by less than 800 KiB an epoch, which tensorstore leaks",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "manifest.remove_old(self._directory, step, self._keep, kept_steps)",
            "pass",
        )
    ],
)
def test_two_hundred_epochs_in_one_process(room):
    options = TINY | {"epochs": 200, "checkpoint_every_epochs": 1.0}
    options |= {"log_every_steps": 0}
    process = room.start("--workdir=run", *make_flags(options))
    seen, limit = {}, time.monotonic() + 1500
    while process.poll() is None and time.monotonic() < limit:
        path = room.path / "run/metrics.jsonl"
        epoch = len(path.read_bytes().splitlines()) if path.exists() else 0
        try:
            if epoch not in seen:
                seen[epoch] = _look_at(process.pid)
        except OSError:
            break
        time.sleep(0.02)
    out, err = process.communicate()
    assert process.returncode == 0, (seen, out, err)
    first, last = _at(seen, 60), _at(seen, 195)
    grown = (last[0] - first[0]) / 135
    assert grown <= MOST_OF_AN_EPOCH, (grown, seen)
    files = [seen[x][1] for x in seen if x > 60]
    threads = [seen[x][2] for x in seen if x > 60]
    early = [seen[x][1] for x in seen if 20 < x <= 60]
    assert max(files) <= max(early) + 60 and min(files) <= min(early) + 2, seen
    assert max(threads) <= 100, seen
    left = os.listdir(room.path / "run/checkpoints")
    assert len(left) <= 3, left


def _at(seen, epoch):
    """Return what was seen at an epoch, or at the next that was seen."""
    return seen[min((x for x in seen if x >= epoch), default=max(seen))]


def _look_at(pid):
    """Return the KiB, files and threads of a process."""
    with open(f"/proc/{pid}/statm") as file:
        pages = int(file.read().split()[1])
    kib = pages * os.sysconf("SC_PAGE_SIZE") // 1024
    files, threads = os.listdir(f"/proc/{pid}/fd"), os.listdir(f"/proc/{pid}/task")
    return kib, len(files), len(threads)


@fault(
    injected="a minute of the soak: kills, signals, full disk, wrong clock, damaged "
    "files, again and again",
    holds="each run ends, with the bits of one that was left alone",
    without=[
        (
            "cnn/training/progress.py",
            "    progress = Progress(state, sums, counters, phase, {}, frozen)",
            "    lost = jax.tree.map(lambda x: 0 * x, state.opt_state)\n"
            "    state = state.replace(opt_state=lost)\n"
            "    progress = Progress(state, sums, counters, phase, {}, frozen)",
        )
    ],
    n=1,
)
def test_a_minute_of_the_soak(room):
    lines = []
    counts = soak(room, 60, seed=0, say=lines.append)
    assert counts["runs"] >= 1 and len(counts) > 2, lines
