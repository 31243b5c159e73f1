"""ReLUs that are written once for all that read them.

At the end of a residual block, the next block reads it twice, in its convolution and
its shortcut, and so does the gradient. A compiler that fuses it into its readers
computes it again in each, and the block's before it too, for it is a sum of them: in
resnet20 the third block's read four activations where two were needed.

The gradient reads what was written, too. Of `jax.nn.relu6` it reads the input: the
output of the normalisation before it was written beside its own.
"""

import jax
import jax.numpy as jnp
from jax import lax


@jax.jit
def relu(x: jax.Array) -> jax.Array:
    """Compute max(x, 0), so that readers and the gradient find it in memory.

    It equals `jax.nn.relu`, and its gradient that one's (0 at 0).
    """
    return _relu(x)


@jax.custom_vjp
def _relu(x: jax.Array) -> jax.Array:
    return lax.optimization_barrier(jnp.maximum(x, 0))


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = _relu(x)
    return y, y


def _backward(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where(y > 0, gradient, 0),)


_relu.defvjp(_forward, _backward)


@jax.jit
def relu6(x: jax.Array) -> jax.Array:
    """Compute min(max(x, 0), 6), whose gradient is 0 at 0 and at 6 as in PyTorch."""
    return _relu6(x)


@jax.custom_vjp
def _relu6(x: jax.Array) -> jax.Array:
    return lax.optimization_barrier(jnp.clip(x, 0, 6))


def _forward6(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = _relu6(x)
    return y, y


def _backward6(y: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    return (jnp.where((y > 0) & (y < 6), gradient, 0),)


_relu6.defvjp(_forward6, _backward6)
