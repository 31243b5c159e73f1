"""What the machine can do: multiply-accumulates and bytes a second, measured."""

from collections.abc import Callable

import flags  # noqa: F401
import jax
import jax.numpy as jnp
from clocks import CLOCKS

from cnn.runtime import devices, xla
from cnn.runtime.options import DeviceOptions

_REPEATS = 5


def measure_peak(precision: str = "float32", clock: str = "wall") -> float:
    """Measure the multiply-accumulates a second of a square matrix product.

    Args:
        precision: what the product is computed in, as `--precision`.
        clock: of `CLOCKS`.

    Returns:
        Of one device; on CPU, of all cores that are one device.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = 2048 if on_cpu else 8192
    dtype = devices.get_dtype(DeviceOptions(precision=precision))
    # Not constants, on which a chip may run faster than on anything real.
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    mesh = devices.make_mesh("data:1")
    options = xla.choose_compiler_options("auto", mesh, float("inf"))
    product = jax.jit(jnp.matmul, compiler_options=dict(options))
    return size**3 / _take_best(lambda: product(a, a), clock)


def measure_bandwidth(megabytes: int = 512, clock: str = "wall") -> float:
    """Measure the bytes a second that are read and written by scaling an array."""
    a = jnp.ones((megabytes * 2**18,), jnp.float32)
    scale = jax.jit(lambda x: 2 * x)
    return 2 * a.nbytes / _take_best(lambda: scale(a), clock)


def _take_best(function: Callable[[], jax.Array], clock: str) -> float:
    """Return the seconds of the fastest call, after one that compiles."""
    best = float("inf")
    for number in range(_REPEATS + 1):
        started = CLOCKS[clock]()
        function().block_until_ready()
        if number:
            best = min(best, CLOCKS[clock]() - started)
    return best
