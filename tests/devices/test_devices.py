import contextlib
import os
import subprocess
import sys
import types
import warnings
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn.errors import UserError
from cnn.runtime import devices, mishaps, xla
from cnn.runtime.options import DeviceOptions

CACHE = (
    "jax_enable_compilation_cache",
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture
def configure(monkeypatch):
    """Return `configure`, whose settings are put back afterwards."""
    before = {name: getattr(jax.config, name) for name in CACHE}
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(xla, "_is_open", lambda: False)
    monkeypatch.setattr(xla, "_check_flags", lambda given: None)
    yield xla.configure
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize("version", ["0.4.38", "0.10.2", "0.11.1", "0.11"])
def test_old_jax_is_refused_with_the_remedy(version):
    with pytest.raises(UserError) as caught:
        xla.check_jax_version(version)
    message = str(caught.value)
    assert f"jax {version} is too old" in message
    assert "wrong sums" in message and "pip install -r requirements.txt" in message


@pytest.mark.parametrize("version", ["0.11.2", "0.12.0", "0.12.0.1", "1.0.0"])
def test_new_jax_is_taken(version):
    xla.check_jax_version(version)


def test_this_jax_is_taken():
    xla.check_jax_version()


@pytest.mark.parametrize("deterministic", [False, True])
def test_flags_of_the_user_are_kept(configure, monkeypatch, deterministic):
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=1  --xla_b=2")
    configure(DeviceOptions(deterministic=deterministic, compilation_cache="off"))
    flags = os.environ["XLA_FLAGS"].split()
    assert flags[:2] == ["--xla_a=1", "--xla_b=2"]
    assert ("--xla_gpu_deterministic_ops=true" in flags) == deterministic


def test_a_flag_of_the_user_takes_the_place_of_ours():
    ours = xla.merge_flags("").split()
    names = [flag.partition("=")[0] for flag in ours]
    merged = xla.merge_flags(f"{names[1]}=CPU_OPT_PRESET_DEFAULT").split()
    assert merged == [f"{names[1]}=CPU_OPT_PRESET_DEFAULT", ours[0]]


def test_xla_knows_our_flags():
    """It ends a process that names another."""
    script = "import jax; jax.numpy.ones(2).block_until_ready()"
    environment = os.environ | {"XLA_FLAGS": xla.merge_flags("", True)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert ended.returncode == 0


def test_cache_is_made_and_keeps_everything(configure, tmp_path):
    directory = tmp_path / "deep" / "cache"
    configure(DeviceOptions(compilation_cache=str(directory)))
    assert directory.is_dir()
    assert [getattr(jax.config, name) for name in CACHE] == [
        True,
        str(directory),
        0.0,
        -1,
    ]


def test_cache_may_be_off_and_on_again(configure, tmp_path):
    configure(DeviceOptions(compilation_cache="off"))
    assert not jax.config.jax_enable_compilation_cache
    configure(DeviceOptions(compilation_cache=str(tmp_path)))
    assert jax.config.jax_enable_compilation_cache


def test_home_is_expanded(configure, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    configure(DeviceOptions(compilation_cache="~/cache"))
    assert (tmp_path / "cache").is_dir()


def test_cache_that_cannot_be_made_is_named(configure, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "cache"
    with pytest.raises(UserError, match=f"--compilation_cache={path} cannot be made"):
        configure(DeviceOptions(compilation_cache=str(path)))


@pytest.mark.parametrize("home", ["file", "file/deeper"])
def test_without_a_home_nothing_is_kept_and_a_line_says_so(
    configure, tmp_path, monkeypatch, capsys, home
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / home))
    configure(DeviceOptions())
    assert not jax.config.jax_enable_compilation_cache
    told = capsys.readouterr().err
    assert told.startswith("note: ") and told.count("\n") == 1
    assert "Not a directory" in told and "or off" in told


def test_damaged_programs_are_removed_after_one_note(
    configure, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    whole = zlib.compress(b"program")
    names = {"jit_a-1": whole, "jit_a-2": whole[:9], "jit_a-3": b"", "jit_b-4": b""}
    for name, content in names.items():
        (tmp_path / f"{name}-cache").write_bytes(content)
    (tmp_path / "jit_a-notes").write_text("mine")
    configure(DeviceOptions(compilation_cache=str(tmp_path)))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for name, reason in (("jit_a", "cut off"), ("jit_c", "again")):
            text = f"Error reading persistent compilation cache entry for '{name}': "
            warnings.showwarning(f"{text}{reason}", UserWarning, "x.py", 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: compiled programs in ") and "(cut off)" in line
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"jit_a-1-cache", "jit_b-4-cache", "jit_a-notes"}


@pytest.mark.parametrize(
    "flags, reason",
    [
        ("--xla_none=1", "Unknown flag"),
        ("--xla_force_host_platform_device_count=a", "interpret value a"),
    ],
)
def test_flags_that_xla_does_not_take_are_named(flags, reason):
    with pytest.raises(UserError, match=rf"^XLA_FLAGS={flags}: .*{reason}.*unset it$"):
        xla._check_flags(flags)


def test_flags_may_lie_in_a_file(tmp_path):
    path = tmp_path / "flags"
    path.write_text("--xla_a=1\n--xla_b=2\n")
    assert xla._read_given(str(path)) == "--xla_a=1 --xla_b=2"
    with pytest.raises(UserError, match="neither flags nor a file of them"):
        xla._read_given(str(tmp_path / "none"))


def test_settings_that_come_too_late_say_so(monkeypatch, capsys):
    before = os.environ["XLA_FLAGS"]
    jax.devices()
    assert xla._is_open()
    options = DeviceOptions(compilation_cache="off", cpu_devices=2)
    xla._tell_late(options, before, before)
    assert capsys.readouterr().err == ""
    for _ in range(2):  # said once
        xla._tell_late(options, before, xla.merge_flags("--xla_a=1"))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("note: XLA does not read --xla_a=1: the devices were open")
    with pytest.raises(UserError, match="come too late"):
        xla._tell_late(DeviceOptions(cpu_devices=3), before, before)
    deterministic = xla.merge_flags(before, True)
    with pytest.raises(UserError, match=r"come too late.*xla\.configure"):
        xla._tell_late(DeviceOptions(deterministic=True), before, deterministic)


@pytest.mark.parametrize(
    "error, words",
    [
        (ImportError("libgone.so"), ["libgone.so", "pip install -r"]),
        (MemoryError(), ["out of memory", "--batch_size"]),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 GB"), ["9 GB", "--batch_size"]),
        (RuntimeError("can't start new thread"), ["thread", "ulimit -u"]),
        (RuntimeError("something\nelse"), []),
        (KeyError("name"), []),
    ],
)
def test_what_the_machine_lacks_is_one_line(error, words):
    text = mishaps.describe(error)
    assert bool(text) == bool(words) and "\n" not in text
    assert all(word in text for word in words)


@pytest.mark.parametrize("allowed, is_refused", [(10**9, True), (-1, False)])
def test_few_addresses_are_refused(monkeypatch, capsys, allowed, is_refused):
    limit = types.SimpleNamespace(RLIMIT_AS=0, getrlimit=lambda name: (allowed, -1))
    monkeypatch.setattr(mishaps, "resource", limit)
    with pytest.raises(SystemExit) if is_refused else contextlib.nullcontext():
        mishaps.check_space()
    assert ("ulimit -v" in capsys.readouterr().err) == is_refused


@pytest.mark.parametrize(
    "precision, dtype", [("float32", jnp.float32), ("bfloat16", jnp.bfloat16)]
)
def test_precision(precision, dtype):
    assert devices.get_dtype(DeviceOptions(precision=precision)) == dtype


def test_batches_are_split_over_the_devices():
    mesh = devices.make_mesh()
    assert dict(mesh.shape) == {"data": 2}
    chunk = jax.device_put(np.arange(24).reshape(3, 4, 2), devices.split_batches(mesh))
    shards = [np.asarray(shard.data) for shard in chunk.addressable_shards]
    np.testing.assert_array_equal(np.concatenate(shards, axis=1), chunk)
    assert [shard.shape for shard in shards] == [(3, 2, 2)] * 2
    whole = jax.device_put(np.arange(3), devices.replicated(mesh))
    assert [shard.data.shape for shard in whole.addressable_shards] == [(3,)] * 2


@pytest.mark.parametrize("batch_size, near", [(7, "6 or 8"), (1, "2")])
def test_batch_that_does_not_divide_is_refused(batch_size, near):
    mesh = devices.make_mesh()
    devices.check_batch_size(8, mesh)
    with pytest.raises(UserError) as caught:
        devices.check_batch_size(batch_size, mesh)
    assert str(caught.value).endswith(
        f"--batch_size={batch_size} does not divide over 2 devices; use {near}"
    )


def test_devices_in_words():
    assert devices.describe_device() == "2 x cpu (cpu)"
