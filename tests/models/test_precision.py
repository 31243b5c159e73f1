"""What bfloat16 compute is computed in: layers in bfloat16, everything else float32."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from every_model import LARGER, find_size, mark_slow

from cnn.models.variables import flatten_paths
from cnn.training import steps
from cnn.training.state import create_state

FLOAT32 = jnp.dtype("float32")


def list_equations(jaxpr):
    """List all equations of a jaxpr, those inside others too."""
    found = []
    for equation in jaxpr.eqns:
        found.append(equation)
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += list_equations(inner)
    return found


def list_types(equations, names):
    return {e.invars[0].aval.dtype for e in equations if e.primitive.name in names}


def list_softmax(equations):
    """List the equations on logits [4, 4]."""
    return [e for e in equations if e.invars and e.invars[0].aval.shape == (4, 4)]


def trace(make_structure, make_numbers, name):
    """Trace a training step; return its equations, new state, sums and metrics, and
    the type of what each layer returns."""
    numbers = make_numbers(ema_decay=0.9, optimizer="adam", dropout_rate=0.5)
    options = {"optimizer": "adam", "ema_decay": 0.9}
    structure = make_structure(model=name, dtype=jnp.bfloat16, **options)
    shape = (find_size(name), find_size(name), 3)
    create = functools.partial(create_state, structure.model, shape, structure.rule)
    state = jax.eval_shape(create, numbers)
    batch = {
        "images": jax.ShapeDtypeStruct((4, *shape), jnp.uint8),
        "labels": jax.ShapeDtypeStruct((4,), jnp.int32),
        "ids": jax.ShapeDtypeStruct((4,), jnp.int32),
    }
    made = {}

    def note(call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            made["/".join(context.module.path)] = output.dtype
        return output

    def step(state, batch, numbers):
        with nn.intercept_methods(note):
            return steps.train_step(structure, state, batch, numbers)

    closed, (after, *results) = jax.make_jaxpr(step, return_shape=True)(
        state, batch, numbers
    )
    return list_equations(closed.jaxpr), after, results, made


@pytest.mark.parametrize("name", mark_slow(LARGER))
def test_layers_are_bfloat16_and_the_rest_float32(make_structure, make_numbers, name):
    equations, after, results, made = trace(make_structure, make_numbers, name)
    # Activations: what every layer and block returns.
    assert set(made.values()) == {jnp.dtype("bfloat16")}, made
    products = list_types(equations, ("conv_general_dilated",))
    assert products <= {jnp.dtype("bfloat16")}
    # Parameters, running statistics, moments, averages; losses and metrics.
    for path, leaf in flatten_paths((after, results)).items():
        assert leaf.dtype in (FLOAT32, jnp.dtype("int32")), path
    # Normalisation divides by a root, the softmax takes exponentials and logarithms.
    assert list_types(equations, ("rsqrt", "sqrt", "log")) == {FLOAT32}
    assert list_types(list_softmax(equations), ("exp",)) == {FLOAT32}


def test_a_softmax_in_bfloat16_would_be_seen(make_structure, make_numbers, monkeypatch):
    def low(logits, targets, **reduce):
        logs = jax.nn.log_softmax(logits.astype(jnp.bfloat16))
        return -jnp.sum(targets * logs, axis=-1).astype(jnp.float32)

    monkeypatch.setitem(steps.losses.LOSSES, "softmax", low)
    equations, *_ = trace(make_structure, make_numbers, "mlp")
    found = list_types(list_softmax(equations), ("exp",))
    assert jnp.dtype("bfloat16") in found
