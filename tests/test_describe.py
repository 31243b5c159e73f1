import json
import re
import shutil

import pytest
from fixtures_runs import TINY, make_setup, run_main

from cnn import config as config_module
from cnn import describe, models, train
from cnn.data import decode, statistics
from cnn.errors import UserError
from cnn.models import summary
from cnn.models.options import ModelOptions
from cnn.runtime import devices
from cnn.runtime.terminal import Terminal


def describe_model(shape=(9, 8, 2), **changes):
    model = models.create_model(ModelOptions(**changes), 5)
    return summary.describe_model(model, shape)


def test_convolutions_are_counted_at_every_place_of_their_output():
    found = describe_model(widths=(4, 6), kernel_size=3, batch_norm=False)
    rows = {row["path"]: row for row in found["layers"]}
    assert list(rows) == ["stage1_conv", "stage2_conv", "head"]
    first, second, head = rows.values()
    assert first["output_shape"] == [9, 8, 4] and first["type"] == "Conv"
    assert first["macs"] == 9 * 8 * (3 * 3 * 2 * 4)
    assert first["parameters"] == 3 * 3 * 2 * 4 + 4
    assert second["output_shape"] == [4, 4, 6]
    assert second["macs"] == 4 * 4 * (3 * 3 * 4 * 6)
    assert head["macs"] == 6 * 5 and head["parameters"] == 6 * 5 + 5


def test_totals_are_the_rows_sums():
    found = describe_model(widths=(4, 6), dense_widths=(7,))
    for total, name in (("num_parameters", "parameters"), ("macs", "macs")):
        assert found[total] == sum(row[name] for row in found["layers"])
    assert found["num_batch_stats"] == 2 * (4 + 6)
    assert found["parameter_bytes"] == 4 * found["num_parameters"]
    assert (found["input_shape"], found["output_shape"]) == ([9, 8, 2], [5])
    norm = next(row for row in found["layers"] if row["path"] == "stage1_norm")
    assert (norm["parameters"], norm["macs"]) == (8, 0)


def test_kernels_right_in_the_model_are_counted_where_they_are_laid():
    found = describe_model((8, 9, 2), model="sliding_regression")
    assert found["macs"] == (8 * 9) * (8 * 9 * 2) * 5
    found = describe_model((9, 7, 2), model="locally_connected", local_widths=(3,))
    assert found["macs"] == (4 * 3) * (3 * 3 * 2 * 3) + (4 * 3 * 3) * 5


def test_dense_layers():
    found = describe_model((4, 4, 1), model="mlp", mlp_widths=(3,))
    assert [row["macs"] for row in found["layers"]] == [16 * 3, 3 * 5]


def test_nothing_is_computed(monkeypatch):
    """A model that would take terabytes is described at once."""
    found = describe_model((8, 8, 2), widths=(10**6, 10**6))
    assert found["num_parameters"] > 9 * 10**12


def test_table_has_a_row_for_each_layer_and_one_for_all():
    found = describe_model(widths=(4, 6))
    table = summary.make_table(found)
    assert table.row_count == len(found["layers"]) + 1
    last = [list(column.cells)[-1] for column in table.columns]
    assert last[0] == "all" and last[3] == f"{found['num_parameters']:,}"


def test_long_tables_have_a_row_for_each_block():
    row = {"type": "Conv", "output_shape": [1], "parameters": 2, "macs": 3}
    layers = [row | {"path": f"block{i // 5}/conv{i}"} for i in range(50)]
    layers = [x | {"output_shape": [i // 5]} for i, x in enumerate(layers)]
    found = {"layers": layers, "num_parameters": 100, "macs": 150}
    table = summary.make_table(found)
    names, _, _, parameters, macs = (list(column.cells) for column in table.columns)
    assert names == [*(f"block{i}" for i in range(10)), "all"], "none is like another"
    assert set(parameters[:-1]) == {"10"} and set(macs[:-1]) == {"15"}


def test_describe_writes_what_it_returns(tmp_path, capsys):
    flat = {"model": "mlp", "mlp_widths": (3,), "image_size": 4, "channels": 3}
    config = config_module.make_config(flat | {"num_classes": 12})
    directory = tmp_path / "new"
    found = describe.describe(config, directory, Terminal())
    assert json.loads((directory / "describe.json").read_text()) == found
    assert found["model"] == "mlp" and found["output_shape"] == [12]
    assert found["num_parameters"] == 48 * 3 + 3 + 3 * 12 + 12
    told = capsys.readouterr().out
    assert f"{found['num_parameters']:,} parameters" in told
    sizes = found["memory"]
    assert sizes["parameters"] == sizes["optimizer_state"] == found["parameter_bytes"]
    assert sizes["total"] == sum(list(sizes.values())[:-2]) <= sizes["device"]
    assert f"{sizes['total'] / 2**20:,.1f} MiB" in told


def describe_memory(tmp_path, **changes):
    flat = {
        "model": "simple_cnn",
        "widths": (4, 6),
        "image_size": 16,
        "num_classes": 12,
    }
    config = config_module.make_config(flat | {"momentum": 0.0} | changes)
    return describe.describe(config, tmp_path, Terminal())["memory"]


def test_memory_follows_the_options(tmp_path):
    plain = describe_memory(tmp_path, measure_memory=True)
    assert plain["optimizer_state"] == plain["averaged_weights"] == 0
    adam = describe_memory(tmp_path, optimizer="adam", ema_decay=0.9)
    assert adam["optimizer_state"] == 2 * adam["parameters"] + 4
    averaged = adam["parameters"] + adam["batch_stats"]
    assert adam["averaged_weights"] == averaged and "temporary" not in adam
    fewer = describe_memory(tmp_path, batch_size=64, measure_memory=True)
    assert fewer["temporary"] < 0.7 * plain["temporary"]


def test_too_large_a_batch_names_what_fits(tmp_path, monkeypatch, capsys):
    options = {"batch_size": 64, "measure_memory": True}
    largest = describe_memory(tmp_path, **options)["total"]
    capsys.readouterr()
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: largest // 2)
    describe_memory(tmp_path, **options)
    assert "MiB" in capsys.readouterr().out
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: 2**20)
    describe_memory(tmp_path, **options)
    printed = capsys.readouterr().out
    assert re.search(r"--batch_size=\d+ would fit; or keep|no batch fits", printed)


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(UserError, match="a --batch_size that 8 divides"):
        describe_memory(tmp_path, batch_size=20, accumulate_steps=4)
    with pytest.raises(UserError, match="--mesh=data:4 asks for 4 devices"):
        describe_memory(tmp_path, mesh="data:4")


SMALL = {"model": "mlp", "mlp_widths": (16,), "train_examples": 64, "batch_size": 16}
# What training refuses before it compiles; the folder given is not there.
MISTAKES = [
    {"batch_size": 65},
    {"accumulate_steps": 3},
    {"mesh": "data:4"},
    {"early_stop_epochs": 2, "validation_fraction": 0.0},
    {"train_examples": 10**6},
    {"train_examples": 64, "validation_fraction": 1e-9},
    {"classes": (10,)},
    {"num_classes": 3},
    {"mean": (0.5, 0.5)},
    {"std": (0.5, 0.5), "mean": (0.5,)},
    {"storage_size": 9},
    {"dataset": "digits:8"},
    {"dataset": "folder:nowhere"},
    {"dataset": "csv:nowhere.csv"},
    {"dataset": "npz:nowhere.npz"},
    {"dataset": "tfds:nowhere"},
    {"dataset": "tfds:cifar10/a/b"},
    {"model": "resnet51"},
    {"model": "vgg11"},
    {"model": "simple_cnn", "image_size": 2},
    {"remat": "blocks"},
    {"optimizer": "muon_sgd"},
    {"optimizer": "adam", "decoupled_rates": True},
    {"decoupled_rates": True, "clip_norm": 1.0},
    {"clip_norm": 1.0, "clip_value": 0.1},
    {"clip_adaptive": 0.1, "train_only": ("head",), "cache_features": "never"},
    {"log_noise_scale": True},
    {"ema_decay": 0.9, "lookahead_decay": 0.9},
    {"crop_padding": 8, "crop_mode": "reflect"},
    {"init_from": "nowhere"},
    {"init_from": "nowhere.pth"},
    {"whitening_images": 9},
    {"freeze": ("nothing",)},
    {"freeze": ("(",)},
    {"freeze_through": "stage9"},
    {"train_only": ("nothing",)},
    {"freeze": ("dense1", "head")},
    {"unfreeze": ("head:1",)},
    {"freeze": ("head",), "unfreeze": ("head:99",)},
    {"freeze_statistics": True},
    {"learning_rate_for": ("nothing=2",)},
    {"train_until": ("nothing=2",)},
    {"cache_features": "always"},
    {"profile": "trace", "profile_steps": "1:999999"},
]


@pytest.mark.parametrize("changes", MISTAKES, ids=str)
def test_what_training_refuses_is_refused(changes, tmp_path, monkeypatch):
    """With the same words, before anything is compiled or written."""
    monkeypatch.chdir(tmp_path)
    preset = config_module.load_preset("digits")
    config = config_module.make_config(preset, SMALL, changes)
    with pytest.raises(UserError) as described:
        describe.describe(config, tmp_path / "run", Terminal())
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError) as refused:
        train.train(config, tmp_path / "run", Terminal())
    assert str(described.value) == str(refused.value)


@pytest.mark.parametrize("name", ["file", "file/run"])
def test_a_directory_that_cannot_be_made_is_refused(name, tmp_path):
    (tmp_path / "file").write_text("in the way")
    config, words = config_module.make_config(SMALL), []
    for mode in (describe.describe, train.train):
        with pytest.raises(UserError) as refused:
            mode(config, tmp_path / name, Terminal())
        words.append(str(refused.value))
    assert words[0] == words[1] and "cannot be written" in words[0]


def describe_run(directory, *layers):
    config = config_module.make_config(*layers)
    return describe.describe(config, directory, Terminal())


def test_the_run_of_the_same_command_is_described(tmp_path):
    preset = config_module.load_preset("digits")
    changes = {"shuffle_pixels": True, "image_size": 9, "train_only": ("head",)}
    found = describe_run(tmp_path / "described", preset, SMALL, changes)
    assert [path.name for path in tmp_path.rglob("*.json")] == ["describe.json"]
    assert len(list(tmp_path.rglob("*"))) == 2
    setup = make_setup(SMALL | changes)
    assert found | setup.description == found
    sizes = {split: len(images) for split, images in setup.loaders.items()}
    assert (found["examples"], found["dataset"]) == (sizes, "digits")
    assert found["total_steps"] == setup.total_steps
    everything = describe_run(tmp_path, preset, SMALL, {"image_size": 9})
    trained, whole = (x["memory"]["optimizer_state"] for x in (found, everything))
    assert trained == 4 * (16 * 10 + 10) < whole == everything["parameter_bytes"]


@pytest.mark.parametrize("model", ["vgg16", "resnet18"])
def test_a_model_on_other_images_says_what_it_was_published_for(
    model, tmp_path, capsys
):
    flags = {"image_size": 224, "channels": 3, "num_classes": 1000}
    preset = config_module.load_preset("digits") | {"model": model}
    found = describe_run(tmp_path, preset, {"image_size": 40})
    written = [f"--{name}={value}" for name, value in flags.items()]
    assert " ".join(written) in capsys.readouterr().out
    assert found["input_shape"] == [40, 40, 1] and found["num_classes"] == 10
    found = describe_run(tmp_path, preset, flags)
    assert "published" not in capsys.readouterr().out
    assert (found["input_shape"], found["output_shape"]) == ([224, 224, 3], [1000])
    assert (
        found["num_parameters"] == {"vgg16": 138_357_544, "resnet18": 11_689_512}[model]
    )


PRESETS = sorted(path.stem for path in config_module.PRESETS.glob("*.py"))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_described_without_its_images(preset, tmp_path, capsys):
    options = config_module.load_preset(preset)
    changes = {"data_dir": str(tmp_path / "none")}
    if "init_from" in options:
        changes["init_from"] = ""
    if options["dataset"].startswith("folder:"):
        with pytest.raises(UserError, match="there is no such directory"):
            describe_run(tmp_path, options, changes)
        changes["dataset"] = "tfds:cifar10"  # what a user would give
    found = describe_run(tmp_path, options, changes)
    printed = capsys.readouterr().out
    is_here = options["dataset"] == "digits" or preset == "finetune_digits"
    assert ("were not looked at" in printed) != is_here
    size = options.get("image_size", 8 if is_here else 32)
    assert found["input_shape"] == [size, size, 1 if is_here else 3]
    assert found["total_steps"] > 0


def test_slices_of_a_published_dataset_are_counted(tmp_path):
    tfds = {"dataset": "tfds:mnist", "data_dir": str(tmp_path / "none")}
    slices = {"train_split": "train[:90%]", "validation_split": "train[54000:]"}
    found = describe_run(tmp_path, tfds, slices, {"model": "mlp"})
    examples = {"train": 54_000, "validation": 6_000, "test": 10_000}
    assert found["examples"] == examples and found["input_shape"] == [28, 28, 1]
    with pytest.raises(UserError, match="--test_split=tset: .* it has train, test"):
        describe_run(tmp_path, tfds, {"test_split": "tset"})
    with pytest.raises(UserError, match="differ in size; set --image_size"):
        describe_run(tmp_path, tfds, {"dataset": "tfds:food101"})


def test_no_pixel_is_looked_at(tmp_path, monkeypatch):
    def fail(*arguments):
        raise AssertionError("an image was brought to a size, or summed up")

    monkeypatch.setattr(decode, "fit_arrays", lambda images, layout: images)
    monkeypatch.setattr(decode, "_fit", fail)
    monkeypatch.setattr(statistics, "compute_mean_std", fail)
    found = describe_run(tmp_path, SMALL, {"image_size": 1000, "channels": 3})
    assert found["input_shape"] == [1000, 1000, 3]


def test_a_run_that_is_there_is_described_and_left_alone(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    preset = config_module.load_preset("digits")
    found = describe_run(run, preset, TINY)
    with pytest.raises(UserError, match="holds another run, one with --epochs=3"):
        describe_run(run, preset, TINY, {"epochs": 4})
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert after.pop(run / "describe.json")
    assert after == before
    assert found["total_steps"] == 3 * (100 // 20)


@pytest.mark.parametrize("model, smallest", [("alexnet", 63), ("vgg11", 32)])
def test_the_smallest_image_is_named(model, smallest):
    module = models.create_model(ModelOptions(model=model), 10)
    with pytest.raises(UserError, match=f"smallest image .* {smallest}x{smallest}:"):
        summary.describe_model(module, (smallest - 1, 300, 3))
    summary.describe_model(module, (smallest, smallest, 3))


def test_checkpoints_that_cannot_be_written_are_found(tmp_path, capsys):
    (tmp_path / "checkpoints").touch()
    for mode in ("train", "describe"):
        assert run_main(f"--mode={mode}", f"--workdir={tmp_path}") == 2
        assert f"{tmp_path}/checkpoints cannot be written" in capsys.readouterr().err


def test_the_list_has_every_model_with_what_was_published(tmp_path, capsys):
    assert run_main("--mode=describe", "--model=list") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line[:2] == "  "}
    assert [*rows] == models.list_names()
    assert rows["resnet50"] == ["25,557,032", "4.09", "224", "1", "80.9"]
    assert rows["resnet20"] == ["269,722", "0.0406", "32", "1", "—"]
    assert rows["simple_cnn"][0] == "94,186"  # of no entry
    titles = [line for line in lines if line[:2] != "  "]
    assert len(titles) == len(models.FAMILIES) + 1
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mode=train"], "list is no model: --mode=describe prints"),
        (["--mode=describe", "--epochs=3"], "--epochs would have no effect"),
        (["--mode=describe", "--config=digits"], "--config=digits would have no"),
    ],
)
def test_the_list_is_no_model_and_reads_nothing(flags, message, capsys):
    assert run_main("--model=list", *flags) == 2
    assert message in capsys.readouterr().err
