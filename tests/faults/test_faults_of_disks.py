"""Faults of disks and of modes: full, forbidden, few open files, killed writes."""

import contextlib
import shutil
import subprocess

import pytest
from failing import check_same, kill_everywhere
from faulty import fault, hash_tree, read_run, run_undisturbed
from fixtures_runs import TINY, make_flags

from cnn.checkpoints import manifest
from cnn.checkpoints.proof import hash_variables
from cnn.training.trained import load_trained

SHORT = {"epochs": 1}


def hash_weights(run):
    """Hash a run's weights, read from a checkpoint that is whole."""
    return hash_variables(load_trained(run).variables)


@contextlib.contextmanager
def filled(disk, left):
    """Fill a disk up to so many bytes."""
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(max(file.tell() - left, 0))
    try:
        yield
    finally:
        filler.unlink()


def check_no_leftovers(directory):
    left = [x for x in hash_tree(directory) if ".new" in x or ".orbax-checkpoint" in x]
    assert not left, left


# Open files


@fault(
    injected="training under limits of 20, 32 and 40 open files",
    holds="one line that names the limit, nothing half; resumes to the same bits",
    without=[
        (
            "cnn/checkpoints/library.py",
            'lambda record: "orbax" not in record.pathname',
            "lambda record: True",
        )
    ],
    n=3,
)
def test_few_open_files(room):
    flags = ["--workdir=run", *make_flags(TINY)]
    for limit in (20, 32, 40):
        ended = room.main(*flags, limits={"RLIMIT_NOFILE": limit})
        ended.check_refused("checkpoints", "Too many open files", "ulimit -n")
        check_no_leftovers(room.path / "run")
    room.train("run").check_done()
    assert read_run(room.path / "run") == run_undisturbed()


@fault(
    injected="weights converted under a limit of 24 open files",
    holds="one line, nothing is left, and the same command converts",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "                _discard(new)\n",
            "                pass\n",
        )
    ],
)
def test_few_open_files_in_convert(room):
    flags = write_source(room)
    ended = room.main(*flags, limits={"RLIMIT_NOFILE": 24})
    ended.check_refused("Too many open files", "ulimit -n")
    check_no_leftovers(room.path / "new")
    assert not (room.path / "new/config.json").exists()
    room.main(*flags).check_done()
    assert load_trained(room.path / "new")


# Full disks


@fault(
    injected="disks of 60 to 400 kB, which end in one of the checkpoints; then room",
    holds="one line, no half checkpoint, the same command ends in the same bits",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "                _discard(new)\n",
            "                pass\n",
        )
    ],
    n=4,
)
def test_the_disk_is_full_at_a_checkpoint(room):
    with room.small_disk(60_000) as disk:
        for size in (60_000, 120_000, 250_000, 400_000):
            resize(disk, size)
            ended = room.train("disk/run")
            ended.check_refused("No space left on device", "make room")
            check_no_leftovers(disk / "run")
        resize(disk, 4_000_000)
        room.train("disk/run").check_done()
        assert read_run(disk / "run") == run_undisturbed()


def resize(disk, size):
    command = ["mount", "-o", f"remount,size={size}", str(disk)]
    subprocess.run(command, check=True)


LONG = {"epochs": 100, "checkpoint_every_epochs": 40}


@fault(
    injected="a limit of 64 kB a file, which metrics.jsonl reaches",
    holds="one line with file and limit; without it the run ends in the same bits",
    without=[
        (
            "cnn/runtime/metrics_log.py",
            "            raise UserError(\n"
            '                f"{self._file.name} cannot be written',
            '            raise UserError(\n                f"cannot be written',
        ),
    ],
)
def test_the_quota_is_used_up_at_a_line_of_metrics(room):
    flags = ["--workdir=run", "--compilation_cache=off", *make_flags(TINY | LONG)]
    ended = room.main(*flags, limits={"RLIMIT_FSIZE": 64_000})
    ended.check_refused("metrics.jsonl", "File too large", "ulimit -f")
    room.train("run", **LONG).check_done()
    assert read_run(room.path / "run") == run_undisturbed(**LONG)


@fault(
    injected="a full disk while an evaluation and its table are written",
    holds="one line, the earlier files whole; with room they are written",
    without=[
        (
            "cnn/checkpoints/atomic.py",
            "    temporary = name_new(path)\n",
            "    temporary = path\n",
        )
    ],
)
def test_the_disk_is_full_in_evaluate(room):
    room.train("run", **SHORT).check_done()
    flags = ["--mode=evaluate", "--workdir=disk/run", "--per_image"]
    with room.small_disk(2_000_000) as disk:
        shutil.copytree(room.path / "run", disk / "run")
        room.main(*flags).check_done()
        (disk / "run/evaluation.csv").write_text("a shorter one\n")
        before = hash_tree(disk / "run")
        with filled(disk, 0):
            room.main(*flags).check_refused("evaluation", "No space left", "make room")
        assert hash_tree(disk / "run") == before
        room.main(*flags).check_done()
        assert hash_tree(disk / "run").keys() == before.keys()


# By format the bytes that are left, which end in the middle of it.
FORMATS = {"torch": 8192, "orbax": 8192, "msgpack": 0}


@fault(
    injected="a full disk in export, for three formats",
    holds="one line, nothing is left behind; with room the same command exports",
    without=[
        (
            "cnn/checkpoints/atomic.py",
            "                    temporary.unlink()\n",
            "                    pass\n",
        )
    ],
    n=3,
)
def test_the_disk_is_full_in_export(room):
    room.train("run", **SHORT).check_done()
    with room.small_disk(2_000_000) as disk:
        shutil.copytree(room.path / "run", disk / "run")
        for name, left in FORMATS.items():
            flags = ["--mode=export", "--workdir=disk/run", f"--export_format={name}"]
            before = hash_tree(disk / "run")
            with filled(disk, left):
                room.main(*flags).check_refused("No space left", "make room")
            check_no_leftovers(disk / "run")
            before.pop("model.json", None)  # it says what is to come
            assert before.items() <= hash_tree(disk / "run").items()
            room.main(*flags).check_done()


@fault(
    injected="a disk for --track=tensorboard that is full",
    holds="a note in one line; the run ends in the same bits",
    without=[
        (
            "cnn/runtime/tracking.py",
            "        except Exception as error:\n            self._tracker = None\n",
            "        except EOFError as error:\n            self._tracker = None\n",
        )
    ],
)
def test_the_disk_is_full_for_tensorboard(room):
    pytest.importorskip("tensorboardX")
    with room.small_disk(8192) as disk:
        (disk / "filler").write_bytes(bytes(4096))
        (room.path / "run").mkdir()
        subprocess.run(["mount", "--bind", disk, make(room, "run/tensorboard")])
        try:
            ended = room.train("run", track="tensorboard").check_done()
        finally:
            subprocess.run(["umount", "-l", room.path / "run/tensorboard"])
    assert "note: --track=tensorboard of run is written no further" in ended.err, ended
    assert "No space left on device" in ended.err, ended
    assert all(x.startswith("note: ") for x in ended.err.splitlines()), ended
    assert read_run(room.path / "run") == run_undisturbed()


def make(room, name):
    path = room.path / name
    path.mkdir(parents=True)
    return path


# Forbidden and strange places


@fault(
    injected="a file in the place of checkpoints/",
    holds="refused at once: nothing is compiled or written",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "                tempfile.TemporaryFile(dir=directory).close()\n",
            "",
        ),
        (
            "cnn/checkpoints/checkpoint.py",
            "                os.listdir(directory)  # else it seems to be empty\n",
            "                pass\n",
        ),
    ],
    slow=False,
)
def test_checkpoints_is_a_file(room):
    make(room, "run")
    (room.path / "run/checkpoints").write_text("mine")
    ended = room.train("run", **SHORT)
    ended.check_refused("run/checkpoints", "Not a directory", "move the file away")
    assert {*hash_tree(room.path / "run")} == {".lock", "checkpoints"}


UNREADABLE = "setpriv --bounding-set=-dac_override,-dac_read_search"


@fault(
    injected="checkpoints/ that this user may neither list, read nor write",
    holds="refused at once, its metrics whole; allowed again, it resumes",
    without=[
        (
            "cnn/checkpoints/checkpoint.py",
            "                os.listdir(directory)  # else it seems to be empty\n",
            "",
        )
    ],
    n=3,
)
def test_checkpoints_is_forbidden(room):
    room.train("run", **SHORT).check_done()
    (room.path / "run/result.json").unlink()
    before = hash_tree(room.path / "run")
    for mode in (0o300, 0o500, 0o000):
        (room.path / "run/checkpoints").chmod(mode)
        ended = start_without_rights(room, "--workdir=run", *make_flags(TINY | SHORT))
        (room.path / "run/checkpoints").chmod(0o700)
        ended.check_refused("checkpoints", "Permission denied", "let this user")
        found = hash_tree(room.path / "run")
        assert {n for n in found if found[n] != before.get(n)} <= {".lock"}
    room.train("run", **SHORT).check_done()
    assert read_run(room.path / "run") == run_undisturbed(**SHORT)


def start_without_rights(room, *flags):
    """Run main.py as the owner of its files whom permissions bind, root or not."""
    code = (
        "import os, sys\n"
        f"command = {UNREADABLE.split()!r} if os.getuid() == 0 else []\n"
        "command += [sys.executable, sys.argv[1], *sys.argv[2:]]\n"
        "os.execvp(command[0], command)\n"
    )
    return room.python(code, room.root / "main.py", "--compilation_cache=off", *flags)


@fault(
    injected="a directory in the place of metrics.jsonl, and of result.json",
    holds="refused at once: nothing is compiled or written",
    without=[
        (
            "cnn/checkpoints/workdir.py",
            "        if place.is_dir() or (is_appended",
            "        if False and (is_appended",
        )
    ],
    n=2,
)
def test_a_directory_is_in_the_place_of_a_file(room):
    for name in ("metrics.jsonl", "result.json"):
        make(room, f"{name}.run/{name}")
        ended = room.train(f"{name}.run", **SHORT)
        ended.check_refused(name, "Is a directory", "move that directory away")
        assert {*hash_tree(room.path / f"{name}.run")} == {".lock", name}


@fault(
    injected="a --workdir of 300 characters, and one of 5000 in parts of 200",
    holds="one line with the remedy, and nothing is left",
    without=[
        (
            "cnn/errors.py",
            '    errno.ENAMETOOLONG: "choose a shorter name",\n',
            "",
        )
    ],
    n=2,
    slow=False,
)
def test_a_name_that_is_too_long(room):
    for name in ("x" * 300, "/".join(["y" * 200] * 25)):
        ended = room.train(name, **SHORT)
        ended.check_refused("File name too long", "choose a shorter name")
        assert not hash_tree(room.path)


# Killed


def write_source(room):
    """Write weights to convert; returns the flags."""
    room.train("run", **SHORT).check_done()
    room.main("--mode=export", "--workdir=run").check_done()
    make(room, "source")
    shutil.copy(room.path / "run/model.safetensors", room.path / "source")
    names = ("model", "widths", "downsampling", "head")
    return [
        "--mode=convert",
        f"--source={room.path}/source/model.safetensors",
        "--workdir=new",
        "--image_size=8",
        "--channels=1",
        "--scaling=unit",
        *make_flags({name: TINY[name] for name in names}),
    ]


@fault(
    injected="SIGKILL at each operation on files of convert",
    holds="a whole run or none that is in the way of the same command; nothing is left",
    without=[
        (
            "cnn/weights/convert.py",
            "    workdir.write_config(directory, config.to_flat())\n    try:\n",
            "    try:\n",
        ),
        (
            "cnn/weights/convert.py",
            "        writer.wait()\n",
            "        writer.wait()\n"
            "        workdir.write_config(directory, config.to_flat())\n",
        ),
    ],
    n=28,
)
def test_convert_is_killed(room):
    found, codes = kill_everywhere(room, write_source(room), room.path / "source")
    assert set(codes) <= {0, 2}, codes
    check_same(found, ["new/config.json"])
    assert len({hash_weights(x / "new") for x in found}) == 1
    assert not any(manifest.find_damage(x / "new/checkpoints/0") for x in found)


@fault(
    injected="SIGKILL at each operation on files of export, for torch",
    holds="the same command exports the same bits; nothing is left",
    without=[
        (
            "cnn/weights/export.py",
            "    with card.announce(directory, description, names):\n",
            "    if names:\n",
        )
    ],
    n=25,
)
def test_export_is_killed(room):
    room.train("run", **SHORT).check_done()
    flags = ["--mode=export", f"--workdir={room.path}/run"]
    make(room, "source")
    shutil.move(room.path / "run", room.path / "source/run")
    flags = ["--mode=export", "--workdir=run"]
    found, codes = kill_everywhere(room, flags, room.path / "source")
    assert set(codes) == {0}, codes
    check_same(found, [f"run/{x}" for x in ("model.safetensors", "model.json")])


@fault(
    injected="SIGKILL at every third operation on files of export, for orbax",
    holds="the same command exports; nothing is left",
    without=[
        (
            "cnn/checkpoints/workdir.py",
            "            clear(home)  # of what one that was killed has left\n",
            "",
        )
    ],
    n=16,
)
def test_export_of_a_directory_is_killed(room):
    room.train("source/run", **SHORT).check_done()
    flags = ["--mode=export", "--workdir=run", "--export_format=orbax"]
    found, codes = kill_everywhere(room, flags, room.path / "source", 3)
    assert set(codes) == {0}, codes
    check_same(found, ["run/model.json"])


@fault(
    injected="SIGKILL at each operation on files of evaluate",
    holds="the same command writes the same bits; nothing is left",
    without=[
        (
            "cnn/checkpoints/atomic.py",
            '    return path.with_name(f".{path.name}.new")\n',
            '    return path.with_name(f".{path.name}.{os.getpid()}")\n',
        )
    ],
    n=8,
)
def test_evaluate_is_killed(room):
    room.train("source/run", **SHORT).check_done()
    flags = ["--mode=evaluate", "--workdir=run", "--per_image"]
    found, codes = kill_everywhere(room, flags, room.path / "source")
    assert set(codes) == {0}, codes
    check_same(found, ["run/evaluation.csv"])


@fault(
    injected="SIGKILL at every fourth operation on files of average",
    holds="a whole run or none; the same command makes it, nothing is left",
    without=[
        (
            "cnn/average.py",
            "workdir.make_directory(output) as new",
            "contextlib.nullcontext(output) as new",
        )
    ],
    n=14,
)
def test_average_is_killed(room):
    for seed in (0, 1):
        room.train(f"source/{seed}", seed=seed, **SHORT).check_done()
    flags = ["--mode=average", "--workdir=0,1", "--output=new"]
    found, codes = kill_everywhere(room, flags, room.path / "source", 4)
    assert set(codes) <= {0, 2}, codes
    check_same(found, ["new/average.json"])
    assert len({hash_weights(x / "new") for x in found}) == 1


@fault(
    injected="a link to a file of the user under the name of a temporary file",
    holds="the user's file is unchanged",
    without=[
        (
            "cnn/checkpoints/atomic.py",
            "        if temporary.is_symlink():  # it would be written through\n"
            "            temporary.unlink()\n",
            "",
        ),
        (
            "cnn/checkpoints/atomic.py",
            'flags |= getattr(os, "O_NOFOLLOW", 0) | ',
            "flags |= ",
        ),
    ],
    n=2,
)
def test_a_link_under_the_name_of_a_temporary_file(room):
    room.train("run", **SHORT).check_done()
    mine = room.path / "mine.txt"
    mine.write_text("mine")
    (room.path / "run/.evaluation.json.new").symlink_to(mine)
    room.main("--mode=evaluate", "--workdir=run").check_done()
    assert mine.read_text() == "mine"
    (room.path / "run/.evaluation.json.new").hardlink_to(mine)
    room.main("--mode=evaluate", "--workdir=run").check_done()
    assert mine.read_text() == "mine"
    check_no_leftovers(room.path / "run")
