"""Update rules that optax has otherwise than PyTorch and timm, or not at all.

Each is an optax transformation of gradients into steps that are still to be multiplied
by the learning rate; numbers may be traced, steps count from 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

_MOMENTUM_DECAY = 0.004


class NadamState(NamedTuple):
    """What NAdam remembers: steps, product of the momenta, the two moments."""

    count: jax.Array
    product: jax.Array
    mu: Any
    nu: Any


def scale_by_nadam(
    beta1: jax.Array, beta2: jax.Array, epsilon: jax.Array
) -> optax.GradientTransformation:
    """Make NAdam, whose momentum rises from beta1 / 2 to beta1, as PyTorch has it.

    Source: Dozat 2016, https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ
    """

    def find_momentum(step: jax.Array) -> jax.Array:
        return beta1 * (1 - 0.5 * 0.96 ** (step * _MOMENTUM_DECAY))

    def init(params: Any) -> NadamState:
        nothing = optax.tree.zeros_like(params)
        return NadamState(jnp.zeros((), jnp.int32), jnp.ones(()), nothing, nothing)

    def update(updates: Any, state: NadamState, params: Any = None) -> tuple:
        del params
        count = state.count + 1
        momentum, following = find_momentum(count), find_momentum(count + 1)
        product = state.product * momentum
        mu = optax.tree.update_moment(updates, state.mu, beta1, 1)
        nu = optax.tree.update_moment(updates, state.nu, beta2, 2)
        of_gradient = (1 - momentum) / (1 - product)
        of_moment = following / (1 - product * following)
        ahead = jax.tree.map(lambda g, m: of_gradient * g + of_moment * m, updates, mu)
        steps = _divide_by_root(ahead, nu, 1 - beta2**count, epsilon)
        return steps, NadamState(count, product, mu, nu)

    return optax.GradientTransformation(init, update)


def scale_by_nadamw(
    beta1: jax.Array, beta2: jax.Array, epsilon: jax.Array
) -> optax.GradientTransformation:
    """Make Adam whose first moment is averaged once more with the gradient, as timm.

    Source: Choi et al. 2019, table 1, https://arxiv.org/abs/1910.05446
    """
    adam = optax.scale_by_adam(beta1, beta2)

    def update(updates: Any, state: Any, params: Any = None) -> tuple:
        state = adam.update(updates, state, params)[1]
        ahead = optax.tree.update_moment(updates, state.mu, beta1, 1)
        ahead = jax.tree.map(lambda m: m / (1 - beta1**state.count), ahead)
        return _divide_by_root(ahead, state.nu, 1 - beta2**state.count, epsilon), state

    return optax.GradientTransformation(adam.init, update)


def scale_by_adagrad(epsilon: jax.Array) -> optax.GradientTransformation:
    """Make Adagrad, whose sum of squares begins at 0 and whose epsilon is outside.

    Source: Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html
    """

    def update(updates: Any, sums: Any, params: Any = None) -> tuple:
        del params
        sums = jax.tree.map(lambda g, s: s + g * g, updates, sums)
        return _divide_by_root(updates, sums, 1.0, epsilon), sums

    return optax.GradientTransformation(optax.tree.zeros_like, update)


def scale_by_lars(
    coefficient: jax.Array, epsilon: jax.Array, weight_decay: jax.Array | float
) -> optax.GradientTransformation:
    """Make the steps of LARS before their momentum: as long as a share of the weights.

    Args:
        coefficient: that share, the trust coefficient.
        epsilon: added to the norm that is divided by.
        weight_decay: added to the gradient, times the weights.

    Returns:
        A transformation that leaves a parameter's gradient and decay unscaled where one
        of the two norms is 0.

    Source: You et al. 2017, https://arxiv.org/abs/1708.03888
    """

    def adapt(gradient: jax.Array, param: jax.Array) -> jax.Array:
        of_param, of_gradient = jnp.linalg.norm(param), jnp.linalg.norm(gradient)
        whole = of_gradient + weight_decay * of_param + epsilon
        has_none = (of_param == 0) | (of_gradient == 0)
        ratio = jnp.where(has_none, 1.0, coefficient * of_param / whole)
        return ratio * (gradient + weight_decay * param)

    def update(updates: Any, state: Any, params: Any = None) -> tuple:
        def adapt_one(gradient: jax.Array, param: jax.Array) -> jax.Array:
            return adapt(gradient.ravel(), param.ravel()).reshape(param.shape)

        return jax.tree.map(adapt_one, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _divide_by_root(
    steps: Any, squares: Any, correction: jax.Array | float, epsilon: jax.Array
) -> Any:
    """Divide steps by `sqrt(squares / correction) + epsilon`."""

    def divide(step: jax.Array, square: jax.Array) -> jax.Array:
        return step / (jnp.sqrt(square / correction) + epsilon)

    return jax.tree.map(divide, steps, squares)
