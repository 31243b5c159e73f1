"""Devices: compiler settings, the mesh, how arrays lie on it, several processes.

`configure` comes before the first device call; XLA reads its flags once, when the
backend opens.
"""

import dataclasses
import os
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cnn.devices.flags import merge_flags
from cnn.devices.kernels import KERNELS, choose_compiler_options
from cnn.devices.mesh import (
    check_batch_size,
    describe_device,
    gather,
    make_mesh,
    place_state,
    put,
    replicated,
    split_batches,
    split_leaves,
)
from cnn.errors import UserError
from cnn.options import option

__all__ = [
    "KERNELS",
    "DeviceOptions",
    "check_batch_size",
    "check_jax_version",
    "choose_compiler_options",
    "configure",
    "describe_device",
    "gather",
    "get_dtype",
    "make_mesh",
    "merge_flags",
    "place_state",
    "put",
    "replicated",
    "split_batches",
    "split_leaves",
]

OLDEST_JAX = (0, 11, 2)


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """How the devices compute."""

    precision: str = option(
        "float32",
        "what layers compute in; parameters, statistics and losses stay float32",
        choices=("float32", "bfloat16"),
    )
    cpu_devices: int = option(
        0,
        "virtual devices the CPU is split into, as for --executor=shard; 0: as jax "
        "has it",
        within="[0, 1024]",
        changes_run=False,
    )
    mesh: str = option(
        "",
        "train, sweep, evaluate: devices as data:N, over which batches are split, or "
        "data:N,model:M, which splits parameters and optimizer state over M as well; "
        "empty: all devices on data",
        changes_run=False,
    )
    cpu_kernels: str = option(
        "auto",
        "what computes the convolutions and matrix products of training on CPU: xla, "
        "onednn (faster, but compiled anew at each start; one device only), or auto "
        "(onednn where an epoch is long enough for it)",
        choices=KERNELS,
    )
    deterministic: bool = option(
        False, "only operations whose result never varies (GPU; slower)"
    )
    compilation_cache: str = option(
        "~/.cache/cnn-jax",
        "directory in which compiled programs are kept for the next start, or off",
        changes_run=False,
    )


def check_jax_version(version: str = jax.__version__) -> None:
    """Refuse a jax whose results are wrong.

    Raises:
        UserError: older than 0.11.2, naming the remedy.
    """
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if numbers < OLDEST_JAX:
        raise UserError(
            f"jax {version} is too old: before 0.11.2 its CPU backend returns wrong "
            "sums (jax issue 39103). Use Python 3.12 or newer and run: "
            "pip install -r requirements.txt"
        )


def configure(options: DeviceOptions) -> None:
    """Set compiler flags and the compilation cache, before the first device call.

    Args:
        options: the device options.

    Raises:
        UserError: the cache directory cannot be written.
    """
    check_jax_version()
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = merge_flags(given, options.deterministic)
    if options.cpu_devices:
        jax.config.update("jax_num_cpu_devices", options.cpu_devices)
    if options.compilation_cache == "off":
        jax.config.update("jax_enable_compilation_cache", False)
        return
    directory = Path(options.compilation_cache).expanduser()
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--compilation_cache={directory} cannot be made ({error.strerror}); "
            "give a directory that can be written, or off"
        ) from None
    # Programs that call oneDNN cannot be written; nothing is lost but time.
    warnings.filterwarnings("ignore", "Error writing persistent.*MemoryError")
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def get_dtype(options: DeviceOptions) -> Any:
    """Return the type that layers compute in."""
    return jnp.bfloat16 if options.precision == "bfloat16" else jnp.float32
