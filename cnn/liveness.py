"""How many bytes a program keeps at a time, counted on its jaxpr: nothing is compiled.

A compiler writes only some of a program's values to memory. Here, as in XLA, what is
computed element by element is written where a convolution, a product or a loop reads
it, and otherwise computed again by each reader; what is written lies there from the
step that writes it to the last that reads it, in the order of the jaxpr.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.extend.core import Literal

from cnn import jaxprs

# Computing from more than so many buffers again and again would take too long.
_MOST_SOURCES = 3
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


@dataclasses.dataclass(eq=False)
class _Buffer:
    """Bytes in memory, from the step that writes them to the last that reads them."""

    size: int
    born: int
    dies: int


@dataclasses.dataclass(eq=False)
class _Value:
    """What a variable is: in memory, or to be computed from buffers that are.

    Attributes:
        size: its bytes.
        buffers: where it lies, or what it is computed from; empty for arguments.
        is_written: whether it lies in memory.
        sources: of what was computed element by element, the buffers it came from.
        branch: of the platform's index, the branch that it chooses.
    """

    size: int
    buffers: tuple[_Buffer, ...] = ()
    is_written: bool = True
    sources: tuple[_Buffer, ...] = ()
    branch: int = 0


def count_temporary_bytes(jaxpr: Any, platform: str) -> int:
    """Count the most bytes that a program keeps at a time besides its arguments.

    Args:
        jaxpr: closed, as of `jax.jit(f).trace(…).jaxpr`.
        platform: `cpu`, `gpu` or `tpu`, whose branch of a program is counted.

    Returns:
        The bytes. Results that a loop has carried from the arguments on lie in them.
    """
    counter = _Counter(platform)
    values = [_Value(jaxprs.count_bytes(var.aval)) for var in jaxpr.jaxpr.invars]
    for value in counter.walk(jaxpr.jaxpr, values):
        counter.write(value)
        counter.read(value)
    return counter.find_peak()


class _Counter:
    """Walks through a program step by step."""

    def __init__(self, platform: str) -> None:
        self._platform = platform
        self._time = 0
        self._buffers: list[_Buffer] = []

    def walk(
        self, jaxpr: Any, values: Sequence[_Value], results: Sequence[Any] = ()
    ) -> list[_Value]:
        """Go through a jaxpr, but for what nobody needs, and return its results.

        Args:
            jaxpr: not closed.
            values: of its arguments.
            results: the variables that take its results, None where none does; all
                are needed when left out.
        """
        needed = jaxprs.find_needed(jaxpr, results or jaxpr.outvars)
        known = dict(zip(jaxpr.invars, values, strict=True))
        known |= {var: _Value(jaxprs.count_bytes(var.aval)) for var in jaxpr.constvars}

        def look_up(var: Any) -> _Value:
            return _Value(0) if isinstance(var, Literal) else known[var]

        for equation in jaxpr.eqns:
            taken = [var if var in needed else None for var in equation.outvars]
            if any(taken):
                inputs = [look_up(var) for var in equation.invars]
                found = self._run(equation, inputs, taken)
                known |= dict(zip(equation.outvars, found, strict=True))
        return [
            look_up(var) if result is not None else _Value(0)
            for var, result in zip(jaxpr.outvars, results or jaxpr.outvars, strict=True)
        ]

    def read(self, value: _Value) -> None:
        """Note that a value is read now."""
        for buffer in value.buffers:
            buffer.dies = max(buffer.dies, self._time)

    def write(self, value: _Value) -> None:
        """Let a value lie in memory from the next step on; its sources are read now."""
        if value.is_written:
            return
        self.read(value)
        self._time += 1
        buffer = self._allocate(value.size)
        # XLA computes it as soon as what it comes from is there.
        buffer.born = max((b.born + 1 for b in value.buffers), default=self._time)
        value.buffers, value.is_written = (buffer,), True

    def carry(self, before: list[_Value], after: list[_Value]) -> None:
        """Write a loop's next values, each in place once no other needs the last."""
        readers = collections.Counter(b for value in after for b in set(value.buffers))
        left = list(zip(before, after, strict=False))
        while left:
            # Where each waits for another, one of them is written elsewhere.
            ready = [pair for pair in left if not _is_needed(readers, *pair)]
            for pair in ready or left[-1:]:
                readers.subtract(set(pair[1].buffers))
                left.remove(pair)
            if not ready:
                self.write(pair[1])
        for value in after:
            self.read(value)

    def find_peak(self) -> int:
        """Return the most bytes that lay in memory at a time."""
        changes = np.zeros(self._time + 2, np.int64)
        for buffer in self._buffers:
            changes[buffer.born] += buffer.size
            changes[buffer.dies + 1] -= buffer.size
        return int(np.cumsum(changes).max())

    def _allocate(self, size: int) -> _Buffer:
        buffer = _Buffer(size, self._time, self._time)
        self._buffers.append(buffer)
        return buffer

    def _run(
        self, equation: Any, inputs: list[_Value], taken: list[Any]
    ) -> list[_Value]:
        """Return the values of an equation's results."""
        name, params = equation.primitive.name, equation.params
        sizes = [jaxprs.count_bytes(var.aval) for var in equation.outvars]
        if name == "reshape" and inputs[0].sources:
            # XLA computes it apart in its other shape.
            sources = inputs[0].sources
            return [_Value(sizes[0], sources, False, sources)]
        if name in jaxprs.VIEWS:
            return inputs[: len(sizes)]
        if name in jaxprs.ELEMENTWISE:
            return [self._compute(inputs, size) for size in sizes]
        if name == "platform_index":
            return [_Value(0, branch=jaxprs.choose_branch(params, self._platform))]
        if name == "cond":
            branch = params["branches"][inputs[0].branch].jaxpr
            return self.walk(branch, inputs[1:], taken)
        inner = next((params[key] for key in _INNER if key in params), None)
        if name == "scan" or name == "while":
            return self._loop(equation, inputs, sizes)
        if inner is not None:
            if name in jaxprs.BARRIERS:
                inputs = self._fix(inputs)
            return self.walk(getattr(inner, "jaxpr", inner), inputs, taken)
        if name in jaxprs.BARRIERS:
            return self._fix(inputs)
        for value in inputs:
            if name not in jaxprs.REDUCTIONS:
                self.write(value)
        self._time += 1
        for value in inputs:
            self.read(value)
        if name in ("dynamic_update_slice", "scatter", "scatter-add"):
            return inputs[:1]
        return [_Value(size, (self._allocate(size),)) for size in sizes]

    def _fix(self, inputs: list[_Value]) -> list[_Value]:
        """Write values and forget what they were computed from."""
        for value in inputs:
            self.write(value)
            self.read(value)
        return [_Value(value.size, value.buffers) for value in inputs]

    def _compute(self, inputs: list[_Value], size: int) -> _Value:
        """Return a value computed element by element, written if from too many."""
        found = {id(b): b for value in inputs for b in value.buffers}
        sources = tuple(found.values())
        value = _Value(size, sources, False, sources)
        large = [b for b in sources if 4 * b.size >= size]
        if len(large) > _MOST_SOURCES:
            self.write(value)
        return value

    def _loop(
        self, equation: Any, inputs: list[_Value], sizes: list[int]
    ) -> list[_Value]:
        """Go through a loop's body once; what it carries stays where it lies."""
        params = equation.params
        body = params["jaxpr" if "jaxpr" in params else "body_jaxpr"].jaxpr
        inputs = inputs[params.get("cond_nconsts", 0) :]
        carried = jaxprs.count_alike(equation.outvars, body.outvars)
        # Constants and what is carried; then what a scan goes through.
        constants = (
            jaxprs.count_alike(equation.invars[-len(inputs) :], body.invars) - carried
        )
        for value in inputs:
            self.write(value)
        self._time += 1
        stacked = [_Value(size, (self._allocate(size),)) for size in sizes[carried:]]
        counter = _Counter(self._platform)
        # Of what enters, no bytes but who reads it is noted.
        own = [_Value(0, (_Buffer(0, 0, 0),)) for _ in body.invars]
        results = counter.walk(body, own)
        counter.carry(own[constants : constants + carried], results)
        self._allocate(counter.find_peak())
        for value in [*inputs, *stacked]:
            self.read(value)
        return inputs[constants : constants + carried] + stacked


def _is_needed(readers: Mapping[_Buffer, int], old: _Value, value: _Value) -> bool:
    """Say whether others than its next value read a value that a loop carries."""
    return readers[old.buffers[0]] > (old.buffers[0] in value.buffers)
