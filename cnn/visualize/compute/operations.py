"""What operations between and inside modules are called, and of which kind they are.

An operation is one of a traced function: `jax.extend.core.JaxprEqn`.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from jax.extend import core

from cnn.visualize.compute import receptive_field

# What functions of jax.nn are called, and their primitives.
ACTIVATIONS = {
    "relu": "ReLU",
    "relu6": "ReLU6",
    "gelu": "GELU",
    "silu": "SiLU",
    "elu": "ELU",
    "leaky_relu": "leaky ReLU",
    "sigmoid": "sigmoid",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "hard_silu": "hard SiLU",
    "hard_sigmoid": "hard sigmoid",
    "erf": "erf",
    "erfc": "erf",
}


def get_name(eqn: core.JaxprEqn) -> str:
    """Return the name of the function that is called, or of the operation."""
    kind = eqn.primitive.name
    return eqn.params["name"] if kind in ("jit", "pjit") else kind


def list_operations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """Yield all operations, those of calls in their place."""
    for eqn in jaxpr.eqns:
        body = receptive_field.get_body(eqn)
        yield from list_operations(body) if body else (eqn,)


def name_kernel(eqns: Iterable[core.JaxprEqn], kernel: Any) -> tuple[str, str]:
    """Return the kind and the title of what multiplies an image with a kernel."""
    if kernel.ndim > 4:
        size, width = "×".join(map(str, kernel.shape[-4:-2])), kernel.shape[-1]
        return "convolution", f"locally connected {size}, {width}"
    for eqn in eqns:
        if eqn.primitive.name == "conv_general_dilated":
            return "convolution", _title_convolution(eqn)
    return "dense", f"dense, {kernel.shape[-1]}"


def name_operation(eqn: core.JaxprEqn) -> tuple[str, str] | None:
    """Return the kind and the title of an operation between modules, if it is one."""
    name, kind = ACTIVATIONS.get(get_name(eqn)), eqn.primitive.name
    if name:
        return "activation", name
    what = "max" if kind.endswith("max") else "average"
    if kind in ("reduce_window_max", "reduce_window_sum"):
        window, strides = eqn.params["window_dimensions"], eqn.params["window_strides"]
        if max(window[1:-1]) > 1:
            size = "×".join(map(str, window[1:-1]))
            return "pooling", f"{what} pool {size}{_title_stride(strides[1:-1])}"
        return ("normalisation", "local response norm") if window[-1] > 1 else None
    if kind in ("reduce_max", "reduce_sum") and eqn.params["axes"] == (1, 2):
        return "pooling", f"global {what}"
    return ("pooling", "adaptive average pool") if kind == "dot_general" else None


def name_move(eqn: core.JaxprEqn) -> tuple[str, str] | None:
    """Return the kind and the title of what only moves values; None of what does not.

    The kind is `order` (of reshapes and transpositions), `flatten`, `pad` or `slice`.
    """
    kind, shape = eqn.primitive.name, tuple(eqn.outvars[0].aval.shape[1:])
    if kind in ("reshape", "transpose", "rev", "gather"):
        return "order" if len(shape) > 1 else "flatten", kind
    if kind == "pad":
        grows = "channels" if eqn.params["padding_config"][-1] != (0, 0, 0) else "edges"
        return "pad", f"pad {grows} with zeros"
    if kind != "slice":
        return None
    strides = eqn.params["strides"] or (1,)
    if max(strides) > 1:
        number = {2: "2nd", 3: "3rd"}.get(max(strides), f"{max(strides)}th")
        return "slice", f"every {number} pixel"
    before, first = eqn.invars[0].aval.shape[-1], eqn.params["start_indices"][-1]
    if shape[-1] < before:
        return "slice", name_channels(first, shape[-1])
    return "slice", "crop"


def name_channels(first: int, count: int) -> str:
    """Name some neighbouring channels, counted from 1."""
    return f"channels {first + 1}–{first + count}"


def name_order(before: tuple[int, ...], after: tuple[int, ...]) -> str:
    """Name what has become of a shape by reshapes and transpositions."""
    if before == after:
        return "shuffle"
    if len(after) == 1:
        return "flatten"
    if _is_by_blocks(before, after):
        return "space to depth"
    return "depth to space" if _is_by_blocks(after, before) else "reshape"


def _is_by_blocks(large: tuple[int, ...], small: tuple[int, ...]) -> bool:
    """Return whether blocks of pixels of one shape may be the pixels of another."""
    if len(large) != 3 or len(small) != 3 or large[2] == 0:
        return False
    side = large[0] // small[0]
    return large == (side * small[0], side * small[1], small[2] // side**2)


def _title_convolution(eqn: core.JaxprEqn) -> str:
    params, (image, kernel) = eqn.params, (x.aval.shape for x in eqn.invars)
    outputs, _, *sides = params["dimension_numbers"].rhs_spec
    inputs = image[params["dimension_numbers"].lhs_spec[1]]
    groups, width = params["feature_group_count"], kernel[outputs]
    is_depthwise = groups == inputs > 1
    title = "depthwise conv " if is_depthwise else "conv "
    title += "×".join(str(kernel[axis]) for axis in sides) + f", {width}"
    title += _title_stride(params["window_strides"])
    if max(params["rhs_dilation"]) > 1:
        title += f", dilated {max(params['rhs_dilation'])}"
    return title + (f", {groups} groups" if groups > 1 and not is_depthwise else "")


def _title_stride(strides: Sequence[int]) -> str:
    if max(strides) == 1:
        return ""
    return f", /{'×'.join(map(str, dict.fromkeys(strides)))}"
