"""XLA's settings: its flags, its libraries on CPU, and the cache of what it compiled.

`configure` comes before the first device call: XLA reads its flags once, when the
backend opens.

What the flags were measured to do, on 2 cores of an AMD EPYC, for 8 steps of resnet20
on CPU: without unrolled loops they compile in 8.8 instead of 10.7 s, run at 302 instead
of 264 images/s (the best of 12 calls each), and a state is created for the first time
in 8 instead of 47 s; with the preset too they compile in 7.3 s and run at 286. By XLA's
source neither reaches its GPU backend, for which no flag of its own was tried. All:
docs/notes/training_on_cpu.md.

oneDNN is faster than XLA's own choice, but programs that call it cannot be kept in the
compilation cache, and with several devices in one process their collective operations
and oneDNN wait for the same threads for ever.
"""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.sharding import Mesh

from cnn.errors import UserError
from cnn.runtime import compilation_cache, kept, own_files, settings
from cnn.runtime.options import DeviceOptions

OLDEST_JAX = (0, 11, 2)
_CHOSEN = (
    "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling",
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
)
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
_OPEN_CPU = "from jaxlib import xla_client; xla_client.make_cpu_client()"
_OPEN_SECONDS = 60
_NO_FLAG = r"(Unknown flag|Couldn't interpret value|Flag parsing failed).*"
# An epoch of so many takes two cores about four seconds, compilation two to ten.
LEAST_MACS = 1e11
_OLDEST_FOR_ONEDNN = (0, 12)
_ONEDNN = {
    "xla_cpu_experimental_onednn_custom_call": True,
    # XLA's own library, YNN, keeps the sums over pixels, which it computes fast.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    # The default order lets more operations run at a time, which keeps more of their
    # results: resnet18's step takes 167 instead of 102 MiB, resnet20's 249 instead of
    # 235, and no more time (docs/notes/memory.md).
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}


def check_jax_version(version: str = jax.__version__) -> None:
    """Refuse a jax before 0.11.2, whose results are wrong."""
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if numbers < OLDEST_JAX:
        raise UserError(
            f"jax {version} is too old: before 0.11.2 its CPU backend returns wrong "
            "sums (jax issue 39103). Use Python 3.12 or newer and run: "
            "pip install -r requirements.txt"
        )


def configure(options: DeviceOptions) -> None:
    """Set compiler flags and the compilation cache, before the first device call.

    Raises:
        UserError: the cache directory that was given cannot be written (without the
            default one there is no cache, which is printed); XLA does not take the
            flags of XLA_FLAGS; the devices are open already, and numbers would change.
    """
    check_jax_version()
    settings.pin()
    compilation_cache.choose(options.compilation_cache)
    given = _read_given(os.environ.get("XLA_FLAGS", "").strip())
    flags = merge_flags(given, options.deterministic)
    if _is_open():
        _tell_late(options, given, flags)
        return
    if given:
        _check_flags(given)
    os.environ["XLA_FLAGS"] = flags
    if options.cpu_devices:
        jax.config.update("jax_num_cpu_devices", options.cpu_devices)


def _read_given(text: str) -> str:
    """Return the flags of XLA_FLAGS, which may name a file of them."""
    if not text or text.startswith("-"):
        return text
    try:
        return " ".join(own_files.read(Path(text)).decode().split())
    except (OSError, ValueError) as error:
        raise UserError(
            f"XLA_FLAGS={text} is neither flags nor a file of them ({error}); correct "
            "the variable, or unset it"
        ) from None


def _check_flags(given: str) -> None:
    """Refuse flags at which XLA would end the process, by asking it in another one.

    If XLA changes its messages, they are no longer found, and it ends this one too.
    """
    facts = {"flags": given, "jaxlib": jaxlib.__version__}
    if kept.is_kept("flags", facts):
        return
    command = [sys.executable, "-c", _OPEN_CPU]
    variables = os.environ | {"XLA_FLAGS": given}
    try:
        done = subprocess.run(
            command, env=variables, capture_output=True, timeout=_OPEN_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return  # it is opened here, whatever that says
    told = done.stderr.decode(errors="replace")
    if done.returncode == 0:
        kept.keep("flags", facts)
    elif found := re.search(_NO_FLAG, told):
        raise UserError(
            f"XLA_FLAGS={given}: XLA does not take it ({found[0].strip()}); correct "
            "the variable, or unset it"
        )


def _is_open() -> bool:
    """Return whether the devices are open; jax then takes no other number of them."""
    name = "jax_num_cpu_devices"
    before = getattr(jax.config, name)
    try:
        jax.config.update(name, before + 1)
    except RuntimeError:
        return True
    jax.config.update(name, before)
    return False


def _tell_late(options: DeviceOptions, given: str, flags: str) -> None:
    """Say what comes too late for devices that are open; refuse what is no detail.

    Args:
        given: XLA_FLAGS, which the devices have had, or which came too late itself.
        flags: those that they should have.
    """
    late = [flag for flag in flags.split() if flag not in given.split()]
    remedy = "call xla.configure before anything is computed"
    count = jax.local_device_count("cpu") if options.cpu_devices else 0
    if _DETERMINISTIC in late or count != options.cpu_devices:
        raise UserError(
            f"--deterministic and --cpu_devices come too late: the devices are open "
            f"already; {remedy}"
        )
    if late:
        _say_once(
            f"note: XLA does not read {' '.join(late)}: the devices were open before; "
            "programs are compiled otherwise than by main.py, and last digits may "
            f"differ; {remedy}"
        )


@functools.cache
def _say_once(note: str) -> None:
    """Print a note, once a process: each run in a notebook comes here."""
    print(note, file=sys.stderr)


def merge_flags(given: str, deterministic: bool = False) -> str:
    """Add our flags to those that the user gave in XLA_FLAGS, which win."""
    flags = given.split()
    taken = {flag.partition("=")[0] for flag in flags}
    flags += [flag for flag in _CHOSEN if flag.partition("=")[0] not in taken]
    return " ".join([*flags, _DETERMINISTIC] if deterministic else flags)


def choose_compiler_options(
    kernels: str, mesh: Mesh, macs: float
) -> tuple[tuple[str, Any], ...]:
    """Choose the options with which a program that trains or evaluates is compiled.

    Args:
        kernels: of `--cpu_kernels`.
        macs: multiply-accumulates of the forward passes of an epoch, or of all that is
            evaluated.

    Returns:
        Items for `jax.jit(compiler_options=dict(…))`; empty except for oneDNN.

    Raises:
        UserError: oneDNN was asked for where it cannot be.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    alone = mesh.size == 1 and jax.process_count() == 1
    knows = jax.__version_info__ >= _OLDEST_FOR_ONEDNN
    is_possible = on_cpu and alone and knows
    if kernels == "onednn" and not is_possible:
        raise UserError(
            "--cpu_kernels=onednn needs a CPU as one device (--mesh=data:1) in one "
            "process, and jax 0.12 or newer; use auto"
        )
    is_wanted = kernels == "onednn" or (kernels == "auto" and macs >= LEAST_MACS)
    return tuple(_ONEDNN.items()) if is_wanted and is_possible else ()
