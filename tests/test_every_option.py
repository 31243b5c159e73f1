"""Every option acts where it says that it is read, and is refused where it is not.

Where that is follows from its declaration, see every_option.py; how it is seen stands
in effects.py. A new option is tested by being declared; one of a kind that has no
interval and no choices needs a line in `VALUES`.
"""

import dataclasses
import json

import effects
import numpy as np
import pytest
from data import test_tfds
from every_option import choose_value, complete, list_read, list_unread
from fixtures_runs import train_run
from PIL import Image

import main
from cnn import models
from cnn.config import Config, list_fields, list_modes, make_config
from cnn.data import DataOptions, load_dataset
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.visualize import visualize

NAMES = list(list_fields())
GROUPS = {
    x.name: [y.name for y in dataclasses.fields(x.type)]
    for x in dataclasses.fields(Config)
}
MODEL, AUGMENT = GROUPS["model"], GROUPS["augment"]
# What acts in the same way on any model, seen with one that is traced fast.
ON_ANY_MODEL = [*GROUPS["data"], *AUGMENT, *GROUPS["loss"], *GROUPS["averaging"]]
ON_ANY_MODEL += [
    *GROUPS["distillation"],
    *GROUPS["schedule"],
    *GROUPS["train"],
    *GROUPS["step"],
]
# What acts on the process, before a mode is called, or on what it is called with.
OF_PROCESS = ["cpu_devices", "deterministic", "compilation_cache", "distributed"]
OF_PROCESS += ["distributed_seconds", "from_trial", "extend", "stall_minutes"]
OF_PROCESS += ["canary", "name"]
# What acts while a run trains, and is seen in what that writes.
OF_RUNS = ["eval_every_epochs", "early_stop_epochs", "select_by", "keep_checkpoints"]
OF_RUNS += [n for n in GROUPS["schedule"] if n.startswith("plateau_")]
OF_RUNS += ["recompute_statistics", "log_every_steps", "track", "profile"]
OF_RUNS += ["profile_steps", "minutes", "blame_above"]
OF_SWEEPS = [n for n in NAMES if list_modes()[n] == ("sweep",)]
# No evaluation is better by half of the best metric.
PLATEAU = {"validation_fraction": 0.25, "plateau_threshold": 0.5}
# What else is chosen so that the effect of an option can be seen.
BESIDE = {
    "train_split": {"validation_fraction": 0.4},
    "validation_split": {"train_split": "test[:4]"},
    "resize_mode": {"dataset": "folder:{folder}"},  # images that are not square
    "early_stop_epochs": {
        "validation_fraction": 0.25,
        "learning_rate": 0.0,
        "epochs": 3,
    },
    "eval_every_epochs": {"validation_fraction": 0.25},
    "plateau_factor": PLATEAU | {"plateau_patience": 0, "epochs": 4},
    "plateau_patience": PLATEAU | {"epochs": 13},
    "plateau_threshold": {"validation_fraction": 0.25}
    | {"plateau_patience": 0, "epochs": 4, "dataset": "digits", "train_examples": 40}
    | {"select_by": "loss"},
    "plateau_cooldown": PLATEAU | {"plateau_patience": 0, "epochs": 4},
    "plateau_floor": PLATEAU | {"plateau_patience": 0, "epochs": 4},
    "keep_checkpoints": {"checkpoint_every_epochs": 0.5},
    "checkpoint_every_epochs": {"validation_fraction": 0.25},
    "profile_steps": {"log_every_steps": 1},
    "cpu_kernels": {"mesh": "data:1"},
    "cached_views": {"flip_probability": 0.5},
    "extend": {"epochs": 3},
    "init_skip": {"init_reset": ("head",)},
    "recompute_statistics": {"model": "simple_cnn", "widths": (2,)},
    "parametrization": {"model": "simple_cnn", "width_multiplier": 2.0},
    "mup_base_width": {"model": "simple_cnn"},
    "coordinate_widths": {"model": "simple_cnn"},
    "mean": {"std": (0.5,)},
    "std": {"mean": (0.25,)},
}
# The same files, one of which cannot be read.
BROKEN = {"{folder}": "{broken}", "{csv}": "{broken_csv}", "{photos}": "{bad_photos}"}
SCALE = ["scaling", "mean", "std"]
# What a model of one size refuses.
SIZES = {"image_size_schedule", "eval_image_size"}


def write_images(root, count, size=(12, 8)):
    """Write `count` colour images for each of two classes below a directory."""
    random = np.random.default_rng(len(str(root)))
    for name in "ab":
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")


def write_csv(path, folder):
    """List the images of a folder of classes."""
    rows = [f"{x},{x.parent.name}" for x in sorted(folder.glob("*/*.png"))]
    path.write_text("\n".join(["path,label", *rows]))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Make what options name: paths by the words in braces of `VALUES`."""
    root = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    for name in ("folder", "broken"):
        write_images(root / name, 10)
        write_images(root / f"{name}_photos", 3)
        if name == "broken":
            (root / name / "a" / "99.png").write_bytes(b"x")
            (root / f"{name}_photos" / "a" / "99.png").write_bytes(b"x")
        write_csv(root / f"{name}.csv", root / name)
    arrays = {}
    for part, count in (("train", 24), ("test", 8)):
        pixels = random.integers(0, 256, (count, 8, 8), dtype=np.uint8)
        arrays |= {f"x_{part}": pixels, f"y_{part}": np.arange(count) % 2}
    np.savez(root / "arrays.npz", **arrays)
    for number, name in enumerate(("tfds", "other_tfds")):
        pixels = np.full((6, 6, 3), number, np.uint8)
        test_tfds.prepare(root / name, "tfrecord", pixels=pixels, size=pixels.shape)
    model, path = (
        models.create_model(ModelOptions(widths=(2,)), 10),
        root / "w.safetensors",
    )
    effects.save_weights(model, "simple_cnn", (8, 8, 1), path, 0.2)
    (root / "names.txt").write_text("\n".join(f"class {k}" for k in range(10)))
    train_run(root / "run", epochs=1, widths=(4, 5), validation_fraction=0.0)
    digits = load_dataset(DataOptions()).train.names[:3]
    (root / "drop.txt").write_text("\n".join(digits))
    return {
        "{folder}": root / "folder",
        "{broken}": root / "broken",
        "{csv}": root / "folder.csv",
        "{broken_csv}": root / "broken.csv",
        "{photos}": root / "folder_photos",
        "{bad_photos}": root / "broken_photos",
        "{npz}": root / "arrays.npz",
        "{tfds}": root / "tfds",
        "{other_tfds}": root / "other_tfds",
        "{weights}": path,
        "{names}": root / "names.txt",
        "{run}": root / "run",
        "{drop}": root / "drop.txt",
    }


class Look:
    """Sees what choices do in a mode, and remembers it."""

    def __init__(self, files, factory):
        """Take the paths of files, and pytest's factory of directories."""
        self._files, self._factory, self._seen = files, factory, {}

    def __call__(self, mode, name, choices):
        """See what choices do in a mode, as far as an option may act there."""
        if name in OF_PROCESS:
            return self._find("command", choices, mode)
        if name == "allow_changed_data":
            return self._find("changed", choices)
        if name in OF_SWEEPS:
            return self._find("sweep", complete(choices, name))
        if name in OF_RUNS and mode != "average":
            return self._find("run", {"dataset": "npz:{npz}"} | choices)
        choices = complete(choices, name)
        is_linear = name in ON_ANY_MODEL or (
            name in GROUPS["optimizer"]
            and "muon" not in choices.get("optimizer", "sgd")  # which is for kernels
        )
        is_of_one_size = not SIZES & {name, *choices}
        if mode == "train" and is_linear and is_of_one_size:
            choices = {"model": "logistic_regression"} | choices
        if mode == "average":
            return self._find(mode, {"output": "{new}/mean"} | choices)
        if mode == "replay":
            choices = {"step": 1} | choices
        if mode == "predict":
            choices = {"predict_images": "{photos}/*/*.png"} | choices
        if name == "bad_images":
            choices = {n: _rename(x, BROKEN) for n, x in choices.items()}
        return self._find(mode, choices)

    def _find(self, what, choices, *more):
        key = what, repr(sorted(choices.items())), *more
        if key not in self._seen:
            self._seen[key] = self._see(what, choices, *more)
        return self._seen[key]

    def _see(self, what, choices, *more):
        directory = self._factory.mktemp("seen")
        words = {word: str(path) for word, path in self._files.items()}
        words["{new}"] = str(directory)
        choices = {n: _rename(x, words) for n, x in choices.items()}
        if str(choices.get("dataset")).startswith("tfds:"):
            choices = {"data_dir": words["{tfds}"]} | choices
        see = {
            "train": effects.see_training,
            "command": effects.see_command,
            "run": effects.see_run,
            "sweep": effects.see_sweep,
            "changed": effects.see_changed_data,
            "evaluate": effects.see_evaluation,
            "predict": effects.see_prediction,
            "convert": effects.see_conversion,
            "export": effects.see_export,
            "average": effects.see_average,
            "inspect": effects.see_inspection,
            "describe": effects.see_description,
            "find_rate": effects.see_range_test,
            "list": effects.see_listing,
            "replay": effects.see_replay,
        }[what]
        places = [] if what in ("train", "command") else [directory]
        try:
            return see(choices, *places, *more)
        except UserError as error:
            return {"refused": str(error)}


def _rename(value, words):
    if isinstance(value, tuple):
        return tuple(_rename(part, words) for part in value)
    if isinstance(value, str):
        for word, other in words.items():
            value = value.replace(word, other)
    return value


@pytest.fixture(scope="module")
def look(files, tmp_path_factory):
    """Return what sees the effect of choices."""
    return Look(files, tmp_path_factory)


def list_seen_modes(name):
    """List the modes in which an option's effect is looked for one by one.

    A sweep makes each trial as training makes a run (tests/sweep/test_executors.py);
    describe and find_rate take the command line of a training run as it is; what
    convert writes down is read by the modes that come after; pictures have a test of
    their own, below.
    """
    modes = list_modes()[name]
    if name in OF_PROCESS:
        return modes
    again = {"sweep", "describe", "find_rate"} if "train" in modes else set()
    if name in GROUPS["data"] and name not in SCALE:
        again |= {"convert"}  # which keeps it for those that come after
    if name in MODEL and name != "model":
        again |= {"convert"}  # the model predicts by them: models/test_read_options.py
    return [mode for mode in modes if mode not in again | {"visualize"}]


@pytest.mark.parametrize("name", NAMES)
def test_it_acts_where_it_is_read(name, look):
    value = choose_value(name)
    assert value != list_fields()[name].default
    for mode in list_seen_modes(name):
        for choices in list_read(name, mode):
            if name == "select_by" and "dataset" in choices:
                continue  # only loading tells whether there is a validation set
            base = BESIDE.get(name, {}) | choices
            before = look(mode, name, base)
            after = look(mode, name, base | {name: value})
            assert before != after, (mode, base)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_refused_where_it_is_not_read(name, look):
    given = {name: choose_value(name)}
    for mode in main.MODES:
        if mode not in list_modes()[name]:
            check_refused(given, {}, mode)
            continue
        for number, choices in enumerate(list_unread(name, mode)):
            check_refused(given, choices, mode)
            if mode in list_seen_modes(name) and not (number and name in OF_RUNS):
                before, after = (look(mode, name, choices | x) for x in ({}, given))
                assert before == after or "refused" in after, (mode, choices)


def check_refused(given, choices, mode):
    """Check that an option is refused in a mode, by a message that names it."""
    config = make_config(choices, given)
    with pytest.raises(UserError, match=f"^--{next(iter(given))}=.* no effect: .* for"):
        config.check_read(given, mode)


@pytest.mark.parametrize("name", NAMES)
def test_there_are_choices_under_which_it_is_read(name):
    for mode in list_modes()[name]:
        elsewhere = name in MODEL and mode != "visualize"  # tests/models
        assert list_read(name, mode) or elsewhere, mode


PICTURES = [name for name in visualize.PICTURES if name != "lecture"]


@pytest.fixture(scope="module")
def reads(trained, tmp_path_factory):
    """Return the options that are read while pictures are drawn, by picture."""
    linear = tmp_path_factory.mktemp("linear")
    train_run(linear, model="logistic_regression", ema_decay=0.0, dropout_rate=0.0)
    tuned = tmp_path_factory.mktemp("tuned")
    train_run(tuned, init_from=str(trained), epochs=1)
    tracked = tmp_path_factory.mktemp("tracked")
    train_run(tracked, model="logistic_regression", track_examples=True, epochs=1)
    others = {"kernels": [trained, linear], "fine_tuning": [tuned]}
    others["suspects"] = [tracked]
    stored = json.loads((trained / "config.json").read_text())
    varied = [list_augmentations(False), list_augmentations(True)]
    varied.append(varied[0] | {"policy": "randaugment_increasing"})
    found, few = {}, {"picture_sample": 10, "invariance_images": 10}
    few |= {"picture_channels": 2, "picture_examples": (0,)}
    for name in PICTURES:
        choices = stored | few | {"pictures": (name,), "output": str(linear / name)}
        runs = others.get(name, [trained])
        several = varied if name == "augmentation" else [{}]
        found[name] = set().union(
            *(effects.list_reads(runs, choices | one) for one in several)
        )
    return found


def list_augmentations(is_other):
    """Choose every augmentation, or the other one of those that exclude each other."""
    names = [n for n in AUGMENT if list_fields()[n].metadata["kind"] != "static"]
    chosen = {n: choose_value(n) for n in names} | {"channels": 3}
    if not is_other:
        chosen |= {"policy": "randaugment", "random_resized_crop_min_area": 0.0}
        return chosen
    chosen |= {"policy": "augmix", "alternating_flip": True}
    return chosen | {"flip_probability": 0.0, "crop_padding": 0}


@pytest.mark.parametrize("name", [n for n in NAMES if "visualize" in list_modes()[n]])
def test_pictures_read_what_they_declare(name, reads):
    read = list_read(name, "visualize")
    declared = {one for x in read for one in x.get("pictures", ("all",))}
    if name in (*OF_PROCESS, "output", "pictures", "track"):
        assert declared == {"all"}, "whatever is drawn"
        return
    # What a data set is made of is seen above.
    seen = "dataset" if name in GROUPS["data"] and name not in SCALE else name
    wanted = {p for p in PICTURES if seen in reads[p]}
    if name in ("validation_split", "test_split"):
        # These load all, and show training images.
        wanted -= {"augmentation", "transformations", "suspects"}
    assert declared - {"all"} == wanted
    assert "all" in declared
