"""The canary: a right machine passes, each kind of wrong one is refused and named."""

import jax
import numpy as np
import pytest
from fixtures_runs import TINY, make_setup

from cnn.errors import UserError
from cnn.runtime import devices, kept
from cnn.runtime.interrupt import Stop
from cnn.runtime.options import DeviceOptions, ProfileOptions
from cnn.runtime.profiling import Profiler
from cnn.training import canary, progress
from cnn.training.epoch import Pace

OPTIONS = DeviceOptions(cpu_kernels="xla")


@pytest.fixture
def unasked(tmp_path, monkeypatch):
    """Let nothing be known of this machine; return where it is kept."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    canary._check_once.cache_clear()
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)
    canary._check_once.cache_clear()


@pytest.fixture(scope="module")
def right():
    """Return what the devices of the tests compute, and what they should."""
    drawn = [canary.draw(seed) for seed in range(2)]
    inputs = jax.tree.map(lambda *x: np.stack(x), *drawn)
    program = canary._make_program(devices.make_mesh(), True, ())
    found = jax.device_get(program(inputs))
    return found, [canary.expect(x, True) for x in drawn]


def test_the_devices_of_the_tests_are_right(right):
    found, expected = right
    assert set(found) == set(expected[0])
    assert all(x.shape[:2] == (2, 2) for x in found.values()), "devices, draws"
    assert list(canary._list_wrong(devices.make_mesh(), *right)) == []


@pytest.mark.parametrize("wrong", [lambda x: x * 1.01, lambda x: x * np.nan])
@pytest.mark.parametrize("device", [0, 1])
def test_every_wrong_result_is_named(right, wrong, device):
    found, expected = right
    for name in found:
        got = found[name].astype(np.float64)
        got[device, 1] = wrong(got[device, 1])
        lines = canary._list_wrong(devices.make_mesh(), found | {name: got}, expected)
        (line,) = lines
        assert f"on cpu:{device}, {name} is " in line


def test_products_of_tf32_pass(right):
    found, expected = right
    for name, (_, allowed) in expected[0].items():
        if allowed == canary._PRODUCTS:
            off = found | {name: found[name] * (1 + 2**-11)}
            assert not list(canary._list_wrong(devices.make_mesh(), off, expected))


def test_a_machine_is_asked_once(unasked, monkeypatch):
    compared = []
    monkeypatch.setattr(
        canary, "_list_wrong", lambda *given: compared.append(given) or iter(())
    )
    for _ in range(2):
        canary.check(OPTIONS)
        canary._check_once.cache_clear()
    assert len(compared) == 1
    (path,) = unasked.glob("*.json")
    for count, text in enumerate(("{", "{}", "[" * 100_000), start=2):
        path.write_text(text)
        canary.check(OPTIONS)
        canary._check_once.cache_clear()
        assert len(compared) == count


def take_one(setup):
    """Take the first step of a run."""
    profiler = Profiler(ProfileOptions(), 0)
    run = progress.begin(setup)
    return next(progress.take_epoch(setup, run, Stop(), Pace(), profiler, 1))


@pytest.mark.skipif(jax.__version_info__ < (0, 12), reason="needs jax 0.12")
def test_onednn_is_asked_where_training_calls_it(unasked, monkeypatch):
    wrong = "computes wrong numbers: a sum is 2 instead of 1"
    monkeypatch.setattr(canary, "_list_wrong", lambda *given: iter([wrong]))
    one = TINY | {"mesh": "data:1"}
    take_one(make_setup(one))
    with pytest.raises(UserError, match=f"{wrong}.*--cpu_kernels=xla does not use"):
        take_one(make_setup(one, {"cpu_kernels": "onednn"}))
    take_one(make_setup(one, {"cpu_kernels": "onednn", "canary": "off"}))


def test_a_failure_is_not_kept(unasked, monkeypatch):
    wrong = "computes wrong numbers: a sum is 2 instead of 1"
    monkeypatch.setattr(canary, "_list_wrong", lambda *given: iter([wrong]))
    for _ in range(2):
        with pytest.raises(UserError) as caught:
            canary.check(OPTIONS)
    message = str(caught.value)
    assert wrong in message and f"jax {jax.__version__}" in message
    assert "--canary=off" in message and "\n" not in message
    assert not list(unasked.glob("canary-*"))
    canary.check(DeviceOptions(canary="off"))


def test_a_device_that_cannot_compute_is_one_line(unasked, monkeypatch):
    def fail(*given):
        raise jax.errors.JaxRuntimeError("INTERNAL: no kernel image\nmore")

    monkeypatch.setattr(canary.jax, "device_get", fail)
    with pytest.raises(UserError, match=r"cannot compute \(INTERNAL: no kernel image"):
        canary.check(OPTIONS)


def test_what_cannot_be_kept_is_found_out_again(tmp_path, unasked, monkeypatch):
    facts = {"processor": "this"}
    kept.keep("flags", facts)
    assert kept.is_kept("flags", facts)
    assert not kept.is_kept("flags", {"processor": "other"})
    assert not kept.is_kept("canary", facts)
    (path,) = tmp_path.glob("flags-*")
    path.unlink()
    path.mkdir()
    kept.keep("flags", facts)
    assert not kept.is_kept("flags", facts)
    assert [x.name for x in tmp_path.iterdir()] == [path.name]
