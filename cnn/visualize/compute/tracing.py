"""Models as their traced operations, evaluated again with one thing changed.

`function` maps scaled images float32 [N, H, W, C] to (logits [N, K], features by
stage). What is returned here is such a function too; all are pure and may be compiled
and differentiated.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

_JIT = ("jit", "pjit")

Function = Callable[[jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def guide(function: Function) -> Function:
    """Replace the gradient of each ReLU by the guided one.

    It passes only where the ReLU's input and the gradient that arrives are positive,
    so that what remains are the pixels that excite a feature, not those that hold it
    down. Other activations keep their gradient.

    Source: Springenberg et al. 2015, section 3.4, https://arxiv.org/abs/1412.6806
    """

    def guided(images: jax.Array) -> Any:
        closed, tree = _trace(function, images)
        return tree.unflatten(_evaluate(closed, [images], _GUIDED, {}))

    return guided


def perturb(function: Function) -> Callable[..., Any]:
    """Make features an argument: a gradient with respect to it is one to a stage.

    Returns:
        A function of images and arrays by stage, that are added to the stage's
        features where they arise, so that everything after it sees the sum.
    """

    def perturbed(images: jax.Array, additions: Mapping[str, jax.Array]) -> Any:
        closed, tree = _trace(function, images)
        _, features = tree.unflatten(closed.jaxpr.outvars)
        added = {features[name]: value for name, value in additions.items()}
        return tree.unflatten(_evaluate(closed, [images], {}, added))

    return perturbed


def find_thresholded(function: Function, images: jax.Array) -> tuple[str, ...]:
    """Return the stages whose features are what a ReLU let through.

    Args:
        images: or their shape and dtype.
    """
    closed, tree = _trace(function, images)
    _, features = tree.unflatten(closed.jaxpr.outvars)
    made = _find_relus(closed)
    return tuple(name for name, var in features.items() if var in made)


def expose(function: Function) -> Function:
    """Return, as features, what enters the ReLU at the end of a stage.

    A stage that does not end in a ReLU keeps its own.
    """

    def exposed(images: jax.Array) -> Any:
        closed, tree = _trace(function, images)
        entered = _find_relus(closed)
        outputs = [entered.get(var, var) for var in closed.jaxpr.outvars]
        return tree.unflatten(_evaluate(closed, [images], {}, {}, outputs))

    return exposed


def _trace(function: Function, images: Any) -> tuple[core.ClosedJaxpr, Any]:
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(images)
    return closed, jax.tree.structure(shapes)


def _find_relus(closed: core.ClosedJaxpr) -> dict[core.Var, core.Var]:
    """Return what enters each ReLU by what leaves it."""
    return {e.outvars[0]: e.invars[0] for e in closed.jaxpr.eqns if _name(e) in _GUIDED}


def _evaluate(
    closed: core.ClosedJaxpr,
    arguments: list[jax.Array],
    rules: Mapping[str, Callable[[jax.Array], jax.Array]],
    added: Mapping[core.Var, jax.Array],
    outputs: list[core.Var] | None = None,
) -> list[jax.Array]:
    """Evaluate traced operations, those that have a rule by it.

    Args:
        closed: the operations with their constants.
        arguments: what they are applied to.
        rules: by the name of a function of one array, what stands in for it.
        added: what is added to intermediate results.
        outputs: which results are wanted, if not the function's own.
    """
    jaxpr = closed.jaxpr
    values = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= zip(jaxpr.invars, arguments, strict=True)

    def read(var: Any) -> Any:
        return var.val if isinstance(var, core.Literal) else values[var]

    for eqn in jaxpr.eqns:
        inputs = [read(var) for var in eqn.invars]
        if _name(eqn) in rules:
            results = [rules[_name(eqn)](*inputs)]
        elif eqn.primitive.name in _JIT:
            results = _evaluate(eqn.params["jaxpr"], inputs, rules, added)
        else:
            params, functions = eqn.primitive.get_bind_params(eqn.params), ()
            if isinstance(params, tuple):  # before jax 0.12
                functions, params = params
            results = eqn.primitive.bind(*functions, *inputs, **params)
            results = results if eqn.primitive.multiple_results else [results]
        for var, value in zip(eqn.outvars, results, strict=True):
            values[var] = value + added[var] if var in added else value
    return [read(var) for var in outputs or jaxpr.outvars]


def _name(eqn: core.JaxprEqn) -> str:
    """Return the name of the function that an operation calls, empty for none."""
    if eqn.primitive.name == "custom_jvp_call":
        inner = eqn.params["call_jaxpr"].jaxpr.eqns
        return _name(inner[0]) if len(inner) == 1 else ""
    return eqn.params.get("name", "") if eqn.primitive.name in _JIT else ""


def _make_guided(most: float) -> Callable[[jax.Array], jax.Array]:
    """Make a ReLU that stops at `most` and has the guided gradient."""

    @jax.custom_vjp
    def clip(x: jax.Array) -> jax.Array:
        return jnp.clip(x, 0, most)

    def forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return clip(x), (x > 0) & (x < most)

    def backward(passes: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
        return (jnp.where(passes, jnp.maximum(gradient, 0), 0),)

    clip.defvjp(forward, backward)
    return clip


_GUIDED = {"relu": _make_guided(math.inf), "relu6": _make_guided(6)}
# What is made of a ReLU6 without being one keeps its gradient.
_GUIDED |= {"hard_silu": jax.nn.hard_silu, "hard_sigmoid": jax.nn.hard_sigmoid}
