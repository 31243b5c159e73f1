"""XLA's settings: its flags, its libraries on CPU, and the cache of what it compiled.

`configure` comes before the first device call: XLA reads its flags once, when the
backend opens.

What the flags were measured to do, on 2 cores of an AMD EPYC, for 8 steps of resnet20
on CPU: without unrolled loops they compile in 8.8 instead of 10.7 s, run at 302 instead
of 264 images/s (the best of 12 calls each), and a state is created for the first time
in 8 instead of 47 s; with the preset too they compile in 7.3 s and run at 286. By XLA's
source neither reaches its GPU backend, for which no flag of its own was tried. All:
docs/performance.md.

oneDNN is faster than XLA's own choice, but programs that call it cannot be kept in the
compilation cache, and with several devices in one process their collective operations
and oneDNN wait for the same threads for ever.
"""

import errno
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from cnn.errors import UserError
from cnn.runtime.options import DeviceOptions

OLDEST_JAX = (0, 11, 2)
_CHOSEN = (
    "--xla_backend_extra_options=xla_cpu_disable_loop_unrolling",
    "--xla_cpu_opt_preset=CPU_OPT_PRESET_FAST_COMPILE",
)
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
# An epoch of so many takes two cores about four seconds, compilation two to ten.
LEAST_MACS = 1e11
_OLDEST_FOR_ONEDNN = (0, 12)
_ONEDNN = {
    "xla_cpu_experimental_onednn_custom_call": True,
    # XLA's own library, YNN, keeps the sums over pixels, which it computes fast.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
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
        UserError: the cache directory that was given cannot be written. Without the
            default one there is no cache, which is printed.
    """
    check_jax_version()
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = merge_flags(given, options.deterministic)
    if options.cpu_devices:
        jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    if options.compilation_cache == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    try:
        directory = _make_cache(options.compilation_cache)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        reason = getattr(error, "strerror", None) or error
        problem = (
            f"--compilation_cache={options.compilation_cache} cannot be made or written"
        )
        remedy = "give a directory that can be written, or off"
        if options.compilation_cache != DeviceOptions().compilation_cache:
            raise UserError(f"{problem} ({reason}); {remedy}") from None
        note = f"note: compiled programs are not kept: {problem} ({reason}); {remedy}"
        print(note, file=sys.stderr)
        jax.config.update("jax_enable_compilation_cache", False)
        return
    # Programs that call oneDNN cannot be written; nothing is lost but time.
    warnings.filterwarnings("ignore", "Error writing persistent.*MemoryError")
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _make_cache(text: str) -> Path:
    directory = Path(text).expanduser()
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return directory


def merge_flags(given: str, deterministic: bool = False) -> str:
    """Add our flags to those that the user gave in XLA_FLAGS, which win."""
    flags = given.split()
    taken = {flag.partition("=")[0] for flag in flags}
    flags += [flag for flag in _CHOSEN if flag.partition("=")[0] not in taken]
    return " ".join([*flags, _DETERMINISTIC] if deterministic else flags)


def choose_compiler_options(
    kernels: str, mesh: Mesh, macs: float
) -> tuple[tuple[str, Any], ...]:
    """Choose the options with which a training program is compiled.

    Args:
        kernels: of `--cpu_kernels`.
        macs: multiply-accumulates of an epoch's forward passes.

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
