import dataclasses
import threading
import weakref

import jax
import numpy as np
import pytest

from cnn.config import make_config
from cnn.data import chunks, load_dataset
from cnn.data.options import DataOptions
from cnn.errors import UserError
from cnn.runtime import devices
from cnn.training.setup import make_loaders

POSITIONS = np.random.default_rng(0).permutation(44).astype(np.int32).reshape(11, 4)


@pytest.fixture
def mesh():
    """Return the mesh of the two devices."""
    return devices.make_mesh()


def make_loader(images, resident, mesh):
    return chunks.Loader(images, DataOptions(resident=resident), mesh)


def collect(loader, steps, first=0):
    """Return the batches that would be run, by number, as (images, labels, ids)."""
    found = {}
    arrays = {"positions": POSITIONS, "ids": POSITIONS}
    for start, stop, chunk in chunks.iterate_chunks(loader, steps, arrays, first):
        assert {len(x) for x in chunk.values()} == {steps}
        for number in range(start, stop):
            assert number not in found
            here = number % steps
            found[number] = [np.asarray(chunk[n][here]) for n in sorted(chunk)]
    return found


@pytest.mark.parametrize("steps", [1, 4, 11, 20])
@pytest.mark.parametrize("first", [0, 3, 4, 10])
def test_resident_equals_streamed_and_the_images(make_images, mesh, steps, first):
    images = make_images(44, (3, 2, 1))
    found = {}
    for resident in ("always", "never"):
        loader = make_loader(images, resident, mesh)
        assert loader.is_resident == (resident == "always")
        found[resident] = collect(loader, steps, first)
    assert list(found["never"]) == list(range(first, 11))
    for number, (ids, pixels, labels) in found["never"].items():
        np.testing.assert_array_equal(ids, POSITIONS[number])
        np.testing.assert_array_equal(pixels, images.read(POSITIONS[number]))
        np.testing.assert_array_equal(labels, images.labels[POSITIONS[number]])
        for one, other in zip(
            found["always"][number], (ids, pixels, labels), strict=True
        ):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_chunks_of_both_ways_fit_one_program(make_images, mesh):
    kinds = []
    for resident in ("always", "never"):
        loader = make_loader(make_images(44), resident, mesh)
        chunk = loader.fill(POSITIONS, ids=POSITIONS)
        kinds.append({n: (x.shape, x.dtype, x.sharding) for n, x in chunk.items()})
    assert kinds[0] == kinds[1]
    shape, dtype, sharding = kinds[0]["images"]
    assert shape == (11, 4, 8, 8, 1) and dtype == np.uint8
    assert sharding.shard_shape(shape) == (11, 2, 8, 8, 1)


def test_padding_of_the_last_chunk_is_the_first_image(make_images, mesh):
    images = make_images(44)
    loader = make_loader(images, "never", mesh)
    *_, (first, last, chunk) = chunks.iterate_chunks(
        loader, 4, {"positions": POSITIONS}
    )
    assert (first, last) == (8, 11)
    expected = np.broadcast_to(images.read(np.arange(1)), (4, 8, 8, 1))
    np.testing.assert_array_equal(chunk["images"][3], expected)


def test_one_chunk_is_filled_ahead_in_order(make_images, mesh):
    images, reads, enough = make_images(44), [], threading.Event()

    def read(positions):
        reads.append(positions.reshape(-1, 4)[0].tolist())
        enough.set()
        return images.read(positions)

    loader = make_loader(dataclasses.replace(images, read=read), "never", mesh)
    iterator = chunks.iterate_chunks(loader, 2, {"positions": POSITIONS})
    next(iterator)
    for taken in range(1, 6):
        while len(reads) < taken + 1:
            assert enough.wait(30), "the next chunk is not being filled"
            enough.clear()
        assert len(reads) == taken + 1, "one chunk ahead, not more"
        next(iterator)
    assert reads == POSITIONS[::2].tolist()
    assert list(iterator) == []


def test_mistakes_in_reading_reach_the_caller(make_images, mesh):
    def read(positions):
        raise UserError("x.png is damaged")

    images = dataclasses.replace(make_images(44), read=read)
    loader = make_loader(images, "never", mesh)
    with pytest.raises(UserError, match=r"x\.png"):
        next(chunks.iterate_chunks(loader, 2, {"positions": POSITIONS}))


@pytest.mark.parametrize(
    "memory, resident, expected",
    [
        (44 * 64 * 4, "auto", True),
        (44 * 64 * 4 - 1, "auto", False),
        (44 * 64, "always", True),
        (10**9, "never", False),
    ],
)
def test_where_images_lie(make_images, mesh, monkeypatch, memory, resident, expected):
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: memory)
    loader = make_loader(make_images(44), resident, mesh)
    assert loader.is_resident == expected
    assert len(loader) == 44 and loader.image_shape == (8, 8, 1)


def test_always_refuses_what_cannot_fit(make_images, mesh, monkeypatch):
    monkeypatch.setattr(devices, "get_device_memory", lambda mesh: 44 * 64 - 1)
    with pytest.raises(UserError, match="--resident=never"):
        make_loader(make_images(44), "always", mesh)


def test_memory_of_the_machine_is_known(mesh):
    assert devices.get_device_memory(mesh) > 2**28


def test_devices_of_a_cpu_share_its_memory():
    """What every device holds whole lies there as often."""
    one, both = (
        devices.get_device_memory(devices.make_mesh(f"data:{n}")) for n in (1, 2)
    )
    assert both == one // 2


@pytest.mark.parametrize(
    "num_steps, batch_size, image_bytes, expected",
    [(10, 4, 100, 10), (10, 1, 2**23, 4), (9, 1, 2**23, 3), (5, 2, 2**26, 1)],
)
def test_chunk_size(num_steps, batch_size, image_bytes, expected):
    found = chunks.choose_chunk_steps(num_steps, batch_size, image_bytes)
    assert found == expected
    size = found * batch_size * image_bytes
    assert size <= chunks.CHUNK_BYTES or found == 1


def test_resident_images_are_whole_on_every_device(make_images, mesh):
    loader = make_loader(make_images(44), "always", mesh)
    chunk = loader.fill(POSITIONS)
    assert len(chunk["labels"].sharding.device_set) == jax.device_count() == 2


def test_images_of_a_cpu_device_lie_in_memory_once(make_images):
    """As many bytes as they have are taken, and nothing but the device holds them."""
    images, arrays = make_images(44), []
    whole = images.read_all()
    assert whole.ctypes.data % 64 == 0
    np.testing.assert_array_equal(whole, images.read(np.arange(44)))

    def read(positions):
        arrays.append(weakref.ref(found := images.read(positions)))
        return found

    lazy = dataclasses.replace(images, read=read, decoded=False)
    loader = make_loader(lazy, "auto", devices.make_mesh("data:1"))
    assert loader.is_resident and len(arrays) == 1
    assert arrays[0]() is None, "the host keeps a copy"
    placed = jax.device_put(whole, devices.replicated(loader.mesh))
    assert placed.unsafe_buffer_pointer() == whole.ctypes.data


@pytest.mark.parametrize(
    "beside, is_host, decoded, expected",
    [
        (0, True, False, True),
        (1, True, False, False),
        (1, True, True, True),
        (1, False, False, True),
    ],
)
def test_sets_of_a_run_fit_together_in_the_memory_of_a_host(
    make_images, mesh, monkeypatch, beside, is_host, decoded, expected
):
    images = dataclasses.replace(make_images(44), decoded=decoded)
    monkeypatch.setattr("cnn.data.options._MEMORY_BYTES", images.num_bytes)
    monkeypatch.setattr(devices, "lie_in_host_memory", lambda mesh: is_host)
    loader = chunks.Loader(images, DataOptions(), mesh, beside=beside)
    assert loader.is_resident == expected


def test_loaders_of_a_run_count_all_of_its_sets(monkeypatch):
    config = make_config({"validation_fraction": 0.25})
    dataset, mesh = load_dataset(config.data), devices.make_mesh()
    parts = [dataset.train, dataset.validation, dataset.test]
    total = sum(part.num_bytes for part in parts)
    lazy = [dataclasses.replace(part, decoded=False) for part in parts]
    names = ("train", "validation", "test")
    dataset = dataclasses.replace(dataset, **dict(zip(names, lazy, strict=True)))
    for most, expected in ((total, True), (total - 1, False)):
        monkeypatch.setattr("cnn.data.options._MEMORY_BYTES", most)
        loaders = make_loaders(config, dataset, mesh)
        assert [x.is_resident for x in loaders.values()] == [expected] * 3
