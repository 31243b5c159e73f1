"""Mistakes that were planted in a source, each refused by the name of its leaf."""

import re
import shutil

import jax
import numpy as np
import pytest
from fixtures_runs import train_run
from fixtures_transfer import SMALL, plant, read_arrays, train_source, tune

from cnn.checkpoints import manifest
from cnn.errors import UserError
from cnn.training import setup as run_module
from cnn.training.trained import load_trained
from cnn.weights import renaming, safetensors_file


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a trained run on digits 0-4; not to be changed."""
    directory = tmp_path_factory.mktemp("source") / "run"
    train_source(directory)
    return directory


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """Return a function that checks that fine-tuning is refused before it compiles."""

    def refuse(*args):
        raise AssertionError("something was about to be compiled")

    monkeypatch.setattr(run_module, "make_create", refuse)

    def check(origin, *words, **changes):
        with pytest.raises(UserError) as caught:
            tune(tmp_path / "tuned", origin, **changes)
        assert not (tmp_path / "tuned").exists()
        for word in words:
            assert word in str(caught.value), str(caught.value)
        return str(caught.value)

    return check


def rename(old, new):
    def change(arrays):
        for path in [path for path in arrays if f"/{old}/" in path]:
            arrays[path.replace(f"/{old}/", f"/{new}/")] = arrays.pop(path)

    return change


def replace(path, function):
    def change(arrays):
        arrays[path] = np.asarray(function(arrays[path]))

    return change


def remove(*paths):
    def change(arrays):
        for path in paths:
            del arrays[path]

    return change


def poison(value):
    def function(array):
        array.flat[-1] = value
        return array

    return function


def exchange_names(arrays):
    """Call two kernels of one shape by other names."""
    rename("stage2_conv", "middle")(arrays)
    rename("stage3_conv", "last")(arrays)


def add_leaf(arrays):
    arrays["params/stage4_conv/kernel"] = arrays["params/stage2_conv/kernel"]


def move_kernel(arrays):
    path = "params/stage2_conv/kernel"
    arrays[path.replace("params", "batch_stats")] = arrays.pop(path)


KERNEL, HEAD = "params/stage2_conv/kernel", "params/head/kernel"
MEAN, VAR = "batch_stats/stage2_norm/mean", "batch_stats/stage2_norm/var"
# What is planted, and what the message must hold: the leaf, and the flag or remedy.
PLANTED = {
    "renamed layer": (
        rename("stage2_conv", "conv2"),
        [f"{KERNEL} [3, 3, 4, 4]", "--init_rename='conv2/kernel->stage2_conv/kernel'"],
    ),
    "wrong width of one layer": (
        replace(KERNEL, lambda x: np.concatenate([x, x], -1)),
        [f"{KERNEL} is [3, 3, 4, 8], not [3, 3, 4, 4]", "--init_reset=stage2_conv"],
    ),
    "another kernel size": (
        replace(KERNEL, lambda x: np.pad(x, [(1, 1), (1, 1), (0, 0), (0, 0)])),
        [f"{KERNEL} is [5, 5, 4, 4]"],
    ),
    "float16 leaf": (
        replace(KERNEL, lambda x: x.astype(np.float16)),
        [f"{KERNEL} is float16, not float32"],
    ),
    "whole numbers": (
        replace(MEAN, lambda x: x.astype(np.int32)),
        [f"{MEAN} is int32, not float32"],
    ),
    "one norm without statistics": (
        remove(MEAN, VAR),
        [f"{MEAN} [4]", f"{VAR} [4]", "--init_reset=stage2_norm/mean"],
    ),
    "missing bias": (remove("params/stage1_norm/bias"), ["params/stage1_norm/bias"]),
    "two kernels under other names": (
        exchange_names,
        [KERNEL, "with OLD one of last/kernel, middle/kernel"],
    ),
    "one leaf too many": (
        add_leaf,
        ["params/stage4_conv/kernel", "--init_skip=stage4_conv/kernel"],
    ),
    "transposed": (
        replace("params/stage1_conv/kernel", lambda x: x.transpose(0, 1, 3, 2)),
        ["params/stage1_conv/kernel is [3, 3, 4, 1]"],
    ),
    "parameter among the statistics": (
        move_kernel,
        [KERNEL, "batch_stats/stage2_conv/kernel [3, 3, 4, 4]"],
    ),
    "NaN": (replace(KERNEL, poison(np.nan)), [f"{KERNEL} holds 1 numbers", "NaN"]),
    "infinite variance": (replace(VAR, poison(np.inf)), [f"{VAR} holds 1 numbers"]),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_mistakes_are_refused_by_name(source, refused, tmp_path, name):
    change, words = PLANTED[name]
    refused(plant(source, tmp_path / "planted", change), *words)


def test_the_whole_list_is_long_enough():
    assert len(PLANTED) >= 12


def test_what_was_planted_is_the_only_mistake(source, tmp_path):
    """The copy itself is taken, with every leaf but the head's."""
    planted = plant(source, tmp_path / "planted")
    tune(tmp_path / "tuned", planted, epochs=1, learning_rate=0.0, freeze=["stage.*"])
    there, here = read_arrays(source), read_arrays(tmp_path / "tuned")
    for path in there:
        same = np.array_equal(there[path], here[path])
        assert same == (not path.startswith("params/head/")), path


def write_file(path, arrays, change=lambda tensors: None):
    """Write arrays as PyTorch's tensors under our own names."""
    tensors = {}
    for name, array in arrays.items():
        _, _, inside = name.partition("/")
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            array = array.T
        module, _, leaf = inside.rpartition("/")
        there = {"kernel": "weight", "scale": "weight", "mean": "running_mean"}
        there["var"] = "running_var"
        tensors[f"{module}.{there.get(leaf, leaf)}"] = np.ascontiguousarray(array)
    change(tensors)
    safetensors_file.save_safetensors(path, tensors)
    return path


FILE_MISTAKES = {
    "renamed": (
        lambda t: t.update(conv2=t.pop("stage2_conv.weight")),
        [KERNEL, "it is stage2_conv.weight there", "'conv2->stage2_conv.weight'"],
    ),
    "whole numbers": (
        lambda t: t.update({"head.bias": t["head.bias"].astype(np.int32)}),
        ["params/head/bias is int32", "--init_reset=head/bias"],
    ),
    "width": (
        lambda t: t.update({"stage2_conv.weight": t["stage2_conv.weight"][:2]}),
        [f"{KERNEL} is [3, 3, 4, 2], not [3, 3, 4, 4]"],
    ),
    "statistics": (
        lambda t: t.pop("stage3_norm.running_var"),
        ["batch_stats/stage3_norm/var"],
    ),
}


@pytest.mark.parametrize("name", FILE_MISTAKES)
def test_mistakes_in_files(source, refused, tmp_path, name):
    change, words = FILE_MISTAKES[name]
    file = write_file(tmp_path / "w.safetensors", read_arrays(source), change)
    refused(file, *words, scaling="unit")


def test_a_file_of_other_classes_gets_a_new_head(source, tmp_path):
    file = write_file(tmp_path / "w.safetensors", read_arrays(source))
    options = {"classes": (5, 6, 7, 8), "scaling": "unit", "freeze": ("stage.*",)}
    result = tune(tmp_path / "tuned", file, epochs=1, **options)
    there, here = read_arrays(source), read_arrays(tmp_path / "tuned")
    assert result["frozen_leaves"] == 15 and here[HEAD].shape == (4, 4)
    for path in there:
        if "/head/" not in path:
            np.testing.assert_array_equal(there[path], here[path])


def test_truncated_sources(source, refused, tmp_path):
    file = write_file(tmp_path / "w.safetensors", read_arrays(source))
    file.write_bytes(file.read_bytes()[:-100])
    refused(file, str(file), scaling="unit")
    planted = plant(source, tmp_path / "planted")
    large = max(
        (x for x in (planted / "checkpoints/0").rglob("*") if x.is_file()),
        key=lambda x: x.stat().st_size,
    )
    large.write_bytes(large.read_bytes()[:-10])
    refused(planted, "damaged", large.name)


def test_other_architectures(source, refused, tmp_path):
    message = refused(source, "it is of --model=simple_cnn", model="mlp")
    assert "params/dense1/kernel" in message
    other = plant(source, tmp_path / "tanh", activation="tanh")
    refused(other, "--activation=tanh")
    same_leaves = plant(source, tmp_path / "model", model="vgg11")
    refused(same_leaves, "it is of --model=vgg11")
    # Another option of a model that is not in use changes nothing.
    unused = plant(source, tmp_path / "unused", mlp_widths=[7])
    refused(unused, "is no stage", freeze_through="stage7")


def test_sources_that_are_none(refused, tmp_path):
    refused(tmp_path / "nothing", "does not exist")
    refused(tmp_path / "no.pth", "does not exist")


def test_classes_in_another_order(source, refused):
    refused(
        source,
        "0, 1, 2, 3, 4 there, 1, 0, 2, 3, 4 here",
        "--init_reset=head",
        classes=(1, 0, 2, 3, 4),
    )


@pytest.mark.parametrize(
    "rules, words",
    [
        (("conv9->stage9",), "--init_rename=conv9->stage9 matches nothing"),
        (("stage1_conv",), "write old->new"),
        (("stage(->a",), "--init_rename=stage(->a"),
        (("stage1_conv->stage2_conv",), "two arrays would be named stage2_conv/kernel"),
        ((r"stage1_conv->\3",), "--init_rename"),
    ],
)
def test_renames_that_make_no_sense(source, refused, rules, words):
    refused(source, words, init_rename=rules)


def test_flags_explain(source, tmp_path):
    """Renamed, superfluous and missing leaves are taken once a flag says how."""

    def change(arrays):
        add_leaf(arrays)
        exchange_names(arrays)
        del arrays["params/stage1_norm/bias"]

    planted = plant(source, tmp_path / "planted", change)
    tune(
        tmp_path / "tuned",
        planted,
        epochs=1,
        learning_rate=0.0,
        init_rename=("last->stage3_conv", "middle->stage2_conv"),
        init_skip=("stage4_conv",),
        init_reset=("head", "stage1_norm/bias"),
    )
    there, here = read_arrays(source), read_arrays(tmp_path / "tuned")
    for layer in ("stage2_conv", "stage3_conv"):
        path = f"params/{layer}/kernel"
        np.testing.assert_array_equal(there[path], here[path])
    np.testing.assert_array_equal(here["params/stage1_norm/bias"], np.zeros(4))


def test_names_may_be_exchanged():
    arrays = {f"params/{name}/kernel": np.float32(i) for i, name in enumerate("ab")}
    found = renaming.rename(arrays, ("a->b", "b->a"))
    assert found == {"params/b/kernel": 0, "params/a/kernel": 1}


def test_the_same_classes_keep_their_head(source, tmp_path):
    options = {"epochs": 1, "learning_rate": 0.0, "classes": SMALL["classes"]}
    tune(tmp_path / "kept", source, **options)
    tune(tmp_path / "reset", source, init_reset=("head/.*",), seed=1, **options)
    heads = [read_arrays(x)[HEAD] for x in (source, tmp_path / "kept")]
    np.testing.assert_array_equal(*heads)
    assert not np.array_equal(heads[0], read_arrays(tmp_path / "reset")[HEAD])


@pytest.mark.parametrize("channels", [1, 3])
def test_another_number_of_channels(source, tmp_path, capsys, channels):
    """A grey image in the new form gives what it gave in the old one."""
    options = {"epochs": 1, "learning_rate": 0.0, "classes": SMALL["classes"]}
    directory = source
    for number in {3: (3,), 1: (3, 1)}[channels]:
        directory, origin = tmp_path / str(number), directory
        tune(directory, origin, channels=number, freeze_statistics=True, **options)
    assert re.search(
        r"params/stage1_conv/kernel is .* the channels", capsys.readouterr()[0]
    )
    there, here = read_arrays(source), read_arrays(directory)
    path = "params/stage1_conv/kernel"
    assert here[path].shape[2] == channels
    np.testing.assert_allclose(here[path].sum(2), there[path].sum(2), rtol=1e-6)


def test_what_is_taken_is_that_of_checkpoint_and_stays_so(trained, tmp_path, capsys):
    origin = shutil.copytree(trained, tmp_path / "origin")
    steps = manifest.list_steps(origin / "checkpoints")
    changes = {"init_from": str(origin), "learning_rate": 0.0, "epochs": 1}
    run, options = tmp_path / "run", {"checkpoint": str(steps[0]), "ema_decay": 0.0}
    train_run(run, **changes, **options)
    assert (
        f"source    {origin}, step {steps[0]} ({steps[0]})" in capsys.readouterr().out
    )
    there = load_trained(origin, str(steps[0])).variables["params"]
    here = load_trained(run).variables["params"]
    assert jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), here, there))
    last = load_trained(origin).variables["params"]
    assert not jax.tree.all(jax.tree.map(lambda x, y: (x == y).all(), here, last))
    shutil.rmtree(origin)  # it is read once
    train_run(run, **changes, **options)
    with pytest.raises(UserError, match=f"started from --checkpoint={steps[0]} of its"):
        train_run(run, **changes, **options | {"checkpoint": "latest"})


def test_checkpoint_without_a_run_to_choose_from_is_refused(source, refused, tmp_path):
    (step,) = manifest.list_steps(source / "checkpoints")
    one = source / "checkpoints" / str(step)
    refused(one, "--checkpoint=best chooses", "--init_from", checkpoint="best")
    file = write_file(tmp_path / "w.safetensors", read_arrays(source))
    refused(file, "--checkpoint=7 chooses", checkpoint="7")
    refused(source, "no best checkpoint", checkpoint="best")


def test_a_source_is_opened_before_images_are(refused, monkeypatch, tmp_path):
    monkeypatch.setattr(run_module, "load_images", pytest.fail)
    refused(tmp_path / "nothing", "does not exist")
