"""Pictures of trained runs: what is drawn, and what is said where it cannot be."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import run_main, train_run
from PIL import Image

from cnn.checkpoints import workdir
from cnn.config import make_config
from cnn.errors import UserError
from cnn.visualize import named_run
from cnn.visualize.compute import saliency
from cnn.visualize.draw import patches
from cnn.visualize.subject import Subject


def draw(directory, output, pictures, *flags):
    """Call the mode; returns its exit code."""
    config = make_config({"pictures": tuple(pictures.split(","))})
    sizes = {"picture_sample": 30, "invariance_images": 30, "picture_channels": 3}
    unread = config.find_unread(sizes, "visualize")
    sizes = [f"--{name}={n}" for name, n in sizes.items() if name not in unread]
    flags = (f"--pictures={pictures}", f"--workdir={directory}", *flags)
    return run_main("--mode=visualize", f"--output={output}", *sizes, *flags)


def list_pictures(output):
    files = (output / "pictures").iterdir()
    return sorted(path.name for path in files if path.name != "sections.json")


@pytest.fixture(scope="module")
def regression(tmp_path_factory):
    """Return a run of logistic regression."""
    directory = tmp_path_factory.mktemp("regression") / "regression"
    train_run(directory, model="logistic_regression", epochs=1, ema_decay=0.0)
    return directory


@pytest.fixture(scope="module")
def sliding(tmp_path_factory):
    """Return a run of the sliding regression."""
    directory = tmp_path_factory.mktemp("sliding") / "sliding"
    train_run(directory, model="sliding_regression", epochs=1, ema_decay=0.0)
    return directory


def test_everything_of_a_cnn_is_drawn(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DISPLAY", raising=False)
    names = "kernels,features,patches,maximisation,saliency"
    assert draw(trained, tmp_path, names, "--picture_examples=5,0") == 0
    expected = {"kernels_first.png", "kernels_over_training.png", "saliency.png"}
    expected |= {"features_stage1.png", "patches_stage1.png", "maximisation.png"}
    assert set(list_pictures(tmp_path)) == expected
    for name in expected:
        with Image.open(tmp_path / "pictures" / name) as image:
            assert min(image.size) > 100
            assert len(np.unique(np.asarray(image))) > 20, "something is drawn"
    printed = capsys.readouterr().out
    assert "shifted" not in printed, "of other models, it is no fault of this run"


def test_invariance_of_two_runs(trained, regression, tmp_path):
    assert draw(f"{trained},{regression}", tmp_path, "invariance") == 0
    found = json.loads((tmp_path / "invariance.json").read_text())
    assert list(found["runs"]) == [trained.name, "regression"]
    assert found["images"] == 30 and "hue" not in found["units"]
    for changes in found["runs"].values():
        for name, numbers in changes.items():
            assert found["units"][name]
            assert len(numbers["accuracy"]) == len(numbers["strength"]) > 3
            nothing = numbers["strength"].index(
                1 if name in ("scale", "brightness") else 0
            )
            assert numbers["agreement"][nothing] == 1.0
    assert {"invariance_accuracy.png", "invariance_accuracy.svg"} <= set(
        list_pictures(tmp_path)
    )


def test_the_shifted_image_is_drawn_for_both_regressions(regression, sliding, tmp_path):
    flags = ("--picture_examples=1",)
    both = f"{regression},{sliding}"
    assert draw(both, tmp_path, "kernels,features", *flags) == 0
    assert list_pictures(tmp_path) == [
        "kernels_shift.png",
        "regression_kernels_pixel_weights.png",
        "sliding_features_alignments.png",
        "sliding_kernels_over_training.png",
        "sliding_kernels_pixel_weights.png",
    ]


def test_grad_cam_is_of_the_last_stage_with_places(tmp_path, monkeypatch):
    train_run(tmp_path / "run", model="simple_cnn", widths=(2, 2, 2), epochs=1)
    seen, whole, list_all = [], saliency.grad_cam, Subject.get_stages

    def watch(function, images, classes, stage):
        seen.append(stage)
        return whole(function, images, classes, stage)

    def shrink_last(subject, run):
        *others, last = list_all(subject, run)
        return (*others, dataclasses.replace(last, shape=(1, 1, last.shape[-1])))

    monkeypatch.setattr(saliency, "grad_cam", watch)
    for wanted in ("stage3", "stage2"):
        flags = "saliency", "--picture_examples=1"
        assert draw(tmp_path / "run", tmp_path / wanted, *flags) == 0
        assert seen[-1] == wanted
        monkeypatch.setattr(Subject, "get_stages", shrink_last)


def test_what_a_model_lacks_is_said(regression, tmp_path, capsys):
    names = "kernels,features,patches,saliency"
    assert draw(regression, tmp_path, names, "--picture_examples=1") == 0
    printed = capsys.readouterr().out
    assert "logistic_regression shares no kernel among places, none is drawn" in printed
    assert "it has no stages" in printed
    assert "has no channels with places" in printed
    assert "Grad-CAM needs a stage of several places" in printed
    assert list_pictures(tmp_path) == [
        "kernels_pixel_weights.png",
        "kernels_shift.png",
        "saliency.png",
    ]


MISTAKES = [
    ("features", "--picture_layers=stage7", "did you mean stage1?"),
    ("kernels", "--picture_layers=stage1_con", "did you mean stage1_conv?"),
    ("saliency", "--picture_classes=seven", "--picture_classes=seven is unknown"),
    ("features", "--picture_files=/nowhere/*.png", "matches no file"),
    ("features", "--picture_examples=360", "examples 0 to 359"),
    ("features", "--channels=3", "set --image_size and --channels to what"),
]


@pytest.mark.parametrize("pictures, flag, message", MISTAKES)
def test_a_mistake_is_said_and_the_rest_is_drawn(
    trained, tmp_path, capsys, pictures, flag, message
):
    assert draw(trained, tmp_path, f"{pictures},curves", flag) == 0
    assert message in capsys.readouterr().out
    assert "curves.png" in list_pictures(tmp_path)


def test_a_run_of_other_classes_is_noted_and_the_others_are_compared(
    trained, tmp_path, capsys
):
    few = tmp_path / "few"
    train_run(few, classes=(3, 5), epochs=1, ema_decay=0.0)
    flags = ("--picture_examples=1", "--output=" + str(tmp_path / "both"))
    names = "mistakes,invariance,saliency"
    assert draw(f"{trained},{few}", tmp_path / "both", names, *flags) == 0
    printed = capsys.readouterr().out
    assert "mistakes: few knows 2 classes (3, …)" in printed
    assert "invariance: few knows 2 classes (3, …)" in printed
    found = json.loads((tmp_path / "both" / "invariance.json").read_text())
    assert list(found["runs"]) == [trained.name]
    assert "few_saliency.png" in list_pictures(tmp_path / "both")
    assert draw(few, tmp_path / "own", "mistakes,saliency", "--classes=") == 0
    assert list_pictures(tmp_path / "own") == ["saliency.png"]


def test_images_of_another_size_are_noted_and_the_others_are_drawn(
    trained, regression, tmp_path, capsys
):
    flags = ("--picture_examples=1", "--image_size=6")
    names = "kernels,features,mistakes,invariance"
    assert draw(f"{trained},{regression}", tmp_path, names, *flags) == 0
    printed = capsys.readouterr().out
    for name in ("features", "mistakes", "invariance"):
        assert f"{name}: regression: The run was trained on images of 8x8x1" in printed
    assert "set --image_size and --channels to what it was trained on" in printed
    drawn = list_pictures(tmp_path)
    assert f"{trained.name}_features_stage1.png" in drawn
    assert "regression_kernels_pixel_weights.png" in drawn, "they need no image"


CHANGES = {
    "rev": lambda x: jnp.flip(x, axis=1),
    "concatenate": lambda x: jnp.roll(x, 2, axis=2),
    "gather": lambda x: jax.image.resize(x, (len(x), 12, 12, 1), "nearest"),
    "rev ": lambda x: jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect"),
}


@dataclasses.dataclass(frozen=True)
class Changed:
    """A model that changes images first, by an operation of this name."""

    model: nn.Module
    name: str

    def apply(self, variables, images, **options):
        return self.model.apply(variables, CHANGES[self.name](images), **options)

    def init(self, *given, **options):
        return self.model.init(*given, **options)


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_of_unknown_operations_is_drawn_with_a_note(
    trained, tmp_path, monkeypatch, capsys, name
):
    plain = named_run.load_trained

    def load(directory, which):
        loaded = plain(directory, which)
        changed = Changed(loaded.structure.model, name)
        structure = dataclasses.replace(loaded.structure, model=changed)
        return dataclasses.replace(loaded, structure=structure)

    monkeypatch.setattr(named_run, "load_trained", load)
    flags = ("--picture_examples=1", "--picture_layers=stage1")
    assert draw(trained, tmp_path, "features,patches", *flags) == 0
    assert list_pictures(tmp_path) == ["features_stage1.png", "patches_stage1.png"]
    printed = capsys.readouterr().out
    for section in ("features", "patches"):
        assert (
            f"{section}: {trained.name}: receptive fields: `{name.strip()}` is not "
            "known, what comes after is taken to see the whole image" in printed
        )


def test_patches_of_few_images_belong_to_their_channels(trained, tmp_path, monkeypatch):
    """Of five images each channel has five patches, not nine."""
    seen = {}
    config = make_config(
        workdir.read_config(trained), {"picture_sample": 5, "picture_channels": 3}
    )
    subject = Subject(config, [trained])
    (run,) = subject.runs

    def save(figure, path, title, caption):
        seen["titles"] = [ax.get_title("left") for ax in figure.axes if ax.axison]

    monkeypatch.setattr(patches.picture, "save", save)
    with patches.picture.use_style():
        patches.draw_run(subject, run, tmp_path)
    values = subject.searched.find_peaks(run)["stage1"][0]
    alive = np.flatnonzero(values.max(axis=0) > 0)[:3]
    channels = [title for title in seen["titles"] if title.startswith("channel")]
    assert len(channels) == len(set(channels)) == min(3, len(alive))


def test_layers_without_places_are_refused(trained, tmp_path, capsys):
    assert draw(trained, tmp_path / "new", "patches", "--picture_layers=head") == 2
    assert "--picture_layers=head is no stage" in capsys.readouterr().err
    flag = "--picture_layers=stage1_conv"
    assert draw(trained, tmp_path / "new", "patches", flag) == 2
    assert "no stage with places is among --pict" in capsys.readouterr().err


def test_a_mistake_alone_is_an_error(trained, tmp_path, capsys):
    assert draw(trained, tmp_path / "new", "features", "--picture_layers=x") == 2
    assert "--picture_layers=x is no stage or kernel" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_files_are_looked_into(trained, tmp_path):
    for number in range(2):
        image = np.full((8, 8), 40 + 100 * number, np.uint8)
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    flag = f"--picture_files={tmp_path}/*.png"
    assert draw(trained, tmp_path / "new", "features", flag) == 0
    assert list_pictures(tmp_path / "new") == ["features_stage1.png"]


@pytest.mark.parametrize(
    "size",
    [
        {"image_size": 4, "storage_size": 7},
        {"image_size": 4, "storage_size": 7, "resize_size": 9},
        {"image_size": 6, "resize_mode": "pad"},
        {"shuffle_pixels": True},
    ],
)
def test_files_are_seen_as_those_of_the_dataset(trained, tmp_path, size):
    draws = np.random.default_rng(0)
    shape = (7, 10) if "image_size" in size else (8, 8)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        image = Image.fromarray(draws.integers(0, 256, shape, np.uint8))
        image.save(tmp_path / place / "0.png")
    files = {"picture_files": f"{tmp_path}/test/a", "dataset": f"folder:{tmp_path}"}
    stored = workdir.read_config(trained) | {"train_examples": 0}
    subject = Subject(make_config(stored | files | size), [trained])
    np.testing.assert_array_equal(subject.chosen.images, subject.read([0]))


def test_files_that_cannot_be_read_are_left_out_of_pictures(trained, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").touch()
    flags = (f"--picture_files={tmp_path}/*.png", "--bad_images=skip")
    assert draw(trained, tmp_path / "new", "features", *flags) == 0
    assert "left out 1 image that cannot be read" in capsys.readouterr().out
    listed = (tmp_path / "new" / "bad_images.txt").read_text()
    assert f"{tmp_path}/bad.png\tthe file is empty" in listed
    (tmp_path / "good.png").unlink()
    assert draw(trained, tmp_path / "none", "features", *flags) == 2
    assert "*.png: none can be read" in capsys.readouterr().err


def rename_classes(run, names):
    """Return a run that knows its classes by number, as converted weights do."""
    loaded = dataclasses.replace(
        run.trained, class_names=names, classes_are_named=False
    )
    return dataclasses.replace(run, trained=loaded)


def test_classes_without_names_take_the_datasets(trained):
    subject = Subject(make_config(workdir.read_config(trained)), [trained])
    (run,) = subject.runs
    unnamed = rename_classes(run, tuple(f"number {k}" for k in range(10)))
    assert subject.get_class_names(unnamed) == subject.dataset.class_names
    subject.check_classes(unnamed)
    fewer = rename_classes(run, ("0", "1", "2"))
    assert subject.get_class_names(fewer) == ("0", "1", "2")
    with pytest.raises(UserError, match="knows 3 classes"):
        subject.check_classes(fewer)


def test_names_with_commas_are_kept_apart(tmp_path):
    one, other = tmp_path / "a,b=1", tmp_path / "c"
    one.mkdir()
    other.mkdir()
    assert workdir.split_directories(f"{one},{other}") == [one, other]
    assert workdir.split_directories(f"{one}") == [one]
    assert [str(x) for x in workdir.split_directories("x,y")] == ["x", "y"]
