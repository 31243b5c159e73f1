"""Which library computes the convolutions and matrix products of a program on CPU.

oneDNN is faster than what XLA chooses by itself (docs/performance.md), but programs
that call it cannot be kept in the compilation cache, and with several devices in one
process their collective operations and oneDNN wait for the same threads, for ever.
"""

from typing import Any

import jax
from jax.sharding import Mesh

from cnn.errors import UserError

KERNELS = ("auto", "xla", "onednn")
# An epoch of so many takes two cores about four seconds, compilation two to ten.
LEAST_MACS = 1e11
_OLDEST = (0, 12)
_ONEDNN = {
    "xla_cpu_experimental_onednn_custom_call": True,
    # XLA's own library, YNN, keeps the sums over pixels, which it is quick at.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
}


def choose_compiler_options(kernels: str, mesh: Mesh, macs: float) -> dict[str, Any]:
    """Choose the options with which a training program is compiled.

    Args:
        kernels: of `--cpu_kernels`.
        mesh: the devices.
        macs: multiply-accumulates of an epoch's forward passes.

    Returns:
        For `jax.jit(compiler_options=…)`; empty except for oneDNN.

    Raises:
        UserError: oneDNN was asked for where it cannot be.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    alone = mesh.size == 1 and jax.process_count() == 1
    knows = jax.__version_info__ >= _OLDEST
    if kernels == "onednn" and not (on_cpu and alone and knows):
        raise UserError(
            "--cpu_kernels=onednn needs a CPU as one device (--mesh=data:1) in one "
            "process, and jax 0.12 or newer; use auto"
        )
    large = kernels == "auto" and macs >= LEAST_MACS
    chosen = kernels == "onednn" or large
    return dict(_ONEDNN) if chosen and on_cpu and alone and knows else {}
