"""With --bad_images=skip every mode says how many files it left out, and which."""

import numpy as np
import pytest
from fixtures_runs import run_main
from PIL import Image

from cnn.data.files import format_bad
from cnn.data.images import BadFile
from cnn.data.names import count

SMALL = ("--model=mlp", "--mlp_widths=8", "--epochs=1", "--batch_size=4")
SMALL += ("--config=digits", "--ema_decay=0", "--train_examples=0")


@pytest.fixture
def folder(tmp_path):
    """Return class folders with one bad file to train on and one to test on."""
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(4):
                pixels = random.integers(0, 256, (4, 4), np.uint8)
                path = tmp_path / "data" / part / name / f"{i}.png"
                Image.fromarray(pixels).save(path)
    (tmp_path / "data/train/ant/bad.png").write_bytes(b"")
    (tmp_path / "data/test/bee/worse.png").write_text("no image")
    return tmp_path / "data"


EMPTY, TEXT = "train/ant/bad.png", "test/bee/worse.png"
WHY = {EMPTY: "the file is empty", TEXT: "the content is no image but text"}


def check(directory, folder, printed, names=(EMPTY, TEXT)):
    """Check what a command printed and wrote of the files that it left out."""
    assert f"left out {count(len(names), 'image')} that cannot be read" in printed
    lines = (directory / "bad_images.txt").read_text().splitlines()
    assert lines[0].startswith(f"# {len(names)} files of folder:{folder} were left out")
    assert sorted(lines[1:]) == sorted(
        f"{folder}/{name}\t{WHY[name]}" for name in names
    )
    for name in names:
        assert f"{folder}/{name}: {WHY[name]}" in " ".join(printed.split())


@pytest.fixture
def call(folder, capsys):
    """Return a function from flags to what the program printed."""

    def run(*flags, bad_images="skip", code=0):
        data = (f"--dataset=folder:{folder}", f"--bad_images={bad_images}")
        assert run_main(*data, *flags) == code
        printed = capsys.readouterr()
        return printed.err if code else printed.out

    return run


def test_training_evaluation_and_pictures(folder, call, tmp_path):
    run = tmp_path / "run"
    printed = call(*SMALL, f"--workdir={run}", bad_images="error", code=2)
    assert f"{folder}/{EMPTY}: the file is empty" in printed
    assert "--bad_images=skip" in printed and not (run / "bad_images.txt").exists()
    check(run, folder, call(*SMALL, f"--workdir={run}"))
    (run / "bad_images.txt").unlink()
    evaluate = ("--mode=evaluate", f"--workdir={run}")
    check(run, folder, call(*evaluate), (TEXT,))
    check(run, folder, call(*evaluate, "--split=train"), (EMPTY,))
    pictures = ("--mode=visualize", f"--workdir={run}", "--pictures=mistakes")
    output = tmp_path / "pictures"
    check(output, folder, call(*pictures, f"--output={output}"))


def test_a_sweep(folder, call, tmp_path):
    flags = ("--mode=sweep", "--sweep=learning_rate=0.1,0.2", "--executor=loop")
    printed = call(*SMALL, *flags, f"--workdir={tmp_path}/run")
    check(tmp_path / "run" / "sweep", folder, printed)


def test_a_description(folder, call, tmp_path):
    printed = call(*SMALL, "--mode=describe", f"--workdir={tmp_path}/run")
    check(tmp_path / "run", folder, printed)


def test_each_file_has_one_line_whatever_its_name():
    names = ("a\nb\t\\.png", "caf\udce9.png", "犬.png")
    bad = [BadFile(name, f"/x/{name}", "train", "the file\nis empty") for name in names]
    assert format_bad("folder:/x", bad).splitlines() == [
        "# 3 files of folder:/x were left out: path, tab, reason",
        "/x/a\\nb\\t\\\\.png\tthe file\\nis empty",
        "/x/caf\\xe9.png\tthe file\\nis empty",
        "/x/犬.png\tthe file\\nis empty",
    ]
