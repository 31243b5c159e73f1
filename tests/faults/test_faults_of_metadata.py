"""Faults of what files say of themselves: lies whose checksums fit, and half files."""

import hashlib
import json
import shutil
import struct
from pathlib import Path

from faulty import Room, fault, hash_tree, read_run, run_undisturbed
from PIL import Image

_MEMORY = {"RLIMIT_AS": 12 * 2**30}
_MANY = 10**12
_NEW = ("--model=simple_cnn", "--widths=4", "--head=global_average")


def train(room: Room, name: str = "run") -> Path:
    """Train a run with a single checkpoint; returns that."""
    room.train(name, keep_checkpoints=1).check_done()
    (step,) = (room.path / name / "checkpoints").iterdir()
    return step


def fit(step: Path) -> None:
    """Make the manifest of a checkpoint fit its files as they are."""
    files = [x for x in step.rglob("*") if x.is_file() and x.name != "manifest.json"]
    digests = {
        str(x.relative_to(step)): hashlib.sha256(x.read_bytes()).hexdigest()
        for x in files
    }
    (step / "manifest.json").write_text(json.dumps(digests))


def lie(step: Path, **values: object) -> None:
    """Let a checkpoint's description say something else, its checksums fitting."""
    path = step / "description.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    fit(step)


def forge_shapes(step: Path, item: str, before: int, after: int) -> None:
    """Replace a size in the shapes of all arrays of a tree, on disk."""
    import tensorstore

    base = {"driver": "file", "path": f"{step / item}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    for key in store.list().result():
        if key.endswith(b"/zarr.json"):
            found = json.loads(store.read(key).result().value)
            found["shape"] = [after if x == before else x for x in found["shape"]]
            store.write(key, json.dumps(found)).result()


@fault(
    injected="arrays and checksums of a run agree on 10^12 numbers a layer",
    holds="seven modes refuse it by its metadata, before memory is asked for",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "    if claimed > _MOST * held + _SLACK:\n",
            "    if False:\n",
        )
    ],
    n=7,
)
def test_shapes_of_a_trillion_numbers(room):
    step = train(room)
    for item in ("weights", "average"):
        forge_shapes(step, item, 4, _MANY)
    lie(step)
    shutil.copytree(room.path / "run", room.path / "other")
    Image.new("L", (8, 8)).save(room.path / "picture.png")
    for flags in (
        ("--mode=evaluate", "--workdir=run"),
        ("--mode=predict", "--workdir=run", "--predict_images=picture.png"),
        ("--mode=export", "--workdir=run"),
        ("--mode=visualize", "--workdir=run", "--pictures=kernels"),
        ("--mode=average", "--workdir=run,other", "--output=mean"),
        ("--init_from=run", "--workdir=new", *_NEW),
        ("--teacher=run", "--distillation=soft", "--workdir=new", *_NEW),
    ):
        ended = room.main(*flags, limits=_MEMORY)
        ended.check_refused("claims arrays of", str(Path("checkpoints", step.name)))
    assert not (room.path / "new").exists() and not (room.path / "mean").exists()


@fault(
    injected="metadata of a tree is a list, is nested 10^5 deep, names another type",
    holds="evaluation and --init_from refuse it in one line without others' logs",
    without=[
        (
            "cnn/checkpoints/library.py",
            "    except Exception as error:\n        what",
            "    except OSError as error:\n        what",
        )
    ],
    n=6,
)
def test_metadata_of_a_tree_that_lies(room):
    step = train(room)
    path = step / "average" / "_METADATA"
    whole = path.read_text()
    deep = "[" * 10**5 + "]" * 10**5
    for text in ("[]", deep, whole.replace("jax.Array", "string")):
        path.write_text(text)
        fit(step)
        for flags in (
            ("--mode=evaluate", "--workdir=run"),
            ("--init_from=run", "--workdir=new", *_NEW),
        ):
            room.main(*flags).check_refused(f"checkpoints/{step.name}")


@fault(
    injected="a description names eleven classes of weights that tell ten",
    holds="evaluation names the leaves that differ",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "            _check_same_tree(path, there, here)\n        return _load",
            "            pass\n        return _load",
        )
    ],
)
def test_names_of_classes_that_the_weights_lack(room):
    step = train(room)
    lie(step, class_names=[str(number) for number in range(11)])
    ended = room.main("--mode=evaluate", "--workdir=run")
    ended.check_refused(f"checkpoints/{step.name}", "params/head/bias")


@fault(
    injected="class names as numbers, shape as texts, mean NaN, deviation 0, a list of "
    "options, a best step as text, environment as list",
    holds="each is refused in one line that names the file and the value",
    without=[
        (
            "cnn/checkpoints/manifest.py",
            "    if problem := description.find_problem(found):\n",
            "    if problem := '':\n",
        )
    ],
    n=8,
)
def test_descriptions_that_cannot_be(room):
    step = train(room)
    whole = (step / "description.json").read_text()
    for name, value in (
        ("class_names", list(range(10))),
        ("image_shape", ["8", "8", "1"]),
        ("image_shape", [10**6, 10**6, 1]),
        ("mean", [float("nan")]),
        ("std", [0.0]),
        ("options", []),
        ("records", {"best_step": "15"}),
        ("environment", [1]),
    ):
        lie(step, **{name: value})
        ended = room.main("--mode=evaluate", "--workdir=run", "--checkpoint=best")
        ended.check_refused(f"checkpoints/{step.name}/description.json", name)
        (step / "description.json").write_text(whole)


@fault(
    injected="counters of a checkpoint as text, its checksums fitting",
    holds="the run is not resumed, the reason named, and nothing is changed",
    without=[
        (
            "cnn/checkpoints/description.py",
            "    if problem := form.find_problem(found, plain | nested):\n",
            "    if problem := '':\n",
        )
    ],
)
def test_counters_of_a_run_as_text(room):
    step = train(room)
    (room.path / "run/result.json").unlink()
    records = json.loads((step / "description.json").read_text())["records"]
    lie(step, records=records | {"seconds": "6"})
    before = hash_tree(step)
    ended = room.train("run", keep_checkpoints=1)
    ended.check_refused(f"checkpoints/{step.name}", "seconds is not a number")
    assert hash_tree(step) == before


@fault(
    injected="a checkpoint says that metrics.jsonl had 10^15 bytes",
    holds="the run resumes to the same bits, and says what is lost",
    without=[
        (
            "cnn/runtime/metrics_log.py",
            "self._file.read(min(length, there))",
            "self._file.read(length)",
        )
    ],
)
def test_a_length_of_metrics_that_no_memory_has(room):
    step = train(room)
    (room.path / "run/result.json").unlink()
    records = json.loads((step / "description.json").read_text())["records"]
    lie(step, records=records | {"metrics_bytes": 10**15})
    ended = room.train("run", keep_checkpoints=1).check_done()
    assert "metrics.jsonl has lost" in ended.out, ended
    assert read_run(room.path / "run") == run_undisturbed()


@fault(
    injected="lines of metrics.jsonl that are no UTF-8, nested 10^5 deep, zeros, half",
    holds="the run resumes, says what is lost, and ends with the same weights",
    without=[
        (
            "cnn/runtime/metrics_log.py",
            "        except (ValueError, RecursionError):\n",
            "        except TypeError:\n",
        )
    ],
)
def test_lines_of_metrics_that_are_no_text(room):
    train(room)
    path = room.path / "run/metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    deep = b"[" * 10**5 + b"]" * 10**5 + b"\n"
    bad = [b'{"step": 4, "\xff\xfe": 1}\n', deep, bytes(40) + b"\n", lines[3][:20]]
    path.write_bytes(b"".join(lines[:5] + bad))
    (room.path / "run/result.json").unlink()
    ended = room.train("run", keep_checkpoints=1).check_done()
    assert "metrics.jsonl has lost" in ended.out, ended
    found, expected = read_run(room.path / "run"), run_undisturbed()
    assert found[:2] == expected[:2] and found[2][:5] == expected[2][:5]


@fault(
    injected="metrics.jsonl with texts, huge numbers and lists as steps and epochs",
    holds="the curves are drawn of the lines that are whole",
    without=[
        (
            "cnn/visualize/compute/curves.py",
            "    return type(value) is int and least <= value < _MOST\n",
            "    return bool(value)\n",
        )
    ],
)
def test_curves_of_metrics_that_lie(room):
    train(room)
    with open(room.path / "run/metrics.jsonl", "ab") as file:
        for step, epoch in (("7", 1), (10**400, 2), ([1], [2]), (5, "x"), (-3, 1)):
            line = {"step": step, "epoch": epoch, "train_loss": 10**400}
            file.write(json.dumps(line).encode() + b"\n")
    flags = "--mode=visualize", "--workdir=run", "--pictures=curves"
    room.main(*flags).check_done()


@fault(
    injected="config.json is cut in half",
    holds="evaluation takes the options of the newest checkpoint: the same numbers",
    without=[
        (
            "cnn/checkpoints/workdir.py",
            "        if described is not None:\n            path",
            "        if False:\n            path",
        )
    ],
)
def test_half_written_options(room):
    train(room)
    flags = "--mode=evaluate", "--workdir=run"
    room.main(*flags).check_done()
    before = json.loads((room.path / "run/evaluation.json").read_text())
    path = room.path / "run/config.json"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    room.main(*flags).check_done()
    after = json.loads((room.path / "run/evaluation.json").read_text())
    assert (after["loss"], after["accuracy"]) == (before["loss"], before["accuracy"])


@fault(
    injected="config.json with a list, an unknown name, a text for a number, a NUL",
    holds="refused with the file and the remedy, which then works",
    without=[
        (
            "cnn/checkpoints/workdir.py",
            "        config.check_stored({} if problem else stored)\n",
            "        pass\n",
        )
    ],
    n=4,
)
def test_options_of_a_run_that_cannot_be(room):
    train(room)
    path = room.path / "run/config.json"
    whole = json.loads(path.read_text())
    for changes in (
        {"dataset": ["digits"]},
        {"activation": "nonsense"},
        {"batch_size": "20"},
        {"dataset": "folder:a\0b"},
    ):
        path.write_text(json.dumps(whole | changes))
        ended = room.main("--mode=evaluate", "--workdir=run")
        ended.check_refused("run/config.json is damaged", "remove it")
    path.unlink()
    room.main("--mode=evaluate", "--workdir=run").check_done()


@fault(
    injected="result.json of an ended run with texts for numbers, a list, half of it",
    holds="the same command writes it again, the same bits",
    without=[
        (
            "cnn/training/report.py",
            "    except (UserError, *_MALFORMED):",
            "    except UserError:",
        )
    ],
    n=3,
)
def test_results_that_lie(room):
    train(room)
    path = room.path / "run/result.json"
    whole = path.read_text()
    result = json.loads(whole)
    lie = json.dumps(result | {"steps": "15", "test_accuracy": None})
    for text in (lie, "[1, 2]", whole[: len(whole) // 2]):
        path.write_text(text)
        room.train("run", keep_checkpoints=1).check_done()
        assert read_run(room.path / "run") == run_undisturbed()


@fault(
    injected="dataset.json whose lists are not those of its fingerprints",
    holds="it does not count, and evaluation says the same",
    without=[
        ("cnn/training/same_data.py", "if identity.is_whole(x) and type", "if type")
    ],
)
def test_records_of_data_that_lie(room):
    train(room)
    path = room.path / "run/dataset.json"
    record = json.loads(path.read_text())
    record["parts"]["train"] = {"count": 100, "stamps": 7}
    path.write_text(json.dumps(record))
    room.main("--mode=evaluate", "--workdir=run").check_done()
    found = json.loads((room.path / "run/evaluation.json").read_text())
    assert found["dataset_changed"] is False and found["trained_images"] is None


@fault(
    injected="calibration.json is cut in half, of an ensemble's ensemble.json too",
    holds="refused with the file and what to do",
    without=[
        (
            "cnn/training/temperature.py",
            '        raise UserError(f"{error}; {_REMEDY}") from None\n',
            "        raise\n",
        )
    ],
    n=2,
)
def test_half_written_calibration(room):
    train(room)
    (room.path / "run/calibration.json").write_text('{"15": {"temp')
    ended = room.main("--mode=evaluate", "--workdir=run")
    ended.check_refused("run/calibration.json is damaged", "remove it")
    (room.path / "run/calibration.json").unlink()
    shutil.copytree(room.path / "run", room.path / "other")
    (room.path / "run/ensemble.json").write_text('{"members": [{"workdir": "a\\u0000"')
    ended = room.main("--mode=evaluate", "--workdir=run,other", "--ensemble")
    assert ended.code == 2 and "Traceback" not in ended.err, ended
    assert "run/ensemble.json" in ended.err and "remove it" in ended.err, ended


@fault(
    injected="headers of .safetensors that claim 10^12 numbers, or lie outside of it",
    holds="--init_from and --mode=convert refuse them in one line, before memory",
    without=[
        (
            "cnn/weights/safetensors_file.py",
            "    problem = find_problem(path)\n",
            "    problem = ''\n",
        )
    ],
    n=6,
)
def test_headers_of_weights_that_lie(room):
    path = room.path / "weights.safetensors"
    for shape, offsets in (
        ([10**6, 10**6], [0, 4 * 10**12]),
        ([4, 4], [-64, 0]),
        ([2**32, 2**32], [0, 64]),
    ):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
        header = json.dumps({"head.weight": entry}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(64))
        for flags in (
            (f"--init_from={path}", "--workdir=new", *_NEW),
            ("--mode=convert", f"--source={path}", "--workdir=new", *_NEW),
        ):
            room.main(*flags, limits=_MEMORY).check_refused(path.name)
    assert not (room.path / "new").exists()
