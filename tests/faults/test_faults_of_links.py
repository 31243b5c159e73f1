"""Faults of what is not the run's: a user's files, links, other runs."""

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from faulty import Room, fault, finish, hash_tree, read_run, run_undisturbed
from fixtures_runs import TINY, make_flags
from PIL import Image

CHECKPOINT, MANIFEST = "cnn/checkpoints/checkpoint.py", "cnn/checkpoints/manifest.py"
WORKDIR, OWN_FILES = "cnn/checkpoints/workdir.py", "cnn/runtime/own_files.py"
TRAIN, LOG = "cnn/train.py", "cnn/runtime/metrics_log.py"
NAMES = "_NAME.fullmatch(path.name) and path.name not in kept"
NO_LINK = (OWN_FILES, "    if path.is_symlink():", "    if False:")
FOLLOW = (OWN_FILES, "flags | _FLAGS", "flags")
AHEAD = (TRAIN, "lambda x: _is_saved(setup, progress, x)", "lambda x: False")
LONG = {"epochs": 40, "checkpoint_every_epochs": 10, "validation_fraction": 0.0}


@functools.cache
def _train_once(seed):
    directory = tempfile.TemporaryDirectory()
    room = Room(Path(directory.name))
    room.train("run", keep_checkpoints=9, seed=seed).check_done()
    return directory


def put_run(room, name="run", seed=0):
    """Put a run that has ended, with all checkpoints, in a room; returns where."""
    return Path(shutil.copytree(Path(_train_once(seed).name) / "run", room.path / name))


def read_undisturbed():
    return read_run(Path(_train_once(0).name) / "run")


def forget_end(run, *steps):
    """Take a run back to before its last checkpoints."""
    (run / "result.json").unlink()
    for step in steps:
        shutil.rmtree(run / "checkpoints" / str(step))


def start_long(room, directory):
    """Start a run of some seconds; returns it once it has begun to write."""
    process = room.start(f"--workdir={directory}", *make_flags(TINY | LONG))
    wait_for(process, room.path / directory / "metrics.jsonl")
    return process


def wait_for(process, path):
    for _ in range(12_000):
        if path.exists():
            return
        if process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"{path} did not come: {process.communicate()}")


def write_notes(*directories):
    for directory in directories:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "notes.txt").write_text("mine")


@fault(
    injected="the user's directories and files lie in checkpoints/, one of them under "
    "the number of a step that is not saved",
    holds="all stay as they are; the run ends with the undisturbed one's bits",
    without=[
        (
            MANIFEST,
            f"        is_old = {NAMES}\n"
            "        if is_old and not find_foreign(path) and any(path.iterdir()):",
            "        if path.is_dir() and path.name not in kept:",
        )
    ],
    slow=False,
)
def test_a_user_keeps_notes_in_checkpoints(room):
    checkpoints = room.path / "run/checkpoints"
    names = ("23_backup", "notes", "7", "3.new.bak", "9.new", "best")
    write_notes(*(checkpoints / name for name in names))
    (checkpoints / "README").write_text("mine")
    (checkpoints / "13").write_text("mine")
    before = hash_tree(checkpoints)
    room.train("run").check_done()
    assert before.items() <= hash_tree(checkpoints).items()
    assert read_run(room.path / "run") == read_undisturbed()


@fault(
    injected="copies of whole checkpoints lie in checkpoints/ under names of the "
    "user's, such as 14_backup and 014",
    holds="they stay and are not taken for checkpoints; the bits are the undisturbed "
    "run's",
    without=[(MANIFEST, f"is_old = {NAMES}", "is_old = path.name not in kept")],
)
def test_a_user_keeps_copies_of_checkpoints(room):
    checkpoints = put_run(room) / "checkpoints"
    names = ("14_backup", "014", "14.old", "backup.new", "\N{ARABIC-INDIC DIGIT NINE}")
    copies = [shutil.copytree(checkpoints / "14", checkpoints / name) for name in names]
    forget_end(room.path / "run", 15)
    before = [hash_tree(copy) for copy in copies]
    room.train("run").check_done()
    assert [hash_tree(copy) for copy in copies] == before
    assert read_run(room.path / "run") == read_undisturbed()


@fault(
    injected="the user puts notes into checkpoints that are due to be removed",
    holds="those stay whole with their notes, the others are removed",
    without=[
        (
            MANIFEST,
            "if is_old and not find_foreign(path) and any(",
            "if is_old and path.is_dir() and any(",
        )
    ],
)
def test_notes_lie_in_old_checkpoints(room):
    checkpoints = put_run(room) / "checkpoints"
    forget_end(room.path / "run", 14, 15)
    noted = [checkpoints / "4", checkpoints / "5"]
    write_notes(noted[0], noted[1] / "weights")
    before = [hash_tree(path) for path in noted]
    room.train("run", keep_checkpoints=1).check_done()
    assert [hash_tree(path) for path in noted] == before
    assert {path.name for path in checkpoints.iterdir()} == {"4", "5", "15"}
    assert read_run(room.path / "run") == read_undisturbed()


@fault(
    injected="a link in checkpoints/ leads to a checkpoint of another run",
    holds="the other run's files stay as they are, and so does the link",
    without=[
        (
            MANIFEST,
            "    if path.is_symlink() or not path.is_dir():",
            "    if not path.is_dir():",
        )
    ],
)
def test_a_link_leads_to_a_checkpoint_of_another_run(room):
    run, other = put_run(room), put_run(room, "other")
    forget_end(run, 15)
    shutil.rmtree(run / "checkpoints/5")
    (run / "checkpoints/5").symlink_to(other / "checkpoints/5")
    before = hash_tree(other)
    room.train("run", keep_checkpoints=1).check_done()
    assert (run / "checkpoints/5").is_symlink()
    assert hash_tree(other) == before
    assert read_run(run) == read_undisturbed()


@fault(
    injected="the newest checkpoint in checkpoints/ is a link to one of another run",
    holds="it is refused by name; without the link the run ends with its own bits",
    without=[(TRAIN, "there[name] != here[name]", "False")],
)
def test_the_newest_checkpoint_is_of_another_run(room):
    run, other = put_run(room), put_run(room, "other", seed=3)
    forget_end(run, 15)
    (run / "checkpoints/15").symlink_to(other / "checkpoints/15")
    before = hash_tree(other)
    ended = room.train("run")
    ended.check_refused("checkpoints/15", "another run", "--seed=3", "move it out")
    (run / "checkpoints/15").unlink()
    room.train("run").check_done()
    assert hash_tree(other) == before
    assert read_run(run) == read_undisturbed()


@fault(
    injected="a checkpoint is copied to the number of a later step",
    holds="it is refused by name before training, and stays",
    without=[("cnn/training/progress.py", "progress.step != int(path.name)", "False")],
)
def test_a_checkpoint_is_renamed_to_a_later_step(room):
    checkpoints = put_run(room) / "checkpoints"
    forget_end(room.path / "run")
    shutil.copytree(checkpoints / "6", checkpoints / "99")
    before = hash_tree(checkpoints)
    room.train("run").check_refused("checkpoints/99", "step 6", "move it away")
    assert hash_tree(checkpoints) == before


@fault(
    injected="a broken link, or the user's directory, has the name of a checkpoint "
    "to be written",
    holds="it is named before training, with the remedy, and stays; nothing is written",
    without=[AHEAD],
    n=2,
)
def test_a_step_to_be_saved_is_taken(room):
    for name in ("taken", "linked"):
        checkpoints = room.path / name / "checkpoints"
        checkpoints.mkdir(parents=True)
        if name == "taken":
            write_notes(checkpoints / "4.new")
        else:
            (checkpoints / "4").symlink_to("/nowhere")
        before = hash_tree(room.path / name)
        room.train(name).check_refused("checkpoints/4", "in the way", "move it out")
        assert hash_tree(room.path / name).keys() - {".lock"} == before.keys()
    assert (checkpoints / "4").is_symlink()


@fault(
    injected="while a run trains, a directory of the user's appears under the number "
    "of the next checkpoint",
    holds="the run ends and names it; what it wrote is whole beside it, and once it is "
    "moved the same command ends with the undisturbed run's bits",
    without=[
        (
            MANIFEST,
            "    check_free(path)\n    if path.exists():",
            "    if path.exists():",
        )
    ],
)
def test_a_step_is_taken_while_a_run_trains(room):
    process = start_long(room, "run")
    taken = room.path / "run/checkpoints/150"
    write_notes(taken)
    finish(process).check_refused("150/notes.txt", "in the way", "resumes")
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]
    taken.rename(room.path / "mine")
    ended = room.train("run", **LONG).check_done()
    assert "resumed at step 150 " in ended.out, ended
    assert read_run(room.path / "run") == run_undisturbed(**LONG)


@fault(
    injected="while a run trains, a directory of the user's appears under the name "
    "STEP.new of the next checkpoint",
    holds="the run ends and names it; it stays, and the checkpoints before are whole",
    without=[
        (CHECKPOINT, "            manifest.check_free(new)", "            pass"),
        (
            MANIFEST,
            "    if new.exists() and not find_foreign(new):",
            "    if new.exists():",
        ),
    ],
)
def test_the_name_of_an_unfinished_step_is_taken(room):
    process = start_long(room, "run")
    taken = room.path / "run/checkpoints/150.new"
    write_notes(taken)
    finish(process).check_refused("150.new/notes.txt", "in the way", "move it out")
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]
    assert (room.path / "run/checkpoints/100/manifest.json").exists()


@fault(
    injected=".lock is a link to a file of the user's, or has it for a second name",
    holds="the link is refused by name; under both names the file stays as it is",
    without=[
        NO_LINK,
        FOLLOW,
        (WORKDIR, "if os.fstat(file.fileno()).st_nlink == 1:", "if True:"),
    ],
)
def test_the_lock_is_a_link(room):
    mine = room.path / "mine.txt"
    mine.write_text("mine")
    for name in ("linked", "hard"):
        (room.path / name).mkdir()
    (room.path / "linked/.lock").symlink_to(mine)
    os.link(mine, room.path / "hard/.lock")
    room.train("hard").check_done()
    assert mine.read_text() == "mine"
    room.train("linked").check_refused(".lock", "link to", "remove the link")
    assert mine.read_text() == "mine"
    assert hash_tree(room.path / "linked").keys() == {".lock"}


@fault(
    injected="metrics.jsonl is a link to the log of another run",
    holds="it is refused by name, and the other log stays as it is",
    without=[NO_LINK, FOLLOW],
)
def test_the_log_is_a_link(room):
    run, other = put_run(room), put_run(room, "other", seed=3)
    forget_end(run, 14, 15)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(other / "metrics.jsonl")
    before = hash_tree(other)
    room.train("run").check_refused("metrics.jsonl", "link to", "remove the link")
    assert hash_tree(other) == before


@fault(
    injected="a run is resumed of which there is a copy made of hard links",
    holds="the copy stays as it is to the byte; the run ends with the undisturbed bits",
    without=[
        (LOG, '        own_files.unshare(workdir / "metrics.jsonl")\n', ""),
        (OWN_FILES, "status.st_nlink > 1 and not is_shared", "False"),
    ],
)
def test_a_backup_shares_its_files(room):
    run = put_run(room)
    forget_end(run, 14, 15)
    shutil.copytree(run, room.path / "backup", copy_function=os.link)
    before = hash_tree(room.path / "backup")
    room.train("run").check_done()
    assert hash_tree(room.path / "backup") == before
    assert read_run(run) == read_undisturbed()


@fault(
    injected=".lock, metrics.jsonl or config.json is a named pipe, which nobody "
    "writes to",
    holds="it is refused by name, and nobody waits",
    without=[
        (OWN_FILES, "    if path.exists() and not (", "    if False and not ("),
        (
            OWN_FILES,
            "        if not stat.S_ISREG(status.st_mode):",
            "        if False:",
        ),
    ],
    n=3,
)
def test_a_file_of_the_run_is_a_pipe(room):
    run = put_run(room)
    forget_end(run, 14, 15)
    for name in (".lock", "metrics.jsonl"):
        (run / name).unlink()
        os.mkfifo(run / name)
        room.train("run").check_refused(f"run/{name}", "no file", "move it away")
        (run / name).unlink()
    (room.path / "new").mkdir()
    os.mkfifo(room.path / "new/config.json")
    room.train("new", seconds=60).check_refused("new/config.json", "no file but")


@fault(
    injected="a named pipe in the place of metrics.jsonl that is drawn, of a file of "
    "XLA_FLAGS, of a study and of a sweep's table",
    holds="it is refused by name, and nobody waits",
    without=[
        (
            "cnn/runtime/own_files.py",
            "    if path.exists() and not (path.is_file() or path.is_dir()):",
            "    if False:",
        )
    ],
    n=4,
)
def test_a_file_that_is_read_is_a_pipe(room):
    run, pipe, what = put_run(room), room.path / "pipe", "no file but a device, a pipe"
    os.mkfifo(pipe)
    (run / "metrics.jsonl").unlink()
    pipe.rename(run / "metrics.jsonl")
    how = {"seconds": 60}
    ended = room.main("--mode=visualize", "--workdir=run", "--pictures=curves", **how)
    ended.check_refused("metrics.jsonl", what)
    (run / "metrics.jsonl").rename(pipe)
    flags = make_flags(TINY)
    ended = room.main("--workdir=new", *flags, env={"XLA_FLAGS": str(pipe)}, **how)
    ended.check_refused(f"XLA_FLAGS={pipe}", what)
    apart = {"dropout_rate", "ema_decay", "checkpoint_every_epochs", "log_every_steps"}
    flags = make_flags({n: x for n, x in TINY.items() if n not in apart})
    flags += ["--mode=sweep", "--sweep=momentum=0.5,0.9", "--workdir=sweep"]
    study = ["--search=optuna", "--trials=2", f"--storage={pipe}"]
    room.main(*flags, *study, **how).check_refused(f"{pipe} cannot be", what)
    table = room.path / "sweep/sweep/trials.jsonl"
    shutil.rmtree(room.path / "sweep", ignore_errors=True)
    table.parent.mkdir(parents=True)
    pipe.rename(table)
    room.main(*flags, **how).check_refused("trials.jsonl cannot be read", what)


@fault(
    injected="the partial file of predictions is a link to a file of the user's",
    holds="it is refused by name, and the file stays as it is",
    without=[NO_LINK, FOLLOW],
)
def test_the_partial_predictions_are_a_link(room):
    run, mine = put_run(room), room.path / "mine.csv"
    mine.write_text("mine")
    (run / "predictions.partial.csv").symlink_to(mine)
    Image.new("L", (8, 8)).save(room.path / "a.png")
    ended = room.main("--mode=predict", "--workdir=run", "--predict_images=a.png")
    ended.check_refused("predictions.partial.csv", "link to", "remove the link")
    assert mine.read_text() == "mine"


@fault(
    injected="tensorboard/ and pictures/ are links to a directory of the user's",
    holds="each is refused by name, and nothing is written there",
    without=[NO_LINK],
    n=2,
)
def test_a_directory_of_the_run_is_a_link(room):
    run, mine = put_run(room), room.path / "mine"
    forget_end(run, 15)
    write_notes(mine)
    for name in ("tensorboard", "pictures"):
        (run / name).symlink_to(mine)
    ended = room.train("run", track="tensorboard")
    ended.check_refused("tensorboard", "link to", "remove the link")
    ended = room.main("--mode=visualize", "--workdir=run", "--pictures=curves")
    ended.check_refused("pictures", "link to", "remove the link")
    assert hash_tree(mine).keys() == {"notes.txt"}


@fault(
    injected="a run is started whose checkpoints/ is a link to those of a run that "
    "trains",
    holds="it is refused; the other ends with the undisturbed run's bits",
    without=[(MANIFEST, "atomic.fcntl.LOCK_EX", "atomic.fcntl.LOCK_SH")],
)
def test_two_runs_share_checkpoints(room):
    process = start_long(room, "one")
    (room.path / "two").mkdir()
    (room.path / "two/checkpoints").symlink_to(room.path / "one/checkpoints")
    process.send_signal(signal.SIGSTOP)
    try:
        ended = room.train("two", **LONG)
    finally:
        process.send_signal(signal.SIGCONT)
    finish(process).check_done()
    ended.check_refused("two/checkpoints", "in use by another run", "--workdir")
    assert read_run(room.path / "one") == run_undisturbed(**LONG)


@fault(
    injected="the directory of a run is moved while it trains, and one of another run "
    "put in its place",
    holds="the run ends and says so; the other run stays as it is, and the moved one "
    "ends with the undisturbed run's bits",
    without=[
        (
            CHECKPOINT,
            "            is_there = self._place is None or",
            "            is_there = True or",
        )
    ],
)
def test_the_directory_is_moved_while_a_run_trains(room):
    other = put_run(room, "other")
    process = start_long(room, "run")
    (room.path / "run").rename(room.path / "moved")
    other.rename(room.path / "run")
    before = hash_tree(room.path / "run")
    finish(process).check_refused("no longer there", "moved", "--workdir")
    assert hash_tree(room.path / "run") == before
    room.train("moved", **LONG).check_done()
    assert read_run(room.path / "moved") == run_undisturbed(**LONG)


@fault(
    injected="the directory of a run is removed while it trains",
    holds="the run ends and says so; nothing is put in its place",
    without=[
        (
            CHECKPOINT,
            "            is_there = self._place is None or",
            "            is_there = True or",
        )
    ],
)
def test_the_directory_is_removed_while_a_run_trains(room):
    process = start_long(room, "run")
    (room.path / "run").rename(room.path / "gone")
    shutil.rmtree(room.path / "gone", ignore_errors=True)
    finish(process).check_refused("no longer there", "removed", "--workdir")
    assert not (room.path / "run").exists()


@fault(
    injected="an old checkpoint is protected from being changed (chattr +i)",
    holds="it stays, and the run goes on; the bits are the undisturbed run's",
    without=[
        (
            MANIFEST,
            "        with contextlib.suppress(OSError):  # a protected one stays",
            "        with contextlib.nullcontext():",
        )
    ],
)
def test_an_old_checkpoint_is_protected(room):
    run = put_run(room)
    forget_end(run, 14, 15)
    protected = run / "checkpoints/4"
    command = ["chattr", "-R", "+i", str(protected)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("this disk, or user, cannot protect files")
    try:
        before = hash_tree(protected)
        room.train("run", keep_checkpoints=1).check_done()
        assert hash_tree(protected) == before
        assert read_run(run) == read_undisturbed()
    finally:
        subprocess.run(["chattr", "-R", "-i", str(protected)], check=True)


@fault(
    injected="a manifest names files outside of its checkpoint, with their checksums",
    holds="that checkpoint is left out, and the run goes on from the one before",
    without=[(MANIFEST, 'Path(name).is_absolute() or ".." in Path(name).parts', "0")],
)
def test_a_manifest_names_files_outside(room):
    run = put_run(room)
    forget_end(run)
    manifest = run / "checkpoints/15/manifest.json"
    found = json.loads(manifest.read_text())
    digest = json.loads((run / "checkpoints/14/manifest.json").read_text())
    found["../14/description.json"] = digest["description.json"]
    manifest.write_text(json.dumps(found))
    ended = room.train("run").check_done()
    assert "checkpoint 15 is left out" in ended.out and "outside" in ended.out, ended
    assert read_run(run) == read_undisturbed()


@fault(
    injected="the directory given for a run holds another program's config.json, or "
    "logs without one, or a directory named result.json",
    holds="each is refused by name before training, and stays as it is",
    without=[(WORKDIR, "    check_own(directory)\n    if not", "    if not")],
    n=3,
)
def test_the_directory_is_another_programs(room):
    for name, content in (("metrics.jsonl", '{"step": 1}\n'), ("config.json", "{}")):
        (room.path / name[:2]).mkdir()
        (room.path / name[:2] / name).write_text(content)
        ended = room.train(name[:2])
        ended.check_refused(f"{name[:2]}/{name}", "no run's", "another --workdir")
        assert (room.path / name[:2] / name).read_text() == content
    (room.path / "run/result.json").mkdir(parents=True)
    room.train("run").check_refused("result.json", "Is a directory", "move that")


@fault(
    injected="weights are converted into the directory that they lie in, beside their "
    "own config.json",
    holds="it is refused by name; the directory stays as it is",
    without=[
        ("cnn/weights/convert.py", "    workdir.check_own(directory)\n", ""),
    ],
)
def test_weights_are_converted_over_their_config(room):
    run = put_run(room)
    room.main("--mode=export", "--workdir=run").check_done()
    theirs = room.path / "theirs"
    theirs.mkdir()
    shutil.copy(run / "model.safetensors", theirs)
    (theirs / "config.json").write_text('{"architectures": ["Model"]}')
    before = hash_tree(theirs)
    ended = room.main(
        "--mode=convert",
        "--workdir=theirs",
        "--source=theirs/model.safetensors",
        "--model=simple_cnn",
        "--widths=4",
        "--downsampling=max_pool",
        "--head=global_average",
        "--image_size=8",
        "--channels=1",
        "--mean=0.3",
        "--std=0.3",
    )
    ended.check_refused("theirs/config.json", "another --workdir")
    assert hash_tree(theirs) == before


@fault(
    injected="a user's file lies in model.orbax/, which is exported again",
    holds="it is refused by name; without the file the export is written again",
    without=[("cnn/weights/export.py", "    checkpoint.check_tree(path)\n", "")],
)
def test_notes_lie_in_an_export(room):
    run = put_run(room)
    export = ("--mode=export", "--workdir=run", "--export_format=orbax")
    room.main(*export).check_done()
    write_notes(run / "model.orbax")
    room.main(*export).check_refused("model.orbax/notes.txt", "move it away")
    (run / "model.orbax/notes.txt").unlink()
    room.main(*export).check_done()


@fault(
    injected="a user's file lies in the best/ of a sweep, which is written again",
    holds="it stays where it is",
    without=[
        (
            "cnn/sweep/outcome.py",
            "    remove_run(place)\n",
            "    shutil.rmtree(place, ignore_errors=True)\n",
        ),
    ],
)
def test_notes_lie_in_the_best_of_a_sweep(room):
    options = {k: x for k, x in TINY.items() if "checkpoint" not in k} | {"epochs": 1}
    sweep = ("--mode=sweep", "--workdir=all", "--sweep=learning_rate=0.1,0.2")
    flags = make_flags({k: x for k, x in options.items() if k != "log_every_steps"})
    room.main(*sweep, *flags).check_done()
    best = room.path / "all/sweep/best"
    write_notes(best)
    before = hash_tree(best)
    room.main(*sweep, *flags).check_done()
    assert hash_tree(best) == before


@fault(
    injected="among the images lie pipes, devices, broken links, links to themselves "
    "and to folders above",
    holds="with --bad_images=skip they are listed as bad; the run has the bits of one "
    "on the good files",
    without=[
        ("cnn/data/contents.py", "    if not stat.S_ISREG(kind):", "    if False:")
    ],
)
def test_images_are_pipes_and_broken_links(room):
    draw = np.random.default_rng(0)
    for name in ("good/a", "good/b"):
        (room.path / name).mkdir(parents=True)
        for i in range(20):
            pixels = draw.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(room.path / name / f"{i}.png")
    bad = Path(shutil.copytree(room.path / "good", room.path / "bad")) / "a"
    (bad / "self.png").symlink_to("self.png")
    (bad / "gone.png").symlink_to("/nowhere.png")
    (bad / "zero.png").symlink_to("/dev/zero")
    (bad / "up").symlink_to("..")
    (bad.parent / "gone").symlink_to("/nowhere")
    (bad.parent / "turn").symlink_to("turn")
    os.mkfifo(bad / "pipe.png")
    options = {"model": "mlp", "epochs": 1, "batch_size": 4, "bad_images": "skip"}
    flags = make_flags(options)
    states = []
    for name in ("bad", "good"):
        ended = room.main(
            f"--dataset=folder:{name}", f"--workdir=of_{name}", *flags, seconds=60
        )
        ended.check_done()
        result = json.loads((room.path / f"of_{name}/result.json").read_text())
        states.append((result["state_sha256"], result["steps"]))
    assert states[0] == states[1]
    listed = (room.path / "of_bad/bad_images.txt").read_text()
    assert listed.startswith("# 4 files") and "pipe.png" in listed, listed


@fault(
    injected="a pattern of images to predict matches a pipe, a broken link and a link "
    "to itself",
    holds="they are listed as bad, and the others are predicted",
    without=[
        (
            "cnn/data/named_files.py",
            "if not os.path.isdir(match)]",
            "if os.path.isfile(match)]",
        )
    ],
)
def test_images_to_predict_are_pipes_and_broken_links(room):
    put_run(room)
    Image.new("L", (8, 8)).save(room.path / "a.png")
    (room.path / "b.png").symlink_to("b.png")
    (room.path / "c.png").symlink_to("/nowhere.png")
    os.mkfifo(room.path / "d.png")
    ended = room.main(
        "--mode=predict",
        "--workdir=run",
        "--predict_images=*.png",
        "--bad_images=skip",
        seconds=60,
    ).check_done()
    assert "1 of 4 files classified" in ended.out, ended
    listed = (room.path / "run/bad_images.txt").read_text()
    assert all(f"{name}.png\t" in listed for name in "bcd"), listed
