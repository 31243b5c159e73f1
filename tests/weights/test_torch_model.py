"""`model.py`: its logits in PyTorch, by ../golden/model_files.npz, are ours."""

import contextlib
import hashlib
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from cnn.errors import UserError
from cnn.training import steps
from cnn.weights.onnx.graph import Node, make_constant
from cnn.weights.torch_model import file
from cnn.weights.torch_model.lines import Writer
from tests.golden import model_files

GOLDEN = np.load(Path(__file__).parent.parent / "golden" / "model_files.npz")


@pytest.mark.parametrize("name", model_files.CASES)
def test_pytorch_computes_our_logits(name):
    """The file that PyTorch ran is the one that is written now, and agrees with us."""
    trained, state_dict = model_files.make_trained(name)
    source = file.make_source(trained, state_dict)
    digest = hashlib.sha256(source.encode()).hexdigest()
    assert digest == str(GOLDEN[f"{name}/sha256"]), "make model_files.npz again"
    predict = jax.jit(steps.predict_step, static_argnums=0)
    images = model_files.make_images(name)
    logits = np.asarray(predict(trained.structure, trained.variables, images))
    wanted = GOLDEN[name]
    assert np.abs(logits - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_what_has_no_line_is_refused():
    trained, state_dict = model_files.make_trained("logistic_regression")
    node = Node("Unheard", "head/Unheard", [make_constant(np.ones(3))], "x", {})
    with pytest.raises(UserError, match="Unheard of head/Unheard"):
        Writer(trained, state_dict).write_nodes([node], make_constant(0.0, "x"))


def test_numbers_that_the_state_dict_lacks_are_refused():
    trained, state_dict = model_files.make_trained("logistic_regression")
    for name in state_dict:
        state_dict[name] = state_dict[name] + 1
    with pytest.raises(UserError, match="no tensor like params/"):
        file.make_source(trained, state_dict)


OTHER = """
import numpy

class Found(numpy.ndarray):
    def numpy(self):
        return numpy.asarray(self)

def scale(pixels):
    return pixels

def load(path):
    return lambda pixels: numpy.ones((len(pixels), {classes})).view(Found)
"""


def test_a_file_of_other_logits_is_refused(monkeypatch, tmp_path):
    """PyTorch's part is played by NumPy."""
    torch = types.SimpleNamespace(
        inference_mode=contextlib.nullcontext, from_numpy=np.asarray
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    trained, _ = model_files.make_trained("logistic_regression")
    source = OTHER.format(classes=len(trained.class_names))
    with pytest.raises(UserError, match="model.py gives other logits"):
        file.check_source(source, trained, tmp_path / "model.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert file.check_source(source, trained, tmp_path) is None
