"""Prediction: files to predictions.csv, and three lines of Python."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures_runs import TINY, run_main
from PIL import Image

from cnn import config as config_module
from cnn import predict
from cnn.data import load_dataset
from cnn.data.files import find_files


@pytest.fixture(scope="module")
def digits():
    """Return the test images of digits, uint8 [360, 8, 8, 1]."""
    test = load_dataset(config_module.make_config(TINY).data).test
    return test.read(np.arange(len(test)))


@pytest.fixture
def run(trained, tmp_path):
    """Return a copy of the trained run."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def photos(tmp_path, digits):
    """Write seven digits as files, one a folder deeper, and a text between them."""
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for i, image in enumerate(digits[:7]):
        folder = tmp_path / "photos" / ("deep" if i == 6 else "")
        Image.fromarray(image[..., 0]).save(folder / f"{i}.png")
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    return tmp_path / "photos"


def read_csv(run):
    with open(run / "predictions.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_three_lines_of_python(trained, digits):
    classify = predict.load_classifier(trained)
    probabilities = classify(digits)
    assert probabilities.shape == (360, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    # The running weights, not the averaged ones, would give other numbers.
    assert np.ptp(probabilities) > 0
    np.testing.assert_allclose(classify(digits[:1]), probabilities[:1], atol=1e-6)


def test_classifier_takes_images_alone(trained, digits):
    classify = predict.load_classifier(trained)
    for wrong in (digits[0], digits.astype(np.float32)):
        with pytest.raises(ValueError, match=r"uint8 \[N, H, W, C\], not"):
            classify(wrong)


def test_classifier_takes_other_sizes_with_a_global_average(trained):
    classify = predict.load_classifier(trained)
    assert classify(np.zeros((2, 12, 20, 1), np.uint8)).shape == (2, 10)


def test_a_file_of_any_name_has_one_row(run, photos):
    odd = ("a\rb.png", "two\nlines.png", "tab\t.png", 'the "red", one.png')
    for name in odd:
        shutil.copy(photos / "0.png", photos / name)
    run_main("--mode=predict", f"--workdir={run}", f"--predict_images={photos}/*.png")
    paths = [Path(row["path"]).name for row in read_csv(run)]
    assert paths == sorted([*odd, *(f"{i}.png" for i in range(6))])


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_csv_equals_the_classifier(run, photos, digits, batch_size):
    flags = [f"--workdir={run}", f"--batch_size={batch_size}"]
    code = run_main("--mode=predict", *flags, f"--predict_images={photos}/**/*.png")
    assert code == 0
    rows, expected = read_csv(run), predict.load_classifier(run)(digits[:7])
    names = [str(photos / f"{i}.png") for i in range(6)]
    assert [row["path"] for row in rows] == [*names, str(photos / "deep" / "6.png")]
    for row, probabilities in zip(rows, expected, strict=True):
        order = np.argsort(-probabilities)
        found = [row["class"], *(row[f"class{rank}"] for rank in range(2, 6))]
        given = [row["probability"], *(row[f"probability{r}"] for r in range(2, 6))]
        given = np.array(given, float)
        np.testing.assert_allclose(given, probabilities[order[:5]], atol=2e-6)
        np.testing.assert_allclose(
            given, probabilities[[int(name) for name in found]], atol=2e-6
        )


def test_other_image_size_with_a_global_average(run, photos):
    flags = [f"--workdir={run}", f"--predict_images={photos}/*.png"]
    assert run_main("--mode=predict", *flags) == 0
    rows = read_csv(run)
    assert run_main("--mode=predict", *flags, "--image_size=16") == 0
    assert len(read_csv(run)) == len(rows) == 6 and read_csv(run) != rows


def test_bad_files_are_named_or_left_out(run, photos, capsys):
    (photos / "empty.png").write_bytes(b"")
    flags = [f"--workdir={run}", f"--predict_images={photos}/*"]
    assert run_main("--mode=predict", *flags) == 2
    assert "empty.png" in capsys.readouterr().err
    assert not (run / "predictions.csv").exists()
    assert run_main("--mode=predict", *flags, "--bad_images=skip") == 0
    assert len(read_csv(run)) == 6


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--mode=predict needs --predict_images="),
        (["--predict_images=/nowhere/*.png"], "matches no file"),
        (["--predict_images=*.md", "--checkpoint=3333"], "--checkpoint=3333"),
        (["--predict_images=*.md"], "README.md"),
    ],
)
def test_mistakes_are_told(run, capsys, flags, message):
    assert run_main("--mode=predict", f"--workdir={run}", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (run / "predictions.csv").exists()


def test_what_exists_is_no_pattern(tmp_path):
    folder = tmp_path / "set [1]"
    folder.mkdir()
    for name in ("a.png", "b[2].png", "c.txt"):
        (folder / name).touch()
    found = [Path(x).name for x in find_files(str(folder / "*.png"))]
    assert found == ["a.png", "b[2].png"]
    assert find_files(str(folder / "b[2].png")) == [str(folder / "b[2].png")]
    assert find_files(str(tmp_path / "*" / "*.txt")) == [str(folder / "c.txt")]
