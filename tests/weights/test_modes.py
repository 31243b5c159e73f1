"""The modes convert and export, from a file to a file."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from fixtures_runs import run_main

from cnn import config as config_module
from cnn import models, predict, train
from cnn.checkpoints import manifest
from cnn.errors import UserError
from cnn.evaluation import evaluate
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables, flatten_paths
from cnn.runtime.terminal import Terminal
from cnn.training import steps
from cnn.training.trained import load_trained
from cnn.weights import convert, exchange, export, safetensors_file

SMALL = {"model": "simple_cnn", "widths": (3, 4), "image_size": 8, "channels": 1}
DIGITS = SMALL | {"scaling": "symmetric", "batch_size": 64}


def make_weights(path, num_classes=10, counter=3):
    random = np.random.default_rng(0)
    shapes = {
        "stage1_conv.weight": (3, 1, 3, 3),
        "stage2_conv.weight": (4, 3, 3, 3),
        "head.weight": (num_classes, 4),
        "head.bias": (num_classes,),
    }
    for stage, width in ((1, 3), (2, 4)):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"stage{stage}_norm.{leaf}"] = (width,)
    arrays = {
        name: random.uniform(0.1, 1, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    for stage in (1, 2):
        arrays[f"stage{stage}_norm.num_batches_tracked"] = np.asarray(counter)
    safetensors_file.save_safetensors(path, arrays)
    return arrays


def run(mode, directory, **options):
    config = config_module.make_config(options)
    return mode(config, directory, Terminal())


@pytest.fixture
def converted(tmp_path):
    source, directory = tmp_path / "w.safetensors", tmp_path / "run"
    arrays = make_weights(source)
    run(convert.convert, directory, source=str(source), **DIGITS)
    return directory, arrays


def read_options(directory):
    return json.loads((directory / "config.json").read_text())


def test_a_converted_run_is_exported_bit_for_bit(converted):
    directory, arrays = converted
    path = run(export.export, directory, **read_options(directory))
    found = safetensors_file.load_safetensors(path)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_converted_run_is_evaluated_under_the_datasets_names(converted):
    directory, _ = converted
    result = run(evaluate.evaluate, directory, **read_options(directory))
    assert result["count"] == 360 and result["class_names"][3] == "3"
    trained = predict.load_trained(directory)
    assert trained.step == 0 and not trained.classes_are_named
    assert (trained.structure.mean, trained.structure.std) == ((0.5,), (0.5,))


def test_names_and_scaling_travel_with_the_weights(tmp_path):
    arrays = make_weights(tmp_path / "w.safetensors", num_classes=3)
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    options = SMALL | {"mean": (0.25,), "std": (0.125,), "num_classes": 3}
    options |= {"source": str(tmp_path / "w.safetensors")}
    options |= {"class_names": str(tmp_path / "names.txt")}
    run(convert.convert, tmp_path / "run", **options)
    trained = predict.load_trained(tmp_path / "run")
    assert trained.class_names == ("cat", "dog", "bird") and trained.classes_are_named
    assert (trained.structure.mean, trained.structure.std) == ((0.25,), (0.125,))
    kernel = trained.variables["params"]["head"]["kernel"]
    np.testing.assert_array_equal(kernel, arrays["head.weight"].T)


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_names_are_read_as_utf8_with_and_without_a_mark(start, tmp_path):
    make_weights(tmp_path / "w.safetensors", num_classes=3)
    content = f"{start}猫\r\nNandu\u0301\r\n\r\n-1\r\n".encode()
    (tmp_path / "names.txt").write_bytes(content)
    options = DIGITS | {"num_classes": 3, "source": str(tmp_path / "w.safetensors")}
    options |= {"class_names": str(tmp_path / "names.txt")}
    run(convert.convert, tmp_path / "run", **options)
    names = predict.load_trained(tmp_path / "run").class_names
    assert names == ("猫", "Nand\u00fa", "-1")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("é".encode("latin-1"), "is no text in UTF-8"),
        (b"a\nb", "has 2 names for 10 classes"),
        ("\n".join(["=1", *"abcdefghi"]).encode(), "'=1' begins with ="),
    ],
)
def test_names_that_are_none_are_refused(content, message, tmp_path):
    make_weights(tmp_path / "w.safetensors")
    (tmp_path / "names.txt").write_bytes(content)
    options = DIGITS | {"source": str(tmp_path / "w.safetensors")}
    options |= {"class_names": str(tmp_path / "names.txt")}
    with pytest.raises(UserError, match=message):
        run(convert.convert, tmp_path / "run", **options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ""}, "needs --source"),
        ({"source": "/absent.pth"}, "is no file"),
        ({"widths": (3, 5)}, "differently shaped: head.weight is"),
        ({"num_classes": 4}, r"head.bias is \[10\], not \[4\]"),
        ({"scaling": "standardize"}, "--mean="),
        ({"class_names": "/absent"}, "cannot be read"),
        ({"model": "resnet20"}, "missing: "),
    ],
)
def test_what_does_not_fit_writes_nothing(changes, message, tmp_path):
    make_weights(tmp_path / "w.safetensors")
    options = DIGITS | {"source": str(tmp_path / "w.safetensors")} | changes
    with pytest.raises(UserError, match=message):
        run(convert.convert, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_model_is_named_with_the_options_that_nobody_typed(tmp_path, capsys):
    """Those of the preset digits, which main.py takes without --config."""
    source, run = tmp_path / "w.safetensors", tmp_path / "run"
    make_weights(source)
    flags = ["--mode=convert", f"--source={source}", f"--workdir={run}"]
    flags += ["--model=simple_cnn", "--widths=3,4", "--image_size=8", "--channels=1"]
    flags += ["--scaling=symmetric"]
    choices = "--widths=3,4 --downsampling=avg_pool"
    assert run_main(*flags) == 2
    message = capsys.readouterr().err
    assert f"does not fit --model=simple_cnn with {choices} --head=flatten" in message
    flags.remove("--widths=3,4")  # the preset's are none of mlp's
    assert run_main(*flags, "--model=mlp") == 2
    assert "does not fit --model=mlp;" in capsys.readouterr().err
    flags.append("--widths=3,4")
    assert run_main(*flags, "--head=global_average") == 0
    assert f"converted to simple_cnn {choices} with 10" in capsys.readouterr().out


@pytest.mark.parametrize("says", ["", "average"])
def test_weights_that_no_run_has_trained_are_not_trained_on(converted, says):
    """They would be resumed as a run whose options say otherwise."""
    directory, what = converted[0], "converted weights"
    if says:
        description = {
            says: {},
            **manifest.read_description(directory / "checkpoints/0"),
        }
        what = "a mean of several runs"
        mean = directory.with_name("mean")
        mean.mkdir()
        config = config_module.make_config(description["options"])
        variables = load_trained(directory).variables
        convert.write_run(config, mean, variables, description)
        directory = mean
    with pytest.raises(UserError, match=f"holds {what}; train .* --init_from="):
        train.train(
            config_module.make_config(read_options(directory)), directory, Terminal()
        )


def test_a_run_is_not_overwritten(converted, tmp_path):
    directory, _ = converted
    with pytest.raises(UserError, match="holds a run already"):
        run(
            convert.convert, directory, source=str(tmp_path / "w.safetensors"), **DIGITS
        )


def test_the_artifact_gives_the_models_probabilities(converted):
    directory, _ = converted
    options = read_options(directory) | {"export_format": "stablehlo"}
    path = run(export.export, directory, **options)
    artifact = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(artifact.platforms) == {"cpu", "cuda", "tpu"}
    trained = predict.load_trained(directory)
    images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
    logits = steps.predict_step(trained.structure, trained.variables, images)
    np.testing.assert_allclose(artifact.call(images), jax.nn.softmax(logits), 0, 1e-5)


def test_an_artifact_of_other_weights_is_refused(converted):
    trained = predict.load_trained(converted[0])
    content = export.make_artifact(trained)
    other = jax.tree.map(lambda x: x + 1, trained.variables)
    with pytest.raises(UserError, match="gives other probabilities"):
        export.check_artifact(dataclasses.replace(trained, variables=other), content)


def test_a_trained_run_counts_its_steps(converted):
    directory, arrays = converted
    trained = dataclasses.replace(predict.load_trained(directory), step=0)
    state_dict = export.make_state_dict(directory, trained)
    assert state_dict["stage1_norm.num_batches_tracked"] == 3
    shapes = jax.eval_shape(lambda: trained.variables)
    back = exchange.import_state_dict("simple_cnn", shapes, arrays, "f")
    jax.tree.map(np.testing.assert_array_equal, back, trained.variables)


@pytest.mark.slow  # GoogLeNet is traced several times
def test_weights_without_auxiliary_classifiers_are_taken(tmp_path):
    model = models.create_model(ModelOptions(model="googlenet"), 3)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (32, 32, 3)))
    random = np.random.default_rng(0)
    given = jax.tree.map(
        lambda x: random.normal(size=x.shape).astype(np.float32), shapes
    )
    whole = exchange.export_state_dict("googlenet", given, 5)
    without = {name: x for name, x in whole.items() if not name.startswith("aux")}
    source = tmp_path / "w.safetensors"
    options = {"model": "googlenet", "image_size": 32, "source": str(source)}
    config = config_module.make_config(options)
    safetensors_file.save_safetensors(source, without)
    taken = convert.take(config)
    assert [note.split()[3] for note in taken.notes] == [
        "stage2_block1_aux,",
        "stage2_block4_aux,",
    ]
    here, there = map(flatten_paths, (taken.variables, given))
    assert here.keys() == there.keys()
    for path, array in here.items():
        assert np.array_equal(array, there[path]) == ("_aux" not in path), path
    name = "aux1.fc2.weight"
    safetensors_file.save_safetensors(source, without | {name: whole[name]})
    with pytest.raises(UserError, match="missing: aux1"):
        convert.take(config)
