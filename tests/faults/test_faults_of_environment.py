"""Faults of the machine: wrong numbers, compiler settings, caches, packages, clocks."""

import json
import os
import subprocess

import pytest
from faulty import fault, finish, read_run, run_undisturbed
from fixtures_events import read_scalars
from fixtures_runs import TINY, make_flags, read_lines

# An epoch has 5 steps; a checkpoint is written after each.
LOGGED = {"checkpoint_every_epochs": 1.0}
KILL = """
import json, os
dumps = json.dumps
def write(x, *more, **how):
    if isinstance(x, dict) and x.get("step") == 14:
        os.kill(os.getpid(), 9)
    return dumps(x, *more, **how)
json.dumps = write
"""
WRONG_CONVOLUTION = """
from jax import lax
real = lax.conv_general_dilated
lax.conv_general_dilated = lambda *x, **how: 1.01 * real(*x, **how)
"""
WRONG_GRADIENT = """
from jax import lax
real = lax.conv_general_dilated
def convolve(*x, **how):
    y = real(*x, **how)
    return y + 0.01 * (y - lax.stop_gradient(y))
lax.conv_general_dilated = convolve
"""
WRONG_LONG_SUM = """
import jax.numpy as jnp
real = jnp.sum
def add(x, axis=None, *more, **how):
    y = real(x, axis, *more, **how)
    return y * (1.01 if y.size and x.size // y.size > 32768 else 1)
jnp.sum = add
"""
WRONG_SECOND_DEVICE = """
import jax, jax.numpy as jnp
real = jnp.sum
def add(*x, **how):
    try:
        device = jax.lax.axis_index("device")
    except NameError:
        return real(*x, **how)
    return real(*x, **how) * jnp.where(device == 1, 1.01, 1)
jnp.sum = add
"""
WRONG_RESULTS = """
import jax
real = jax.device_get
jax.device_get = lambda x: jax.tree.map(lambda y: y * 1.01, real(x))
"""
NO_CANARY = (
    "cnn/training/canary.py",
    'if options.canary == "on":',
    "if not options:",
)


def start(room, code="", env=None, limits=None, **changes):
    """Start training a tiny run in `run`, code being run when Python starts."""
    place = room.path / "inject"
    place.mkdir(exist_ok=True)
    (place / "sitecustomize.py").write_text(code)
    env = {"PYTHONPATH": f"{place}{os.pathsep}{room.root}"} | (env or {})
    flags = ["--workdir=run", *make_flags(TINY | changes)]
    return room.start(*flags, env=env, limits=limits)


def train(*given, **how):
    return finish(start(*given, **how))


def list_notes(ended):
    """List what was printed but that --compilation_cache was given once more."""
    return [x for x in ended.err.splitlines() if "is given 2 times" not in x]


def check_wrong(room, code, *words, **changes):
    """Require that a machine that computes wrong numbers is refused, with versions."""
    refused = train(room, code, **changes)
    versions = "computes wrong numbers", "jaxlib", "requirements.txt", "--canary=off"
    refused.check_refused(*versions, *words)
    assert not (room.path / "run").exists()


@fault(
    injected="convolutions are scaled by 1.01",
    holds="refused with versions and remedy before anything is written",
    without=[NO_CANARY],
)
def test_a_backend_is_one_per_cent_off(room):
    check_wrong(room, WRONG_CONVOLUTION, "a convolution")


@fault(
    injected="likewise, and the weights are loaded from Python",
    holds='`cnn.load` refuses likewise, unless `canary="off"` is given',
    without=[NO_CANARY],
    n=2,
)
def test_a_backend_is_wrong_under_python(room):
    room.train("run").check_done()
    code = f"{WRONG_CONVOLUTION}import cnn\ncnn.load('run', canary='%s')"
    ended = room.python(code % "on")
    assert "UserError: This machine computes wrong numbers" in ended.err, ended
    room.python(code % "off").check_done()


@fault(
    injected="sums of more than 32,768 numbers are scaled by 1.01",
    holds="refused likewise",
    without=[("cnn/training/canary.py", "SHAPE = (33, ", "SHAPE = (5, ")],
)
def test_only_long_sums_are_wrong(room):
    check_wrong(room, WRONG_LONG_SUM, "a sum of")


@fault(
    injected="the derivative of convolutions is scaled by 1.01, not their result",
    holds="refused likewise",
    without=[
        (
            "cnn/training/canary.py",
            '    right |= _differentiate_plainly(*some, " of few images", _PRODUCTS)\n',
            "",
        )
    ],
)
def test_only_gradients_are_wrong(room):
    check_wrong(room, WRONG_GRADIENT, "gradient", convolution="plain")


@fault(
    injected="sums on the second of two devices are scaled by 1.01",
    holds="refused, and the device is named",
    without=[
        (
            "cnn/training/canary.py",
            "in enumerate(mesh.local_devices):",
            "in enumerate(mesh.local_devices[:1]):",
        )
    ],
)
def test_one_of_two_devices_is_wrong(room):
    check_wrong(room, WRONG_SECOND_DEVICE, "on cpu:1", cpu_devices=2)


@fault(
    injected="results are wrong; the kept ones are another machine's, then cut off",
    holds="the check is made again, and refuses",
    without=[
        (
            "cnn/runtime/kept.py",
            "json.loads(own_files.read(path)) == facts",
            "path.is_file()",
        ),
    ],
    n=2,
)
def test_the_kept_check_is_of_another_machine(room):
    cache = room.path / "cache"
    how = {"compilation_cache": cache, "cpu_kernels": "xla"}
    train(room, **how).check_done()
    (kept,) = cache.glob("canary-*")
    subprocess.run(["rm", "-r", room.path / "run"], check=True)
    facts = json.loads(kept.read_text()) | {"processor": "another"}
    for text in (json.dumps(facts), json.dumps(facts)[:40]):
        kept.write_text(text)
        check_wrong(room, WRONG_RESULTS, **how)


@fault(
    injected="the clock says 1969, 2286, and a year that Python cannot count",
    holds="refused in one line, before anything is written",
    without=[("cnn/runtime/mishaps.py", "if not 0 <= now < _LAST_TIME:", "if False:")],
    n=3,
)
def test_the_clock_is_out_of_range(room):
    for time in ("return -18.0", "return 1e10", "raise OverflowError"):
        code = f"import time\ndef tell():\n    {time}\ntime.time = tell\n"
        train(room, code).check_refused("clock is set to before 1970")
        assert not (room.path / "run").exists()


@fault(
    injected="jax says that it is version 0.10.2",
    holds="refused, with what to install",
    without=[("cnn/runtime/xla.py", "OLDEST_JAX = (0, 11, 2)", "OLDEST_JAX = (0,)")],
)
def test_jax_is_an_old_version(room):
    code = "import jax\njax.__version__ = '0.10.2'"
    train(room, code).check_refused("jax 0.10.2", "pip install -r requirements.txt")
    assert not (room.path / "run").exists()


@fault(
    injected="XLA_FLAGS has a flag, or a value, that XLA ends the process for",
    holds="refused in one line, which names both",
    without=[
        ("cnn/runtime/xla.py", "        _check_flags(given)\n", "        pass\n"),
    ],
    n=2,
)
def test_compiler_flags_are_unknown(room):
    for flag in ("--xla_no_such=1", "--xla_cpu_opt_preset=FASTEST"):
        train(room, env={"XLA_FLAGS": flag}).check_refused(f"XLA_FLAGS={flag}", "unset")
    assert not (room.path / "run").exists()


@fault(
    injected="XLA_FLAGS names a file that is not there",
    holds="refused",
    without=[
        (
            "cnn/runtime/xla.py",
            'if not text or text.startswith("-"):',
            "if True:",
        )
    ],
)
def test_the_file_of_compiler_flags_is_gone(room):
    env = {"XLA_FLAGS": "/nowhere/flags"}
    train(room, env=env).check_refused("XLA_FLAGS=/nowhere/flags", "unset")


LATE = """
import sys
import jax
jax.numpy.ones(3)
from cnn.errors import UserError
from cnn.runtime import xla
from cnn.runtime.options import DeviceOptions
try:
    xla.configure(DeviceOptions(compilation_cache="off"))
    xla.configure(DeviceOptions(compilation_cache="off", cpu_devices=2))
except UserError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)
"""


@fault(
    injected="compiler settings are given to Python after its first array",
    holds="those of speed are noted, those that change numbers refused",
    without=[
        ("cnn/runtime/xla.py", "    if _is_open():\n", "    if False:\n"),
    ],
)
def test_compiler_settings_come_too_late(room):
    ended = room.python(LATE)
    ended.check_refused("--cpu_devices come too late", "xla.configure")
    assert "note: XLA does not read --xla_backend_extra_options" in ended.err


def check_tensorboard(run):
    """Require that TensorBoard shows what metrics.jsonl has, and every step once."""
    expected = {}
    for line in read_lines(run):
        for name, value in line.items():
            if isinstance(value, int | float) and name != "step":
                expected.setdefault(name, []).append((line["step"], value))
    shown = read_scalars(run / "tensorboard")
    timed = "seconds", "images_per_second"
    assert {n: x for n, x in shown.items() if n not in timed} == {
        name: [(step, pytest.approx(value)) for step, value in pairs]
        for name, pairs in expected.items()
    }
    assert len(set(shown["seconds"])) == len(shown["seconds"])


@fault(
    injected="SIGKILL 4 steps behind a checkpoint; the same command again",
    holds="TensorBoard shows every step once, as metrics.jsonl",
    without=[
        (
            "cnn/runtime/tensorboard.py",
            "EventWriter(self._directory / split, self._step)",
            "EventWriter(self._directory / split)",
        )
    ],
)
def test_tensorboard_after_a_kill(room):
    assert train(room, KILL, track="tensorboard", **LOGGED).code == 137
    train(room, track="tensorboard", **LOGGED).check_done()
    check_tensorboard(room.path / "run")
    assert read_run(room.path / "run") == run_undisturbed(**LOGGED)


@fault(
    injected="SIGKILL, and the clock goes back by ten years before the same command",
    holds="the same bits; TensorBoard shows every step once",
    without=[("cnn/runtime/tensorboard.py", ", latest + 1)", ", 0)")],
)
def test_the_clock_goes_back(room):
    assert train(room, KILL, track="tensorboard", **LOGGED).code == 137
    code = "import time\nreal = time.time\ntime.time = lambda: real() - 3e8"
    train(room, code, track="tensorboard", **LOGGED).check_done()
    check_tensorboard(room.path / "run")
    assert read_run(room.path / "run") == run_undisturbed(**LOGGED)


@fault(
    injected="a kill or a full disk has cut off every compiled program",
    holds="the same bits after one note; the next start finds them whole",
    without=[
        (
            "cnn/runtime/compilation_cache.py",
            "            remove_damaged(self._directory, name)\n",
            "            pass\n",
        )
    ],
)
def test_compiled_programs_are_cut_off(room):
    how = {"compilation_cache": room.path / "cache", "cpu_kernels": "xla"}
    train(room, **how).check_done()
    for path in (room.path / "cache").glob("*-cache"):
        path.write_bytes(path.read_bytes()[:99])
    notes = []
    for _ in range(2):
        subprocess.run(["rm", "-r", room.path / "run"], check=True)
        ended = train(room, **how).check_done()
        notes.append(list_notes(ended))
        assert read_run(room.path / "run") == run_undisturbed()
    assert len(notes[0]) == 1 and "compiled again" in notes[0][0], notes
    assert notes[1] == []


@fault(
    injected="--compilation_cache lies on a disk of 16 KiB",
    holds="the same bits, after one note",
    without=[
        (
            "cnn/runtime/compilation_cache.py",
            "    _Warnings(directory).take()\n",
            "",
        )
    ],
)
def test_the_disk_of_compiled_programs_is_full(room):
    with room.small_disk(16384) as disk:
        ended = train(room, compilation_cache=disk).check_done()
    notes = list_notes(ended)
    assert len(notes) == 1 and "No space" in notes[0], notes
    assert notes[0].startswith("note: compiled programs in ")
    assert read_run(room.path / "run") == run_undisturbed()


@fault(
    injected="a package that is needed fails when it is imported",
    holds="one line, with what to install",
    without=[("main.py", "    mishaps.report_uncaught()\n", "")],
)
def test_a_package_is_broken(room):
    code = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "optax":
            raise ImportError("libgone.so: cannot open shared object file")
sys.meta_path.insert(0, Finder())
"""
    refused = train(room, code)
    refused.check_refused("libgone.so", "pip install -r requirements.txt")


@fault(
    injected="ulimit -v of 1 GB, at which LLVM aborts the process",
    holds="one line, with what to raise",
    without=[("main.py", "    mishaps.check_space()\n", "")],
)
def test_addresses_are_limited(room):
    refused = train(room, limits={"RLIMIT_AS": 1_000_000_000})
    refused.check_refused("1.00 GB", "ulimit -v")


@fault(
    injected="python -OO, which leaves out docstrings, and --help",
    holds="one line instead of the manual; training gives the same bits",
    without=[("main.py", "    if __doc__ is None:", "    if False:")],
)
def test_docstrings_are_left_out(room):
    env = {"PYTHONOPTIMIZE": "2"}
    room.main("--help", env=env).check_refused("-OO")
    train(room, env=env).check_done()
    assert read_run(room.path / "run") == run_undisturbed()
