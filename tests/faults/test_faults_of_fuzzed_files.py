"""Faults of files at random: 500 seeded mutations of each kind that a run reads.

A child reads what each seed makes of a file (see `fuzzing`), with limited memory and
time. Where checksums or the manifest cover the file, the values are the same or it is
refused; where nobody can tell, other values may be read, but nothing else may happen.
"""

import collections
import json
import sys
from pathlib import Path

import numpy as np
from faulty import Room, fault
from fixtures_flax import save_msgpack, save_npz
from fixtures_runs import ROOT
from PIL import Image
from safetensors.numpy import save_file

SEEDS = 500
_CODE = """
import sys
sys.path += sys.argv[1].split(":")
import fuzzing
fuzzing.main(*sys.argv[2:])
"""
_MEMORY = {"RLIMIT_AS": 12 * 2**30}
_REFUSED = "the same values, or one line that names the file; nothing else"
_READ = "one line that names the file, or values as far as they are whole"
_TREE = {
    "stem": {"kernel": (3, 3, 1, 4), "bias": (4,)},
    "head": {"kernel": (4, 10), "bias": (10,)},
}


def fuzz(room: Room, kind: str, allowed: tuple[str, ...] = ("same", "refused")) -> None:
    """Let a child read the mutations of a kind; every seed must end as allowed."""
    folders = ":".join(str(ROOT / x) for x in ("tests", "tests/faults"))
    arguments = folders, kind, str(room.path), "0", str(SEEDS)
    ended = room.python(_CODE, *arguments, seconds=900, limits=_MEMORY)
    lines = [json.loads(line) for line in ended.out.splitlines()]
    ends = {line["seed"]: line for line in lines if "outcome" in line}
    begun = [line for line in lines if line["seed"] not in ends]
    assert ended.code == 0 and not begun, (ended.code, begun, ended.err[-2000:])
    assert len(ends) == SEEDS
    for line in ends.values():
        assert line["outcome"] in allowed, line
        if line["outcome"] == "refused":
            names = Path(line["file"]).parts[len(room.path.absolute().parts) :]
            assert any(name in line["text"] for name in names), line
            assert "\n" not in line["text"], line
    counts = collections.Counter(line["outcome"] for line in ends.values())
    assert counts["same"] < SEEDS, counts


def make_run(room: Room) -> None:
    """Train the run whose files are changed, with a single checkpoint."""
    room.train("run", keep_checkpoints=1).check_done()
    Image.new("L", (8, 8), 90).save(room.path / "picture.png")


def make_weights() -> dict:
    """Make the arrays of a small model, by name within name."""
    draw = np.random.default_rng(0)
    return {
        layer: {name: draw.normal(size=x).astype(np.float32) for name, x in own.items()}
        for layer, own in _TREE.items()
    }


def list_weights() -> dict[str, np.ndarray]:
    """List the arrays as PyTorch names them."""
    tree = make_weights()
    return {f"{a}.{b}": x for a, own in tree.items() for b, x in own.items()}


@fault(
    injected="500 seeded mutations of a checkpoint's files, in five ways of reading",
    holds=_REFUSED,
    without=[
        (
            "cnn/checkpoints/manifest.py",
            '            return f"{path / name} has changed since it was written"',
            "            continue",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_checkpoints(room):
    make_run(room)
    fuzz(room, "checkpoint")


@fault(
    injected="the same, the manifest of checksums made to fit",
    holds=_REFUSED,
    without=[
        (
            "cnn/checkpoints/library.py",
            "    except Exception as error:\n        what",
            "    except OSError as error:\n        what",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_checkpoints_whose_checksums_fit(room):
    make_run(room)
    fuzz(room, "lying checkpoint")


@fault(
    injected="500 seeded mutations of manifest.json",
    holds=_REFUSED,
    without=[
        (
            "cnn/checkpoints/manifest.py",
            '    if form.find_problem(manifest, {DESCRIPTION: str, "*": str}):\n',
            "    if False:\n",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_manifests(room):
    make_run(room)
    fuzz(room, "manifest")


@fault(
    injected="500 seeded mutations of description.json, the manifest made to fit",
    holds=_READ,
    without=[
        (
            "cnn/checkpoints/manifest.py",
            "    if problem := description.find_problem(found):\n",
            "    if problem := '':\n",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_descriptions_whose_checksums_fit(room):
    make_run(room)
    fuzz(room, "description", ("same", "refused", "other"))


@fault(
    injected="500 seeded mutations of config.json",
    holds=_READ,
    without=[
        (
            "cnn/checkpoints/workdir.py",
            "    problem = form.find_problem(stored, _OPTIONS)\n",
            "    problem = ''\n",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_options(room):
    make_run(room)
    fuzz(room, "config", ("same", "refused", "other"))


@fault(
    injected="500 seeded mutations of result.json, dataset.json and calibration.json",
    holds=_READ,
    without=[
        (
            "cnn/training/report.py",
            "    except (UserError, *_MALFORMED):",
            "    except UserError:",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_results_and_records_of_data(room):
    make_run(room)
    fuzz(room, "records", ("same", "refused", "other"))


@fault(
    injected="500 seeded mutations of metrics.jsonl, drawn and resumed",
    holds="lines that are whole are read, the others are left out",
    without=[
        (
            "cnn/visualize/compute/curves.py",
            '    is_line = isinstance(line, dict) and _is_count(line.get("step"), 0)\n',
            "    is_line = True\n",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_metrics(room):
    make_run(room)
    fuzz(room, "metrics", ("same", "refused", "other"))


@fault(
    injected="500 seeded mutations of a .safetensors file",
    holds="refused in one line, or read as the format's own library reads it",
    without=[
        (
            "cnn/weights/safetensors_file.py",
            "    problem = find_problem(path)\n",
            "    problem = ''\n",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_safetensors(room):
    save_file(list_weights(), room.path / "weights.safetensors")
    fuzz(room, "weights")


@fault(
    injected="500 seeded mutations of a msgpack file of Flax",
    holds="refused in one line, or read as the format's own library reads it",
    without=[
        (
            "cnn/weights/msgpack_file.py",
            "OSError, *malformed, msgpack.UnpackException)",
            "OSError)",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_msgpack(room):
    save_msgpack(room.path / "weights.msgpack", {"params": make_weights()})
    fuzz(room, "weights")


@fault(
    injected="500 seeded mutations of weights in a .npz file",
    holds=_REFUSED,
    without=[
        ("cnn/weights/npz_file.py", "    zipfile.BadZipFile,\n    zlib.error,\n", "")
    ],
    n=SEEDS,
)
def test_fuzzed_npz_of_weights(room):
    save_npz(room.path / "weights.npz", {"params": make_weights()})
    fuzz(room, "weights")


@fault(
    injected="500 seeded mutations of a .pth file",
    holds=_REFUSED,
    without=[
        (
            "cnn/weights/torch_file.py",
            '            raise Damaged(f"{name} has changed since it was written")',
            "            pass",
        )
    ],
    n=SEEDS,
)
def test_fuzzed_pth(room):
    sys.path.append(str(ROOT / "tests" / "weights"))
    import torch_writer

    tensors, storages = {}, {}
    for key, (name, array) in enumerate(list_weights().items()):
        strides = tuple(stride // array.itemsize for stride in array.strides)
        stored = torch_writer.Stored("Float", str(key), array.size)
        tensors[name] = torch_writer.tensor(stored, 0, array.shape, strides)
        storages[str(key)] = array
    torch_writer.write(room.path / "weights.pth", tensors, storages)
    fuzz(room, "weights")
