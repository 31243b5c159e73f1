"""JAX settings that change numbers or stop the program, taken from the environment.

A run is the same run under whatever `JAX_…` variables a shell, a job's script or a
container's image has. Where devices are, what is cached, logged and checked stays the
environment's; `environment.py` records the rest. jax reads its variables when it is
imported, so this module imports it in functions alone.
"""

import os
import sys
import time
from typing import Any

# When the command began, as this is among the first that main.py imports: what
# --minutes counts from.
BEGAN = time.perf_counter()

# What the program was built with, each of these tried with another value: numbers
# changed in silence, or training ended in a traceback.
PINNED: dict[str, Any] = {
    # random numbers
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    # arithmetic
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_numpy_dtype_promotion": "standard",
    "jax_accurate_erf_inv": False,
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_allow_f16_reductions": True,
    # the compiler
    "jax_disable_most_optimizations": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_memory_fitting_level": "O2",
    "jax_compiler_enable_remat_pass": True,
    "jax_enable_pgle": False,
    # programs are compiled, and run
    "jax_disable_jit": False,
    "jax_no_execution": False,
    "jax_no_tracing": False,
    "jax_error_checking_behavior_nan": "ignore",
    "jax_error_checking_behavior_divide": "ignore",
    "jax_error_checking_behavior_oob": "ignore",
    "jax_transfer_guard": None,
    "jax_transfer_guard_host_to_device": None,
    "jax_transfer_guard_device_to_host": None,
    "jax_transfer_guard_device_to_device": None,
}
MISTAKEN = 2
_WORDS = {
    True: ("1", "true", "yes", "on", "y", "t"),
    False: ("0", "false", "no", "off", "n", "f"),
}


def pin() -> None:
    """Take the pinned settings from the environment; say which asked for another value.

    Once at the start of `main.py`, and before the first device call elsewhere.
    """
    for name, value in PINNED.items():
        variable = name.upper()
        text = os.environ.pop(variable, "")
        if not text:
            continue
        if "jax" in sys.modules:
            _set(name, value)
        if not _agrees(text, value):
            print(
                f"note: {variable}={text} is not used; every run has "
                f"{'the default' if value is None else value}",
                file=sys.stderr,
            )


def import_jax() -> None:
    """Import jax; leave with one line if a variable of its has no allowed value."""
    try:
        import jax  # noqa: F401
    except ValueError as error:
        print(
            f"error: {error}; correct that JAX_… variable of the environment, or "
            "unset it",
            file=sys.stderr,
        )
        raise SystemExit(MISTAKEN) from None


def _set(name: str, value: Any) -> None:
    import jax

    if name in jax.config.values:  # not every version of jax has each of them
        jax.config.update(name, value)


def _agrees(text: str, value: Any) -> bool:
    if isinstance(value, bool):
        return text.lower() in _WORDS[value]
    return text == str(value)
