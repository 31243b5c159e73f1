"""What a program takes of memory, and a batch size that fits."""

import ctypes
import platform
import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.errors import UserError
from cnn.runtime import devices, heap
from cnn.training import epoch, memory, steps


@pytest.fixture
def call(make_structure, make_numbers, start):
    """Return a training program and what it is called with: 32 images a batch."""
    structure, numbers = make_structure(model="simple_cnn"), make_numbers()
    mesh = devices.make_mesh("data:1")
    ids = np.zeros((1, 32), np.int32)
    images = np.zeros((1, 32, 8, 8, 1), np.uint8)
    chunk = {"images": images, "labels": ids, "ids": ids}
    arguments = (
        start(structure, numbers),
        steps.create_train_sums(),
        chunk,
        numbers,
        epoch.make_bounds(0, 1),
    )
    return epoch.make_train_chunk(structure, mesh), devices.put(
        devices.replicated(mesh), arguments
    )


def test_the_compiler_says_what_a_program_needs():
    program = jax.jit(lambda x: (x @ x) @ (x @ x))
    x = jnp.ones((256, 256))
    assert memory.measure_temporary(program, (x,)) >= x.nbytes
    assert memory.measure_temporary(jax.jit(lambda x: x + 1), (x,)) < 1000


@pytest.mark.parametrize("share, multiple", [(0.5, 1), (0.3, 4), (0.9, 8)])
def test_batch_size_that_fits_is_found_by_compiling(call, monkeypatch, share, multiple):
    fixed = memory.count_taken(call[1])
    needed = fixed + memory.measure_temporary(*call)
    capacity = fixed + int(share * (needed - fixed))
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: capacity)
    size = memory.find_batch_size(*call, multiple)
    assert 0 < size < 32 and size % multiple == 0
    fixed = memory.count_taken(call[1])  # garbage of earlier tests may be gone now
    chunk = {name: x[:, :size] for name, x in call[1][2].items()}
    smaller = (*call[1][:2], chunk, *call[1][3:])
    assert fixed + memory.measure_temporary(call[0], smaller) <= capacity


def test_no_batch_fits_where_the_state_fills_the_device(call, monkeypatch):
    fixed = memory.count_taken(call[1])
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: fixed)
    assert memory.find_batch_size(*call) == 0
    assert "no batch fits: take a smaller model" in memory.describe_shortage(*call)


class TooLarge:
    """A program that more than so many images a batch keep from being compiled."""

    def __init__(self, program, most):
        self._program, self._most = program, most

    def lower(self, *arguments):
        """Fail as XLA does, or lower the program."""
        if arguments[2]["labels"].shape[1] > self._most:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: while autotuning")
        return self._program.lower(*arguments)


def test_a_batch_that_cannot_even_be_compiled_names_one_that_fits(call, monkeypatch):
    program, arguments = call
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: 2**40)
    broken = TooLarge(program, 16)
    assert memory.measure_temporary(broken, arguments) is None
    with pytest.raises(UserError) as caught, memory.explain_shortage(broken, arguments):
        broken.lower(*arguments)
    message = str(caught.value)
    assert "--batch_size=32 takes more memory than there is to be compiled" in message
    assert "--batch_size=13 would fit" in message


def test_bytes_of_shapes():
    tree = {"a": jnp.zeros((3, 4)), "b": jax.ShapeDtypeStruct((5,), jnp.bfloat16)}
    assert memory.count_bytes(tree) == 58


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's heap")
def test_freed_pages_between_others_are_given_back():
    def count_resident():
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    blocks = [ctypes.create_string_buffer(b"x" * 65535) for _ in range(1024)]
    del blocks[::2]  # what is left keeps the C library from giving anything back
    before = count_resident()
    heap.give_back()
    assert before - count_resident() > 20_000_000
    assert all(block.value == b"x" * 65535 for block in blocks)
