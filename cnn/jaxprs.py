"""What a compiler does with the equations of a jaxpr, by the names of primitives."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal

# Computed again by each reader, unless one of them needs it in memory.
ELEMENTWISE = frozenset(
    "abs add add_any and bitcast_convert_type broadcast_in_dim ceil clamp concatenate "
    "convert_element_type cos div dynamic_slice eq erf erf_inv erfc exp exp2 expm1 "
    "floor ge gt integer_pow iota is_finite le log log1p logistic lt max min mul ne "
    "neg nextafter not or pad pow random_bits random_fold_in random_seed random_unwrap "
    "random_wrap reduce_precision rem rev round rsqrt select_n shift_left "
    "shift_right_arithmetic shift_right_logical sign sin slice split sqrt square stack "
    "sub tanh xor".split()
)
# Read what is computed element by element without its being written.
REDUCTIONS = frozenset(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum "
    "reduce_xor".split()
)
# Another name for the same bytes.
VIEWS = frozenset(
    "copy expand_dims reshape sharding_constraint squeeze stop_gradient "
    "transpose".split()
)
# What enters is written, and known no more for what it was computed from.
BARRIERS = frozenset(("optimization_barrier", "checkpoint", "remat2"))


def find_needed(jaxpr: Any, results: Sequence[Any]) -> set[Any]:
    """Find the variables on which the results that somebody takes depend."""
    pairs = zip(jaxpr.outvars, results, strict=True)
    needed = {a for a, b in pairs if b is not None and not isinstance(a, Literal)}
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            needed |= {v for v in equation.invars if not isinstance(v, Literal)}
    return needed


def count_alike(outside: Sequence[Any], inside: Sequence[Any]) -> int:
    """Count the variables that are the same in a loop's body, not a part of them."""
    pairs = zip(outside, inside, strict=True)
    return sum(a.aval.shape == b.aval.shape for a, b in pairs)


def choose_branch(params: dict[str, Any], platform: str) -> int:
    """Return the number of the branch that a platform takes."""
    names = {"gpu": ("gpu", "cuda", "rocm")}.get(platform, (platform,))
    for number, platforms in enumerate(params["platforms"]):
        if platforms is None or set(names) & set(platforms):
            return number
    return 0


def count_bytes(shape: Any) -> int:
    """Count the bytes of an abstract array; a key's or token's count as none."""
    try:
        return int(shape.size) * np.dtype(shape.dtype).itemsize
    except (TypeError, AttributeError):
        return 0
