"""Prediction: files to predictions.csv, and three lines of Python."""

import csv
import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from fixtures_runs import TINY, run_main
from PIL import Image

from cnn import config as config_module
from cnn import predict
from cnn.checkpoints import rows, workdir
from cnn.data import load_dataset
from cnn.errors import UserError
from cnn.runtime.terminal import Terminal
from cnn.training import classify_files


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


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda x: x[0], r"one image is images\[None\]"),
        (lambda x: x / np.float32(255), r"they hold 0 to 1: give \(images \* 255\)"),
        (lambda x: x.astype(np.int64), r"give images.round\(\).astype\(np.uint8\)"),
        (lambda x: x - 128.0, "neither scaled nor normalised"),
        (lambda x: np.moveaxis(x, 3, 1), r"images.transpose\(0, 2, 3, 1\)"),
        (lambda x: x.repeat(3, 3), "3 channels, and the run takes 1"),
        (lambda x: x[:, :0], "have no pixels"),
        (lambda x: [["a"]], "decoded images"),
    ],
)
def test_classifier_says_what_it_takes(trained, digits, change, message):
    classify = predict.load_classifier(trained)
    with pytest.raises(ValueError, match=message):
        classify(change(digits[:8]))


@pytest.mark.parametrize("none", [[], np.zeros((0, 8, 8, 1), np.uint8)])
def test_no_images_give_no_rows(trained, none):
    probabilities = predict.load_classifier(trained)(none)
    assert probabilities.shape == (0, 10) and probabilities.dtype == np.float32


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


def test_good_files_among_bad_ones_are_predicted(run, photos, capsys):
    (photos / "2.png").write_bytes(b"")
    (photos / "4.png").write_text("<html>404</html>")
    flags = [f"--workdir={run}", f"--predict_images={photos}/*.png", "--batch_size=3"]
    assert run_main("--mode=predict", *flags) == 2
    error = capsys.readouterr().err
    assert "2 of 6 files cannot be read" in error and "2.png: the file is" in error
    rows = read_csv(run)
    assert [Path(row["path"]).name for row in rows] == [f"{i}.png" for i in range(6)]
    assert [bool(row["class"]) for row in rows] == [1, 1, 0, 1, 0, 1]
    assert "empty" in rows[2]["error"] and "HTML" in rows[4]["error"]
    assert not rows[0]["error"] and not (run / "bad_images.txt").exists()


def test_bad_files_are_left_out_on_request(run, photos, capsys):
    (photos / "2.png").write_bytes(b"")
    flags = [f"--workdir={run}", f"--predict_images={photos}/*.png"]
    assert run_main("--mode=predict", *flags, "--bad_images=skip") == 0
    out = capsys.readouterr().out
    assert "5 of 6 files classified" in out and "left out 1 image" in out
    assert str(photos / "2.png") in (run / "bad_images.txt").read_text()
    assert [Path(row["path"]).name[0] for row in read_csv(run)] == list("01345")


@pytest.mark.parametrize("size", [[], ["--image_size=8"]])
def test_what_is_no_file_is_never_waited_for(run, photos, size):
    os.mkfifo(photos / "pipe.png")
    os.symlink("/dev/zero", photos / "zeros.png")
    flags = [f"--workdir={run}", f"--predict_images={photos}", *size]
    assert run_main("--mode=predict", *flags) == 2
    errors = {Path(row["path"]).name: row["error"] for row in read_csv(run)}
    assert "a pipe" in errors["pipe.png"] and "a pipe" in errors["zeros.png"]
    assert not errors["0.png"] and len(errors) == 9


@pytest.mark.parametrize("flags, files", [([], 2), (["--bad_images=skip"], 0)])
def test_files_none_of_which_is_an_image(run, tmp_path, capsys, flags, files):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    flags = [f"--workdir={run}", f"--predict_images={tmp_path}/*.png", *flags]
    assert run_main("--mode=predict", *flags) == 2
    assert "2 of 2 files cannot be read" in capsys.readouterr().err
    assert len(read_csv(run) if (run / "predictions.csv").exists() else []) == files


def test_files_of_any_size_are_classified_as_they_are(run, tmp_path, digits, capsys):
    """Files of one size make a batch, in whatever order they are given."""
    folder = tmp_path / "sizes"
    folder.mkdir()
    shapes = [(8, 8), (9, 14), (8, 8), (14, 9), (9, 14)]
    images = [np.resize(digits[i, ..., 0], x) for i, x in enumerate(shapes)]
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    flags = [f"--workdir={run}", f"--predict_images={folder}", "--image_size=0"]
    assert run_main("--mode=predict", *flags) == 0
    assert "in 3 sizes" in capsys.readouterr().out
    classify, rows = predict.load_classifier(run), read_csv(run)
    assert [Path(row["path"]).name for row in rows] == [f"{i}.png" for i in range(5)]
    for image, row in zip(images, rows, strict=True):
        expected = classify(image[None, ..., None])[0]
        assert float(row["probability"]) == pytest.approx(expected.max(), abs=2e-6)
        assert int(row["class"]) == expected.argmax()


@pytest.mark.parametrize("top, most", [(1, 1), (3, 3), (99, 10)])
def test_top_says_how_many_classes_are_written(run, photos, top, most):
    flags = [f"--workdir={run}", f"--predict_images={photos}", f"--predict_top={top}"]
    assert run_main("--mode=predict", *flags) == 0
    row = read_csv(run)[0]
    assert list(row)[-2] == (f"probability{most}" if most > 1 else "probability")
    total = sum(float(row[x]) for x in row if x.startswith("probability"))
    assert total == pytest.approx(1, abs=1e-5) if most == 10 else total < 1


def test_what_was_computed_stays_when_it_is_interrupted(run, photos, monkeypatch):
    def fail_later(trained, counts):
        calls = []

        def classify(images):
            calls.append(images)
            if len(calls) == 3:
                raise UserError("out of memory")
            return np.full((len(images), 10), 0.1, np.float32)

        return classify

    monkeypatch.setattr(classify_files, "make_classifier", fail_later)
    config = config_module.make_config(
        workdir.read_config(run)
        | {"predict_images": str(photos), "predict_batch_size": 2}
    )
    with pytest.raises(UserError, match="out of memory"):
        predict.predict(config, run, Terminal())
    assert not (run / "predictions.csv").exists()
    with open(run / "predictions.partial.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 4


@pytest.mark.parametrize("given, most", [(0, 2), (5, 5)])
def test_batches_of_large_images_are_small_unless_a_size_is_given(
    run, photos, monkeypatch, given, most
):
    seen = []

    def classify(images):
        seen.append(len(images))
        return np.full((len(images), 10), 0.1, np.float32)

    def make(trained, counts):
        assert sum(counts.values()) == 7
        return classify

    monkeypatch.setattr(predict, "_MOST_PIXELS", 2 * 8 * 8)
    monkeypatch.setattr(classify_files, "make_classifier", make)
    flags = [f"--predict_images={photos}", f"--predict_batch_size={given}"]
    assert run_main("--mode=predict", f"--workdir={run}", *flags) == 0
    assert max(seen) <= most and len(seen) == -(-7 // most)


def test_a_second_process_does_not_claim_the_rows_of_the_first(run, photos, capsys):
    with rows.open_rows(run / "predictions.csv", ["path"]) as write:
        write([(0, ["a"])])
        flags = [f"--workdir={run}", f"--predict_images={photos}"]
        assert run_main("--mode=predict", *flags) == 2
        captured = capsys.readouterr()
        assert "is being written by another process" in captured.err
        assert "what was computed" not in captured.out


@pytest.mark.parametrize(
    "flags", [["--shuffle_pixels=true"], ["--resize_mode=pad", "--image_size=6"], []]
)
def test_evaluation_and_prediction_see_the_same_images(tmp_path, flags):
    draws = np.random.RandomState(0)
    for part, name, i in itertools.product(("train", "test"), "ab", range(4)):
        path = tmp_path / "set" / part / name / f"{name}{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.randint(0, 256, (4, 7), np.uint8)).save(path)
    run = f"--workdir={tmp_path / 'run'}"
    model = ["--model=mlp", "--mlp_widths=8", "--epochs=1", "--batch_size=4"]
    data = f"--dataset=folder:{tmp_path / 'set'}"
    assert run_main("--mode=train", data, run, *model, *flags) == 0
    assert run_main("--mode=evaluate", run, "--per_image=true") == 0
    files = f"--predict_images={tmp_path / 'set' / 'test'}"
    assert run_main("--mode=predict", run, files) == 0
    with open(tmp_path / "run" / "evaluation.csv", newline="") as file:
        evaluated = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    rows = read_csv(tmp_path / "run")
    assert len(rows) == len(evaluated) == 8
    for row in rows:
        expected = evaluated[Path(row["path"]).name]
        assert row["class"] == expected["prediction"]
        probability = float(expected[f"probability_{row['class']}"])
        assert float(row["probability"]) == pytest.approx(probability, abs=2e-6)


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "--mode=predict needs --predict_images="),
        (["--predict_images=/nowhere/*.png"], "matches no file"),
        (["--predict_images=*.md", "--checkpoint=3333"], "--checkpoint=3333"),
        (["--predict_images=*.md", "--checkpoint=²"], "--checkpoint=²"),
    ],
)
def test_mistakes_are_told(run, capsys, flags, message):
    assert run_main("--mode=predict", f"--workdir={run}", *flags) == 2
    assert message in capsys.readouterr().err
    assert not (run / "predictions.csv").exists()
