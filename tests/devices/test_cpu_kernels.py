"""Which library computes on CPU."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import train_run

from cnn import config as config_module
from cnn.checkpoints import workdir
from cnn.errors import UserError
from cnn.evaluation import evaluate
from cnn.models import layers, summary
from cnn.ops import convolution
from cnn.runtime import devices, xla
from cnn.runtime.terminal import Terminal
from cnn.runtime.xla import LEAST_MACS
from cnn.training import canary, epoch, kernels, trained
from cnn.training.steps import Structure

ONEDNN = "xla_cpu_experimental_onednn_custom_call"


class Sum(nn.Module):
    """A model that does nothing but hold its layers."""

    layers: layers.Layers


def choose(kernels, mesh="data:1", macs=0.0):
    """Choose for some of the suite's two devices."""
    mesh = devices.make_mesh(mesh)
    return dict(xla.choose_compiler_options(kernels, mesh, macs))


@pytest.mark.parametrize(
    "kernels, mesh, macs, expected",
    [
        ("auto", "data:1", LEAST_MACS, True),
        ("auto", "data:1", LEAST_MACS / 2, False),
        ("auto", "data:2", LEAST_MACS, False),
        ("xla", "data:1", LEAST_MACS, False),
        ("onednn", "data:1", 0, True),
    ],
)
def test_onednn_is_for_long_epochs_on_one_device(
    monkeypatch, kernels, mesh, macs, expected
):
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    assert (ONEDNN in choose(kernels, mesh, macs)) == expected


def test_a_jax_that_may_not_know_it_is_left_alone(monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", (0, 11, 2))
    assert not choose("auto", macs=LEAST_MACS)


def test_onednn_is_refused_on_several_devices():
    with pytest.raises(UserError, match=r"--cpu_kernels=onednn needs .*--mesh=data:1"):
        choose("onednn", "data:2")


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="needs jax 0.12")
def test_a_program_keeps_no_more_than_its_order_needs():
    """What is made for one sum is freed before the next: if jax changes, see why."""

    def add_up(x):
        made = [jnp.outer(x * i, x) for i in range(1, 9)]
        return sum(jnp.sum(jnp.sort(matrix, 0), 0) for matrix in made)

    program = jax.jit(add_up, compiler_options=choose("onednn"))
    compiled = program.lower(jnp.ones((256,))).compile()
    matrix = 4 * 256**2
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * matrix


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="needs jax 0.12")
def test_this_compiler_takes_the_options():
    """The convolution is oneDNN's, and equal to XLA's."""
    x, kernel = jnp.ones((8, 32, 32, 16)), jnp.ones((3, 3, 16, 16))

    def convolve(x, kernel):
        names = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=names
        )

    compiled = jax.jit(convolve, compiler_options=choose("onednn")).lower(x, kernel)
    compiled = compiled.compile()
    assert "onednn" in compiled.as_text()
    assert jnp.allclose(compiled(x, kernel), convolve(x, kernel), rtol=1e-5)


@pytest.fixture
def counted(monkeypatch):
    """Let an image of 8x8 pixels take one multiply-accumulate a pixel; note shapes."""
    shapes = []

    def describe(model, shape):
        shapes.append(shape)
        return {"macs": shape[0] * shape[1]}

    monkeypatch.setattr(summary, "describe_model", describe)
    monkeypatch.setattr(jax, "__version_info__", (0, 12, 0))
    return shapes


MANY = int(LEAST_MACS / 64)


@pytest.mark.parametrize(
    "changes, count, mesh, expected",
    [
        ({}, MANY + 1, "data:1", True),
        ({}, MANY - 1, "data:1", False),
        ({"image_size": 4}, MANY + 1, "data:1", False),
        ({"image_size": 4}, 4 * MANY + 4, "data:1", True),
        ({"cpu_kernels": "onednn"}, MANY - 1, "data:1", False),
        ({"cpu_kernels": "xla"}, MANY + 1, "data:1", False),
        ({"takes_features": True}, MANY + 1, "data:1", False),
        ({}, MANY + 1, "data:2", False),
    ],
)
def test_many_images_are_evaluated_with_onednn(counted, changes, count, mesh, expected):
    structure = Structure(None, 10, (0.5,), (0.25,), **changes)
    mesh = devices.make_mesh(mesh)
    found = kernels.choose_compiler_options(structure, mesh, (8, 8, 3), count)
    assert (ONEDNN in dict(found)) == expected
    assert {shape[2] for shape in counted} <= {3}


def test_predictions_ask_by_the_number_of_images_of_a_shape(counted, monkeypatch):
    """The canary is asked with what was chosen, before the program is compiled."""
    asked = []

    def refuse(options, mesh, chosen):
        asked.append(dict(chosen))
        raise UserError("wrong sums")

    monkeypatch.setattr(canary, "check_kernels", refuse)
    one = devices.make_mesh("data:1")
    monkeypatch.setattr(devices, "make_mesh", lambda: one)
    run = types.SimpleNamespace(structure=Structure(None, 10, (0.5,), (0.25,)))
    run.options, counts = {}, {(8, 8, 3): MANY + 1}
    for size in (8, 4):
        classify = trained.make_classifier(run, counts)
        with pytest.raises(UserError, match="wrong sums"):
            classify(np.zeros((1, size, size, 3), np.uint8))
    assert [ONEDNN in options for options in asked] == [True, False]


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="needs jax 0.12")
def test_a_run_and_mode_evaluate_compute_the_same_bits(tmp_path, monkeypatch):
    made, make = [], epoch.make_eval_chunk

    def note(structure, mesh, compiler_options):
        made.append((structure.cpu_kernels, ONEDNN in dict(compiler_options)))
        return make(structure, mesh, compiler_options)

    monkeypatch.setattr(xla, "LEAST_MACS", 1.0)
    monkeypatch.setattr(epoch, "make_eval_chunk", note)
    result = train_run(tmp_path, mesh="data:1", epochs=1)
    during = len(made)
    config = config_module.make_config(workdir.read_config(tmp_path))
    found = evaluate.evaluate(config, tmp_path, Terminal())
    assert found["loss"] == result["test_loss"]
    assert len(made) > during and set(made) == {("auto", True)}


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="needs jax 0.12")
@pytest.mark.parametrize("stride, size", [(1, 3), (2, 3), (2, 5)])
def test_onednn_takes_depthwise_convolutions_and_input_gradients(stride, size):
    """If jax changes what it rewrites: one that is left takes 30 times as long."""
    draw = np.random.default_rng(0).standard_normal
    x = jnp.asarray(draw((2, 8, 8, 20)), jnp.float32)
    kernel = jnp.asarray(draw((size, size, 1, 20)), jnp.float32)

    def differentiate(formulation, x, kernel):
        def total(x, kernel):
            options = {"stride": stride, "padding": size // 2, "groups": 20}
            y = convolution.conv2d(x, kernel, formulation=formulation, **options)
            return jnp.sum(jnp.square(y)), y

        return jax.grad(total, (0, 1), has_aux=True)(x, kernel)

    look = functools.partial(differentiate, convolution.ONEDNN)
    program = jax.jit(look, compiler_options=choose("onednn")).lower(x, kernel)
    program = program.compile()
    text = program.as_text()
    assert "onednn$convolution" in text and " convolution(" not in text
    wanted = jax.tree.leaves(differentiate("plain", x, kernel))
    for found, exact in zip(jax.tree.leaves(program(x, kernel)), wanted, strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize(
    "changes, chosen, expected",
    [
        ({}, True, "onednn"),
        ({}, False, "auto"),
        ({"formulation": "plain"}, True, "plain"),
        ({"takes_features": True}, True, "auto"),
    ],
)
def test_programs_with_onednn_are_written_for_it(changes, chosen, expected):
    takes = changes.pop("takes_features", False)
    model = Sum(layers=layers.Layers(**changes))
    structure = Structure(model, 10, (0.5,), (0.25,), takes_features=takes)
    options = tuple(xla._ONEDNN.items()) if chosen else ()
    found = kernels.adapt(structure, options)
    assert found.model.layers.formulation == expected
    assert (found == structure) == (expected in ("auto", "plain"))
