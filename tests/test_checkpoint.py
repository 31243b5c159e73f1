"""Checkpoints are whole or not there, checked when read, and kept as asked."""

import json
import re
import shutil
import threading

import jax
import numpy as np
import pytest
from fixtures_runs import AMID, read_lines, train_run

from cnn.checkpoints import atomic, checkpoint, library, manifest, workdir
from cnn.errors import UserError
from cnn.runtime import devices
from cnn.training.state import compute_state_sha256, from_items, to_items


@pytest.fixture
def copied(trained, tmp_path):
    """Return a copy of the trained run that has lost its result."""
    directory = shutil.copytree(trained, tmp_path / "run")
    (directory / "result.json").unlink()
    return directory


@pytest.fixture
def state(make_structure, make_numbers, start):
    """Return a state and sums on all devices."""
    made = start(make_structure(), make_numbers(ema_decay=0.5))
    sums = {"loss": np.float32(2), "count": np.int32(3)}
    return jax.device_put((made, sums), devices.replicated(devices.make_mesh()))


def save(writer, state, description=None, best=-1):
    writer.save(to_items(*state), int(state[0].step), description or {}, (best,))


def list_saved(directory):
    return manifest.list_steps(directory / "checkpoints")


def flip(path, position=-1):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def list_data(directory, step):
    """List the files of a checkpoint that hold numbers, or tell how to read them."""
    folder = directory / "checkpoints" / str(step)
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.stat().st_size]


def test_flipped_byte_anywhere_is_found(copied):
    step = list_saved(copied)[-1]
    folder = copied / "checkpoints" / str(step)
    assert manifest.find_damage(folder) == ""
    for path in list_data(copied, step):
        flip(path, path.stat().st_size // 2)
        found = manifest.find_damage(folder)
        assert found and (path.name in found or path.name == "manifest.json"), path
        flip(path, path.stat().st_size // 2)
    assert manifest.find_damage(folder) == ""


@pytest.mark.parametrize("name", ["description.json", "manifest.json", "weights"])
def test_damaged_newest_is_reported_and_the_one_before_used(
    copied, trained, capsys, name
):
    before, newest = list_saved(copied)[-2:]
    (path,) = [p for p in list_data(copied, newest) if _matches(p, name)][:1]
    flip(path, path.stat().st_size // 2)
    result = train_run(copied)
    printed = capsys.readouterr().out
    assert f"checkpoint {newest} is left out: The checkpoint is damaged" in printed
    assert f"resumed at step {before} " in printed
    expected = json.loads((trained / "result.json").read_text())
    assert result["state_sha256"] == expected["state_sha256"]
    assert read_lines(copied) == read_lines(trained)
    assert manifest.find_damage(copied / "checkpoints" / str(newest)) == ""


def _matches(path, name):
    return path.name == name or (name in path.parts and path.parent.name == "d")


def test_missing_file_is_damage(copied):
    newest = list_saved(copied)[-1]
    (copied / "checkpoints" / str(newest) / "description.json").unlink()
    found = manifest.find_damage(copied / "checkpoints" / str(newest))
    assert "description.json is missing" in found


def test_all_damaged_is_an_error(copied):
    for step in list_saved(copied):
        flip(copied / "checkpoints" / str(step) / "description.json")
    with pytest.raises(UserError, match="Every checkpoint in .* is damaged"):
        train_run(copied)


def test_without_manifest_it_is_no_checkpoint(copied, capsys):
    before, newest = list_saved(copied)[-2:]
    (copied / "checkpoints" / str(newest) / "manifest.json").unlink()
    assert list_saved(copied)[-1] == before
    train_run(copied)
    assert f"resumed at step {before} " in capsys.readouterr().out


def test_evaluation_of_a_damaged_checkpoint_is_refused(copied):
    path = copied / "checkpoints" / str(list_saved(copied)[-1])
    flip(path / "description.json")
    with pytest.raises(manifest.DamagedCheckpoint, match="use another --checkpoint"):
        manifest.read_description(path)
    with pytest.raises(manifest.DamagedCheckpoint):
        manifest.find_step(copied, "best")


def test_other_trees_are_refused_by_name(tmp_path, state):
    writer = checkpoint.CheckpointWriter(tmp_path, 2)
    save(writer, state)
    writer.wait()
    everywhere = devices.replicated(devices.make_mesh())
    made, sums = checkpoint.abstract(state, everywhere)
    head = made.params["head"]
    other = jax.ShapeDtypeStruct((5, 9), np.float32, sharding=everywhere)
    wrong = made.replace(params=made.params | {"head": head | {"kernel": other}})
    with pytest.raises(UserError, match=r"head/kernel is float32 \(5, 4\), not .*9\)"):
        checkpoint.load_items(tmp_path / "0", to_items(wrong, sums))
    fewer = made.replace(params={"head": head})
    with pytest.raises(UserError, match="params/dense1/bias is unexpected"):
        checkpoint.load_items(tmp_path / "0", to_items(fewer, sums))
    more = made.replace(params=made.params | {"extra": {"bias": other}})
    with pytest.raises(UserError, match=r"\(1 leaves differ\).*extra/bias is missing"):
        checkpoint.load_items(tmp_path / "0", to_items(more, sums))


def test_saved_arrays_are_those_of_the_moment(tmp_path, state):
    made, sums = state
    expected = compute_state_sha256(made)
    writer = checkpoint.CheckpointWriter(tmp_path, 2)
    save(writer, state, {"note": 1})
    overwrite = jax.jit(
        lambda tree: jax.tree.map(lambda x: x + 1, tree), donate_argnums=0
    )
    changed = overwrite(made)
    writer.wait()
    like = checkpoint.abstract((changed, sums), devices.replicated(devices.make_mesh()))
    loaded, _ = from_items(checkpoint.load_items(tmp_path / "0", to_items(*like)))
    assert compute_state_sha256(loaded) == expected != compute_state_sha256(changed)
    assert workdir.read_json(tmp_path / "0/description.json") == {"note": 1}


@pytest.mark.parametrize("keep, best, kept", [(1, 2, [2, 5]), (2, 5, [4, 5])])
def test_newest_are_kept_and_the_best_besides(tmp_path, state, keep, best, kept):
    made, sums = state
    writer = checkpoint.CheckpointWriter(tmp_path, keep)
    for step in range(1, 6):
        now = made.replace(step=made.step + step)
        save(writer, (now, sums), best=best if step >= best else -1)
    writer.wait()
    assert manifest.list_steps(tmp_path) == kept
    assert sorted(p.name for p in tmp_path.iterdir()) == [str(step) for step in kept]


def test_later_damaged_ones_never_push_out_the_one_just_written(tmp_path, state):
    made, sums = state
    writer = checkpoint.CheckpointWriter(tmp_path, 1)
    shutil.copytree(_save(writer, state, tmp_path), tmp_path / "9")
    save(writer, (made.replace(step=made.step + 4), sums))
    writer.wait()
    assert manifest.list_steps(tmp_path) == [4]


def test_only_what_a_run_wrote_is_removed(tmp_path, state):
    made, sums = state
    writer = checkpoint.CheckpointWriter(tmp_path, 1)
    shutil.copytree(_save(writer, state, tmp_path), tmp_path / "0_backup")
    shutil.copytree(tmp_path / "0", tmp_path / "2.new")  # whole, and not renamed
    (tmp_path / "3.new" / "weights").mkdir(parents=True)  # cut off
    for name in ("1", "7.new", "notes", "01"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").touch()
    (tmp_path / "5").symlink_to(tmp_path / "0_backup")
    save(writer, (made.replace(step=made.step + 4), sums))
    writer.wait()
    kept = {"0_backup", "1", "7.new", "notes", "01", "5", "4"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    assert manifest.find_damage(tmp_path / "5") == ""


@pytest.mark.parametrize("name", ["4", "4.new"])
def test_what_is_in_the_way_is_named_and_nothing_is_lost(tmp_path, state, name):
    made, sums = state
    writer = checkpoint.CheckpointWriter(tmp_path, 1)
    _save(writer, state, tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "mine.txt").touch()
    with pytest.raises(UserError, match="4.*mine.txt is in the way of a checkpoint"):
        save(writer, (made.replace(step=made.step + 4), sums))
        writer.wait()
    with pytest.raises(UserError, match="mine.txt is in the way"):
        manifest.check_places(tmp_path, lambda step: step == 4)
    manifest.check_places(tmp_path, lambda step: step == 5)
    assert (tmp_path / name / "mine.txt").exists()
    assert manifest.list_steps(tmp_path) == [0]
    shutil.move(tmp_path / name, tmp_path / "mine")
    newest, _ = manifest.find_newest(tmp_path)
    assert newest.name == ("4" if name == "4" else "0")


def test_foreign_files_in_a_checkpoint_are_found(tmp_path, state):
    path = _save(checkpoint.CheckpointWriter(tmp_path, 1), state, tmp_path)
    assert manifest.find_foreign(path) is None
    for name in ("mine.txt", "weights/mine.txt"):
        (path / name).touch()
        assert manifest.find_foreign(path) == path / name
        (path / name).unlink()
    (path / "weights" / "link").symlink_to("d")
    assert manifest.find_foreign(path) == path / "weights" / "link"
    (path / "weights" / "link").unlink()
    flip(path / "manifest.json", 3)  # so that it lists no file of that name
    assert manifest.find_foreign(path) is None
    atomic.name_new(path / "description.json").touch()  # of a process that was killed
    assert manifest.find_foreign(path) is None


def test_a_directory_that_was_moved_is_not_made_again(tmp_path, state):
    made, sums = state
    writer = checkpoint.CheckpointWriter(tmp_path / "run" / "checkpoints", 1)
    _save(writer, state, tmp_path)
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(UserError, match="no longer there: it was moved"):
        save(writer, (made.replace(step=made.step + 4), sums))
    assert not (tmp_path / "run").exists()
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="no longer there"):
        writer.check_place()


def test_checkpoints_are_held_by_one_run(tmp_path):
    (tmp_path / "link").symlink_to("checkpoints")
    with manifest.hold(tmp_path / "checkpoints"):
        with pytest.raises(UserError, match="link is in use by another run"):
            with manifest.hold(tmp_path / "link"):
                raise AssertionError("both hold it")
    assert not (tmp_path / "checkpoints").exists()  # nothing was written
    with pytest.raises(UserError, match=r"link cannot be written \(No such file"):
        with manifest.hold(tmp_path / "link"):
            raise AssertionError("it leads nowhere")


def test_a_manifest_that_names_files_outside_is_damage(tmp_path, state):
    path = _save(checkpoint.CheckpointWriter(tmp_path, 1), state, tmp_path)
    (tmp_path / "outside").touch()
    listed = workdir.read_json(path / "manifest.json")
    atomic.write_json(path / "manifest.json", listed | {"../outside": ""})
    assert "names files outside" in manifest.find_damage(path)


def test_a_checkpoint_of_another_run_is_refused(copied, tmp_path):
    train_run(tmp_path / "other", seed=3)
    newest = copied / "checkpoints" / str(list_saved(copied)[-1])
    shutil.rmtree(newest)
    newest.symlink_to(tmp_path / "other" / "checkpoints" / newest.name)
    with pytest.raises(UserError, match="is of another run, one with --seed=3; move"):
        train_run(copied)
    newest.unlink()
    before = copied / "checkpoints" / str(list_saved(copied)[-1])
    before.rename(before.with_name("99"))
    with pytest.raises(UserError, match="99 is the checkpoint of step 14; give it"):
        train_run(copied)


def _save(writer, state, directory):
    save(writer, state)
    writer.wait()
    return directory / "0"


def test_writing_a_step_again_never_leaves_none(tmp_path, state, monkeypatch):
    """The process may end between any two of the operations on the disk."""
    writer = checkpoint.CheckpointWriter(tmp_path, 1)
    _save(writer, state, tmp_path)

    def die(path, *args, **kwargs):
        raise OSError("the process ends here")

    for module, name in ((manifest.shutil, "rmtree"), (manifest.Path, "rename")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, die)
            save(writer, state, {"second": name})
            with pytest.raises(UserError, match="could not be written"):
                writer.wait()
        newest, _ = manifest.find_newest(tmp_path)
        like = checkpoint.abstract(state, state[0].step.sharding)
        assert checkpoint.load_items(newest, to_items(*like))
        assert workdir.read_json(newest / "description.json") == {"second": name}


def test_folder_that_cannot_be_made_is_one_readable_error(tmp_path, state):
    (tmp_path / "file").write_text("")
    writer = checkpoint.CheckpointWriter(tmp_path / "file" / "checkpoints", 1)
    with pytest.raises(UserError, match="could not be written .*before it are whole"):
        save(writer, state)
        writer.wait()
    # Threads that wait for the folder would keep the process from ending.
    waiting = [type(thread).__name__ for thread in threading.enumerate()]
    assert "_SignalingThread" not in waiting


@pytest.mark.parametrize("error", [OSError(28, "No space left"), ValueError("quota")])
def test_full_disk_is_one_readable_error(tmp_path, state, monkeypatch, error):
    writer = checkpoint.CheckpointWriter(tmp_path, 1)
    _save(writer, state, tmp_path)

    def fail(*args):
        raise error

    monkeypatch.setattr(checkpoint.manifest, "finish", fail)
    made, sums = state
    save(writer, (made.replace(step=made.step + 1), sums))
    with pytest.raises(UserError, match="could not be written .*(space|quota)"):
        writer.wait()
    assert manifest.list_steps(tmp_path) == [0]
    assert manifest.find_damage(tmp_path / "0") == ""


@pytest.mark.parametrize(
    "name", ["exp [v2]", "a[b]]c", "*?%20#'\"", "two\nlines", "back\\slash", "日" * 80]
)
def test_any_path_holds_checkpoints(tmp_path, state, name):
    """The library that writes them would take these for patterns."""
    directory = tmp_path / name / "checkpoints"
    writer = checkpoint.CheckpointWriter(directory, 1)
    save(writer, state, {"note": 1})
    writer.wait()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    like = checkpoint.abstract(state, state[0].step.sharding)
    loaded, _ = from_items(checkpoint.load_items(directory / "0", to_items(*like)))
    assert compute_state_sha256(loaded) == compute_state_sha256(state[0])
    averaged = checkpoint.read_variables(directory / "0", True, state[0].step.sharding)
    assert jax.tree.structure(averaged) == jax.tree.structure(state[0].ema)


def test_what_cannot_be_read_back_is_no_checkpoint(tmp_path, state, monkeypatch):
    monkeypatch.setattr(library, "_STRANGE", re.compile("$^"))
    writer = checkpoint.CheckpointWriter(tmp_path / "[1]", 1)
    save(writer, state)
    with pytest.raises(UserError, match="cannot be read back and is no checkpoint"):
        writer.wait()
    assert manifest.list_steps(tmp_path / "[1]") == []


def test_an_array_that_is_lost_is_found_when_it_is_read_back(tmp_path, state):
    items = to_items(*state)
    _save(checkpoint.CheckpointWriter(tmp_path, 1), state, tmp_path)
    for path in (tmp_path / "0" / "training").rglob("d/*"):
        path.write_bytes(b"")
    with pytest.raises(UserError, match="cannot be read back"):
        checkpoint._read_back(tmp_path / "0", jax.eval_shape(lambda: items))


def test_best_checkpoint_that_is_gone_is_named(tmp_path):
    train_run(tmp_path, model="mlp", learning_rate=0.0, epochs=1)  # step 0 stays best
    assert manifest.find_step(tmp_path, "best") == 0
    shutil.rmtree(tmp_path / "checkpoints" / "0")
    with pytest.raises(UserError, match="step 0, is gone: .*latest or one of"):
        manifest.find_step(tmp_path, "best")


def test_folder_that_cannot_be_written_is_found_before_training(tmp_path, monkeypatch):
    monkeypatch.setattr("cnn.training.setup.load_images", pytest.fail)
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match=r"checkpoints cannot be written \(Not a dir"):
        train_run(tmp_path)


def test_a_torn_config_json_is_read_from_the_newest_checkpoint(copied, trained):
    (copied / "config.json").write_text('{"model": "m')
    assert workdir.read_config(copied) == workdir.read_config(trained)
    shutil.rmtree(copied / "checkpoints")
    with pytest.raises(UserError, match="config.json is damaged"):
        workdir.read_config(copied)


@pytest.mark.parametrize("changes", [{}, {"learning_rate": 0.5}])
def test_without_config_json_the_newest_checkpoint_says_what_the_run_is(
    copied, trained, changes
):
    (copied / "config.json").unlink()
    assert workdir.read_config(copied) == workdir.read_config(trained)
    if changes:
        with pytest.raises(UserError, match="--learning_rate=0.05 .now 0.5"):
            train_run(copied, **changes)
        return
    result = train_run(copied, **AMID)
    expected = json.loads((trained / "result.json").read_text())
    assert result["state_sha256"] == expected["state_sha256"]
    assert workdir.read_config(copied) == workdir.read_config(trained)


def test_a_run_outlives_its_log(copied, trained, capsys):
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_text("".join(lines[1:-1]) + lines[-1][:20])
    result = train_run(copied)
    assert "metrics.jsonl has lost" in capsys.readouterr().out
    expected = json.loads((trained / "result.json").read_text())
    assert result["state_sha256"] == expected["state_sha256"]
    assert set(map(str, read_lines(copied))) < set(map(str, read_lines(trained)))


def test_several_processes_give_a_path_the_same_plain_name(tmp_path):
    directory = tmp_path / "exp [v2]"
    directory.mkdir()
    names = [library._give_shared_name(directory) for _ in range(2)]
    try:
        assert names[0] == names[1] and names[0].samefile(directory)
        names[0].unlink()
        names[0].symlink_to(tmp_path)
        with pytest.raises(OSError, match="is in the way"):
            library._give_shared_name(directory)
    finally:
        names[0].unlink()


def test_an_exported_tree_with_other_files_is_named(tmp_path):
    tree = {"params": {"head": {"bias": np.ones(3, np.float32)}}}
    path = tmp_path / "model.orbax"
    checkpoint.check_tree(path)
    checkpoint.save_tree(path, tree, 0o644)
    checkpoint.check_tree(path)
    (path / "notes.txt").touch()
    with pytest.raises(UserError, match="notes.txt is no part of an export"):
        checkpoint.check_tree(path)
