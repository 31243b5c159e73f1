"""The speedrun's network and its SGD, beside PyTorch; the identity at the start."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn import models
from cnn.config import make_config
from cnn.models import airbench
from cnn.models.variables import create_variables, flatten_paths
from cnn.ops import convolution
from cnn.optim import freezing, layer_rates
from cnn.optim.optimizer import Rule
from cnn.training import steps
from cnn.training.state import make_state
from cnn.transfer import merge

FOLDER = Path(__file__).parent.parent / "golden"
GOLDEN = json.loads((FOLDER / "airbench.json").read_text())
FLAT = {
    "model": "airbench94",
    "airbench_width": 2,
    "bn_variance": "unbiased",
    "decoupled_rates": True,
    "learning_rate": 11.5,
    "learning_rate_for": (r".*norm\d/bias=64",),
    "momentum": 0.85,
    "weight_decay": 0.0153,
    "label_smoothing": 0.2,
    "schedule": "constant",
}


@pytest.fixture(scope="module")
def maker():
    """Return make_airbench.py, whose draws need no PyTorch."""
    fake = types.ModuleType("torch")
    fake.nn = types.SimpleNamespace(Module=object)
    spec = importlib.util.spec_from_file_location(
        "make_airbench", FOLDER / "make_airbench.py"
    )
    module, before = importlib.util.module_from_spec(spec), sys.modules.get("torch")
    sys.modules["torch"] = fake
    spec.loader.exec_module(module)
    del sys.modules["torch"]
    if before is not None:
        sys.modules["torch"] = before
    return module


def make_variables(maker, model):
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (16, 16, 3)))
    arrays = {}
    for path, shape in flatten_paths(shapes).items():
        collection, _, inside = path.partition("/")
        if collection == "batch_stats":
            fill = 1 if inside.endswith("var") else 0
            arrays[path] = np.full(shape.shape, fill, np.float32)
            continue
        name = inside.replace("/", ".").replace("kernel", "weight")
        there = shape.shape[-1:] + shape.shape[-2:-1] + shape.shape[:-2]
        drawn = maker.draw(name, there)
        turned = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[drawn.ndim]
        arrays[path] = drawn.transpose(turned)
    return jax.tree.map(jnp.asarray, merge.nest(arrays))


def test_network_and_steps_equal_pytorch(maker):
    config = make_config(FLAT)
    model = models.create_model(config.model, 10)
    variables, numbers = make_variables(maker, model), config.make_numbers()
    params = list(flatten_paths(variables["params"]))
    trained = frozenset(params) - {"stem/kernel"}
    norms = [p.rpartition("/")[0] for p in flatten_paths(variables["batch_stats"])]
    rates = layer_rates.make_rates(
        [r".*norm\d/bias"], ["stem", "stage1", "stage2", "stage3", "head"], params
    )
    static, phase = config.make_static(), freezing.Phase(0, trained, frozenset(norms))
    structure = steps.Structure(
        model=model,
        num_classes=10,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        rule=Rule(static.optimizer, static.schedule, phase, rates),
    )
    images = maker.draw_pixels()
    ids = np.arange(len(images), dtype=np.int32)
    batch = {"images": images, "labels": ids % 10, "ids": ids}
    logits = jax.jit(steps.predict_step, static_argnums=0)(structure, variables, images)
    np.testing.assert_allclose(logits, GOLDEN["logits"], rtol=1e-4, atol=1e-5)
    state = make_state(structure.rule, numbers, variables)
    step, losses = jax.jit(steps.train_step, static_argnums=0), []
    for _ in GOLDEN["losses"]:
        state, _, step_metrics = step(structure, state, batch, numbers)
        losses.append(float(step_metrics["loss"]))
    np.testing.assert_allclose(losses, GOLDEN["losses"], rtol=1e-4)
    after = flatten_paths(state.params)
    for path, norm in GOLDEN["norms"].items():
        assert np.linalg.norm(after[path]) == pytest.approx(norm, rel=1e-4), path
    np.testing.assert_array_equal(
        after["stem/kernel"], variables["params"]["stem"]["kernel"]
    )


@pytest.mark.parametrize("inputs, outputs", [(3, 5), (4, 4), (5, 3)])
def test_identity_keeps_the_first_channels(inputs, outputs):
    shape = (3, 3, inputs, outputs)
    kernel = airbench.identity_first(jax.random.key(0), shape, jnp.float32)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, inputs)).astype(np.float32)
    y, same = convolution.conv2d(x, kernel, padding=1), min(inputs, outputs)
    np.testing.assert_allclose(y[..., :same], x[..., :same], atol=1e-6)
    drawn = kernel[..., same:]
    assert np.all(drawn != 0) and np.all(np.abs(drawn) <= (9 * inputs) ** -0.5)


def test_counts_are_the_sources():
    """Arithmetic over the layers of airbench94.py; every scale is a constant 1."""
    convs = 24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256
    expected = 24 * (12 + 1) + 9 * convs + (2 * 64 + 4 * 256) + 10 * 256
    model = models.create_model(make_config({"model": "airbench94"}).model, 10)
    shapes = jax.eval_shape(lambda: create_variables(model, 0, (32, 32, 3)))
    sizes = {path: x.size for path, x in flatten_paths(shapes["params"]).items()}
    assert sum(sizes.values()) == expected == 1_971_640
    assert not any(path.endswith("scale") for path in sizes)
