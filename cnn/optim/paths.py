"""Which paths a pattern means, and in which order a model runs its layers.

Paths are those of parameters without their collection: `stage2_block1/conv1/kernel`.
A layer is the first part of a path: `stage2_block1`. A `flag` is what gave a pattern,
for messages.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import jax

from cnn.errors import UserError
from cnn.models.variables import is_kernel

_SHOWN = 4


def write_path(path: Any) -> str:
    """Return the path of a leaf that jax found, as `stage2_block1/conv1/kernel`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def mark_kernels(params: Any) -> Any:
    """Return a tree of bools: which leaves are kernels, as `variables.is_kernel`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: is_kernel(write_path(path)), params
    )


def list_input_axes(kernel: jax.Array) -> tuple[int, ...]:
    """Return the axes over which an output of a kernel sums its inputs.

    A kernel is [I, O] or [S, S, I, O]; what stands before them are places.
    """
    last = kernel.ndim - 1
    return tuple(range(max(0, last - 3), last))


def matches(pattern: str, path: str) -> bool:
    """Return whether a pattern means a path, or its beginning before `/`, `_`, `.`."""
    return re.fullmatch(rf"(?:{pattern})(?:[/_.].*)?", path) is not None


def select(patterns: Iterable[str], paths: Collection[str], flag: str) -> set[str]:
    """Return the paths that any of the patterns means; each must mean one at least.

    Raises:
        UserError: a pattern is no regular expression or means nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            mine = {path for path in paths if matches(pattern, path)}
        except re.error as error:
            raise UserError(
                f"--{flag}={pattern} is no regular expression: {error}"
            ) from None
        if not mine:
            raise UserError(
                f"--{flag}={pattern} matches nothing{suggest_paths(pattern, paths)}"
            )
        found |= mine
    return found


def suggest_paths(pattern: str, paths: Iterable[str]) -> str:
    """Return `; did you mean …?` with the paths most like a pattern."""
    known: dict[str, None] = {}
    for path in paths:
        parts = path.split("/")
        known |= {"/".join(parts[:count]): None for count in range(1, len(parts) + 1)}
    plain = re.sub(r"[^\w/]", "", pattern)
    near = [path for path in known if plain and f"/{plain}/" in f"/{path}/"]
    near = near or difflib.get_close_matches(plain, known, n=_SHOWN, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near[:_SHOWN])}?"
    layers = [path for path in known if "/" not in path]
    return f"; the layers are {', '.join(layers)}"


def order_layers(run_order: Iterable[str], paths: Iterable[str]) -> tuple[str, ...]:
    """Return a model's layers in the order in which it runs them.

    Args:
        run_order: paths of its modules with parameters, as they run.
        paths: of its parameters; those of no layer, right in the model, come before
            its `head`, as in locally_connected.
    """
    layers = [path.split("/")[0] for path in run_order if path]
    loose = [name for path in paths if (name := path.split("/")[0]) not in layers]
    return tuple(dict.fromkeys([*loose, *layers]))


def list_through(layers: Sequence[str], stage: str, flag: str) -> tuple[str, ...]:
    """Return the layers up to the last one of a stage.

    Args:
        stage: a layer's name or the beginning of several before a `_`.

    Raises:
        UserError: there is no such stage.
    """
    inside = [i for i, name in enumerate(layers) if f"{name}_".startswith(f"{stage}_")]
    if not inside:
        raise UserError(
            f"--{flag}={stage} is no stage{suggest_paths(stage, list_stages(layers))}"
        )
    return tuple(layers[: inside[-1] + 1])


def list_stages(layers: Iterable[str]) -> tuple[str, ...]:
    """Return the layers' names before their first `_`, each once, in order."""
    return tuple(dict.fromkeys(name.split("_")[0] for name in layers))


def count_depths(layers: Sequence[str]) -> dict[str, int]:
    """Count how far each layer lies below the last one, which is at 0.

    A convolution and its normalisation (`stage1_conv2`, `stage1_norm2`) are one layer,
    and so are a layer and its auxiliary classifier (`stage2_block1_aux`).
    """
    units = [re.sub(r"_((conv|norm)\d*|aux)$", "", name) for name in layers]
    order = list(dict.fromkeys(units))
    return {
        name: len(order) - 1 - order.index(unit)
        for name, unit in zip(layers, units, strict=True)
    }
