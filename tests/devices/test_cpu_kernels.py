"""Which library computes on CPU."""

import jax
import jax.numpy as jnp
import pytest

from cnn.errors import UserError
from cnn.runtime import devices, xla
from cnn.runtime.xla import LEAST_MACS

ONEDNN = "xla_cpu_experimental_onednn_custom_call"


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
