"""Random bits of many draws, computed in one loop.

XLA on CPU compiles the hash behind each draw of `jax.random` on its own, 0.2 s of a
core each, so that a model's initial weights took longer to compile than to train. Here
the hash of all draws is one loop over blocks of numbers; the bits are the same, and
what is made of them is computed as before.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.random import threefry_2x32

# Numbers hashed at a time; a draw takes whole blocks.
_BLOCK = 16384
_BITS = 32


@dataclasses.dataclass(frozen=True, eq=False)
class _Unknown:
    """What a step computes."""


@dataclasses.dataclass(frozen=True)
class _Step:
    """An operation; its inputs, known or what other steps compute; and its outputs."""

    operation: core.JaxprEqn
    inputs: list[Any]
    outputs: list[_Unknown]


_Found = dict[_Unknown, Any]


def draw_together(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute the random bits of all draws of a function in one loop.

    Args:
        function: pure, of trees of arrays; its keys are of jax's default kind.

    Returns:
        A function with the same results, bit by bit; to be called in a jitted one.
    """

    @functools.wraps(function)
    def call(*arguments: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
        steps: list[_Step] = []
        results = _flatten(traced, jax.tree.leaves(arguments), steps)
        left, found = _select_needed(steps, results), {}
        while left:
            left = _take_known(left, found)
            ready = [step for step in left if _is_known(step, found)]
            for kind, compute in _TOGETHER.items():  # keys before what is drawn
                if of_kind := [step for step in ready if _get_kind(step) == kind]:
                    compute(of_kind, found)
                    break
        leaves = [_read(x, found) for x in results]
        return jax.tree.unflatten(jax.tree.structure(shapes), leaves)

    return call


def _flatten(
    traced: core.ClosedJaxpr, inputs: Iterable[Any], steps: list[_Step]
) -> list[Any]:
    """Append the steps of a traced function; calls that draw are opened.

    Returns:
        What it returns.
    """
    jaxpr = traced.jaxpr
    known = dict(zip(jaxpr.constvars, traced.consts, strict=True))
    known |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known[atom]

    for operation in jaxpr.eqns:
        own = [read(x) for x in operation.invars]
        inner = _get_inner(operation)
        if inner is not None and _has_draws(inner):
            outputs = _flatten(inner, own, steps)
        else:
            outputs = [_Unknown() for _ in operation.outvars]
            steps.append(_Step(operation, own, outputs))
        known |= dict(zip(operation.outvars, outputs, strict=True))
    return [read(x) for x in jaxpr.outvars]


def _get_inner(operation: core.JaxprEqn) -> core.ClosedJaxpr | None:
    """Return what a call of a jitted function calls; None of other operations."""
    # If jax renames it, draws within are computed one by one: tests/test_draws.py.
    is_call = operation.primitive.name in ("jit", "pjit")
    return operation.params["jaxpr"] if is_call else None


def _has_draws(traced: core.ClosedJaxpr) -> bool:
    for operation in traced.jaxpr.eqns:
        inner = _get_inner(operation)
        is_draw = operation.primitive.name in ("random_bits", "random_fold_in")
        if is_draw or (inner is not None and _has_draws(inner)):
            return True
    return False


def _select_needed(steps: list[_Step], results: list[Any]) -> list[_Step]:
    """Return the steps that results depend on, in their order."""
    needed = {x for x in results if isinstance(x, _Unknown)}
    selected = []
    for step in reversed(steps):
        if not needed.isdisjoint(step.outputs):
            selected.append(step)
            needed.update(x for x in step.inputs if isinstance(x, _Unknown))
    return selected[::-1]


def _take_known(steps: list[_Step], found: _Found) -> list[_Step]:
    """Take the steps whose inputs are known, but those that are computed together.

    Args:
        found: what steps have computed; added to.

    Returns:
        The steps that are left.
    """
    left = []
    for step in steps:
        if step.outputs[0] in found:
            continue
        if _get_kind(step) in _TOGETHER or not _is_known(step, found):
            left.append(step)
            continue
        primitive = step.operation.primitive
        params = primitive.get_bind_params(step.operation.params)
        # Before jax 0.12 with the functions that it takes.
        functions, params = params if isinstance(params, tuple) else ((), params)
        outputs = primitive.bind(
            *functions, *(_read(x, found) for x in step.inputs), **params
        )
        outputs = outputs if primitive.multiple_results else [outputs]
        found.update(zip(step.outputs, outputs, strict=True))
    return left


def _get_kind(step: _Step) -> str:
    """Return the name of an operation; empty of one whose draws are not 32 bits."""
    name, params = step.operation.primitive.name, step.operation.params
    is_single = not step.operation.invars[0].aval.shape if step.inputs else True
    if name in _TOGETHER and not is_single:
        return ""
    if name == "random_bits":
        is_usual = (
            params["bit_width"] == _BITS and math.prod(params["shape"]) < 2**_BITS
        )
        return name if is_usual else ""
    return name


def _is_known(step: _Step, found: _Found) -> bool:
    return all(not isinstance(x, _Unknown) or x in found for x in step.inputs)


def _read(number: Any, found: _Found) -> Any:
    return found[number] if isinstance(number, _Unknown) else number


def _fold_all(steps: list[_Step], found: _Found) -> None:
    """Fold numbers into keys as `jax.random.fold_in` does."""
    inputs = [[_read(x, found) for x in step.inputs] for step in steps]
    keys, numbers = zip(*inputs, strict=True)
    folded = jax.vmap(jax.random.fold_in)(jnp.stack(keys), jnp.stack(numbers))
    for number, step in enumerate(steps):
        found[step.outputs[0]] = folded[number]


def _draw_all(steps: list[_Step], found: _Found) -> None:
    """Draw uint32 bits as `jax.random.bits` does."""
    keys = [jax.random.key_data(_read(step.inputs[0], found)) for step in steps]
    shapes = [step.operation.params["shape"] for step in steps]
    sizes = [math.prod(shape) for shape in shapes]
    blocks = np.array([-(-size // _BLOCK) for size in sizes])
    owners, ends = np.repeat(np.arange(len(keys)), blocks), np.cumsum(blocks)
    first = (np.arange(len(owners)) - np.repeat(ends - blocks, blocks)) * _BLOCK
    data = jnp.stack(keys)

    def draw_block(place: tuple[jax.Array, jax.Array]) -> jax.Array:
        owner, first = place
        counts = first + jnp.arange(_BLOCK, dtype=jnp.uint32)
        halves = jnp.concatenate([jnp.zeros_like(counts), counts])
        high, low = threefry_2x32(data[owner], halves).reshape(2, _BLOCK)
        return high ^ low

    drawn = jax.lax.map(draw_block, (owners, first.astype(np.uint32))).reshape(-1)
    starts = (ends - blocks) * _BLOCK
    for step, start, size, shape in zip(steps, starts, sizes, shapes, strict=True):
        found[step.outputs[0]] = drawn[start : start + size].reshape(shape)


_TOGETHER = {"random_fold_in": _fold_all, "random_bits": _draw_all}
