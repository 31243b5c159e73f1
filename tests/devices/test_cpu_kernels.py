"""How programs are compiled on CPU: by which library, and how thoroughly."""

import functools

import jax
import jax.numpy as jnp
import pytest

from cnn import devices
from cnn.devices.kernels import LEAST_MACS
from cnn.errors import UserError
from cnn.state import compute_state_sha256, create_state

ONEDNN = "xla_cpu_experimental_onednn_custom_call"


def choose(kernels, mesh="data:1", macs=0.0):
    """Choose for some of the suite's two devices."""
    return devices.choose_compiler_options(kernels, devices.make_mesh(mesh), macs)


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


@pytest.mark.parametrize(
    "name, size",
    [
        ("logistic_regression", 8),
        ("mlp", 8),
        ("simple_cnn", 8),
        ("sliding_regression", 8),
        pytest.param("airbench94", 32, marks=pytest.mark.slow),
        pytest.param("resnet20", 32, marks=pytest.mark.slow),
        pytest.param("wrn_16_4", 32, marks=pytest.mark.slow),
        pytest.param("squeezenet1_1", 64, marks=pytest.mark.slow),
    ],
)
def test_first_states_are_the_same_bits_however_compiled(
    make_task, make_numbers, name, size
):
    task = make_task(model=name, widths=(16, 32))
    create = functools.partial(
        create_state, task.model, (size, size, 3), task.optimizer
    )
    mesh, hashes = devices.make_mesh(), []
    quickly = devices.choose_creation_options(mesh)
    assert quickly
    for options in ({}, quickly):
        program = jax.jit(create, compiler_options=options)
        states = [program(make_numbers(seed=seed)) for seed in (0, 1, 2**31 - 1)]
        hashes.append([compute_state_sha256(state) for state in states])
    assert hashes[0] == hashes[1] and len(set(hashes[0])) == 3
