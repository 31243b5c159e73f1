"""Fine-tuning starts from what another Flax codebase has saved."""

import re

import numpy as np
import pytest
from fixtures_flax import Listener
from fixtures_transfer import SMALL, read_arrays, train_source, tune
from flax.traverse_util import unflatten_dict

from cnn.errors import UserError
from cnn.training import setup as run_module

HEAD = "params/head/kernel"


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    """Return the weights of a trained run on digits 0-4 by path."""
    directory = tmp_path_factory.mktemp("source") / "run"
    train_source(directory)
    return read_arrays(directory)


def save(path, arrays, rename=("", "")):
    """Save a TrainState with weights under other names as an orbax directory."""
    import orbax.checkpoint as ocp

    names = {name: re.sub(*rename, name) for name in arrays}
    state = unflatten_dict({names[n]: x for n, x in arrays.items()}, sep="/")
    state["opt_state"] = {"0": {"trace": state["params"]}}
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(path.absolute(), state)
    return path


STAY = {"epochs": 1, "learning_rate": 0.0, "classes": SMALL["classes"]}
STAY |= {"freeze_statistics": True, "scaling": "symmetric"}


def test_weights_are_those_of_the_source(arrays, tmp_path):
    source, terminal = save(tmp_path / "d", arrays), Listener()
    tune(tmp_path / "tuned", source, terminal, **STAY)
    found = read_arrays(tmp_path / "tuned")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    assert "source    takes params" in terminal.text
    assert "mean 0.5, std 0.5; as given" in terminal.text


def test_other_names_are_explained_by_rules(arrays, tmp_path, monkeypatch):
    rename = r"(stage\d_)(conv|norm)", r"\g<1>layer_\g<2>"
    source = save(tmp_path / "d", arrays, rename)
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "make_create", pytest.fail)
        with pytest.raises(UserError) as caught:
            tune(tmp_path / "tuned", source, **STAY)
    assert "--init_rename='stage1_layer_conv/kernel->stage1_conv" in str(caught.value)
    options = STAY | {"init_rename": (r"(stage\d_)layer_(conv|norm)->\1\2",)}
    tune(tmp_path / "tuned", source, **options)
    np.testing.assert_array_equal(read_arrays(tmp_path / "tuned")[HEAD], arrays[HEAD])


def test_the_head_is_drawn_for_other_classes(arrays, tmp_path):
    """Its size is read under the name that a rule gives it."""
    source = save(tmp_path / "d", arrays, ("/head/", "/Dense_0/"))
    options = STAY | {"init_rename": ("Dense_0->head",)}
    tune(tmp_path / "same", source, **options)
    np.testing.assert_array_equal(read_arrays(tmp_path / "same")[HEAD], arrays[HEAD])
    options["classes"] = (0, 1, 2)
    tune(tmp_path / "other", source, **options)
    found = read_arrays(tmp_path / "other")
    assert found[HEAD].shape[1] == 3
    stem = "params/stage1_conv/kernel"
    np.testing.assert_array_equal(found[stem], arrays[stem])


def test_the_optimizers_state_is_not_taken(arrays, tmp_path):
    with pytest.raises(UserError, match="give a run's directory"):
        source = save(tmp_path / "d", arrays)
        tune(tmp_path / "tuned", source, **STAY, keep_optimizer=True)
