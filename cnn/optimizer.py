"""Optimizers, built inside the step from traced numbers.

Nothing here branches on a number: every strength is an array, or None where the
option is 0 and its code is absent. Steps count from 0.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from cnn import muon, schedules
from cnn.errors import UserError
from cnn.options import option

Hyperparameters = Mapping[str, jax.Array | None]


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(schedules.ScheduleOptions):
    """How parameters follow their gradients."""

    optimizer: str = option(
        "sgd",
        "update rule; muon has adamw for vectors, muon_sgd sgd for all but the kernels "
        "of convolutions",
        choices=("sgd", "adam", "adamw", "rmsprop", "lamb", "muon", "muon_sgd"),
    )
    learning_rate: float = option(
        0.1, "peak learning rate", kind="traced", within="[0, inf)"
    )
    decoupled_rates: bool = option(
        False,
        "sgd and muon_sgd: learning_rate and weight_decay are per 1024 examples and "
        "over 1 + 1 / (1 - momentum), and the decay does not depend on the rate: each "
        "can be tuned alone",
    )
    muon_learning_rate: float = option(
        0.24,
        "muon_sgd: peak length of the orthogonal step of a convolution's kernel, "
        "which is kept at the norm sqrt(outputs)",
        kind="traced",
        within="[0, inf)",
    )
    muon_momentum: float = option(
        0.6, "muon_sgd: momentum of those kernels", kind="traced", within="[0, 1)"
    )
    momentum: float = option(
        0.9,
        "momentum of sgd, rmsprop and muon, and of muon_sgd's sgd",
        kind="traced_unless_zero",
        within="[0, 1)",
    )
    nesterov: bool = option(True, "Nesterov's form of sgd's and muon's momentum")
    adam_beta1: float = option(
        0.9,
        "decay of the first moment of adam, adamw, lamb and muon's vectors",
        kind="traced",
        within="[0, 1)",
    )
    adam_beta2: float = option(
        0.999,
        "decay of the second moment of adam, adamw, lamb and muon's vectors",
        kind="traced",
        within="[0, 1)",
    )
    rmsprop_decay: float = option(
        0.99,
        "decay of rmsprop's second moment",
        kind="traced",
        within="[0, 1)",
    )
    epsilon: float = option(
        1e-8,
        "added to the denominator of adam, adamw, lamb, rmsprop and muon's vectors",
        kind="traced",
        within="(0, inf)",
    )
    weight_decay: float = option(
        0.0,
        "weight decay: added to the gradient by sgd, adam and rmsprop, decoupled "
        "and times the learning rate in adamw, lamb and muon",
        kind="traced_unless_zero",
        within="[0, inf)",
    )
    decay_norms: bool = option(
        True, "decay biases and normalisation scales too, not kernels alone"
    )
    clip_norm: float = option(
        0.0,
        "largest global norm of the gradient; larger ones are scaled down to it",
        kind="traced_unless_zero",
        within="[0, inf)",
    )


def check(options: OptimizerOptions) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: naming the flags.
    """
    decoupled, rule = options.decoupled_rates, options.optimizer
    if decoupled and rule not in ("sgd", "muon_sgd"):
        raise UserError(
            f"--decoupled_rates is for sgd and muon_sgd, not --optimizer={rule}"
        )
    if rule == "muon_sgd" and not decoupled:
        raise UserError("--optimizer=muon_sgd needs --decoupled_rates")
    if decoupled and options.clip_norm:  # gradients are times their rates by then
        raise UserError("--clip_norm and --decoupled_rates do not go together")


def compute_learning_rate(
    options: OptimizerOptions,
    step: jax.Array,
    steps_per_epoch: int,
    hyperparameters: Hyperparameters,
    batch_size: int = 1024,
) -> jax.Array:
    """Compute the learning rate of one step: warm-up times schedule times peak.

    Args:
        options: chooses the schedule.
        step: int32 [], from 0.
        steps_per_epoch: the length of an epoch.
        hyperparameters: `learning_rate`, and those of `schedules.compute_schedule`.
        batch_size: for decoupled rates.

    Returns:
        float32 [].

    Source: Jordan 2024, https://arxiv.org/abs/2404.00498, after
        https://myrtle.ai/learn/how-to-train-your-resnet-5-hyperparameters (decoupled)
    """
    factor = schedules.compute_schedule(options, step, steps_per_epoch, hyperparameters)
    if options.decoupled_rates:
        momentum = hyperparameters["momentum"]
        momentum = 0.0 if momentum is None else momentum
        factor = factor * batch_size / 1024 / (1 + 1 / (1 - momentum))
    return hyperparameters["learning_rate"] * factor


def make_optimizer(
    options: OptimizerOptions,
    learning_rate: jax.Array,
    hyperparameters: Hyperparameters,
    schedule: jax.Array | float = 1.0,
) -> optax.GradientTransformation:
    """Make the optax chain of one step.

    Args:
        options: chooses the rule and its structure.
        learning_rate: float32 [], this step's.
        hyperparameters: the numbers, traced; None where absent.
        schedule: of `schedules.compute_schedule`, for muon_sgd's other rate.

    Returns:
        Clipping, then the rule with its weight decay where PyTorch has it: before
        the momentum in sgd, adam and rmsprop, decoupled in the others.
    """
    if options.optimizer == "muon":
        parts = [_make_muon_adamw(options, learning_rate, hyperparameters)]
    else:
        parts = _list_parts(options, learning_rate, hyperparameters)
    if options.optimizer == "muon_sgd":
        rate = hyperparameters["muon_learning_rate"] * schedule
        momentum, others = hyperparameters["muon_momentum"], optax.chain(*parts)
        parts = [muon.make_muon_sgd(rate, momentum, options.nesterov, others)]
    if hyperparameters["clip_norm"] is not None:
        parts.insert(0, _clip_by_global_norm(hyperparameters["clip_norm"]))
    return optax.chain(*parts)


def _list_parts(
    options: OptimizerOptions,
    learning_rate: jax.Array,
    hyperparameters: Hyperparameters,
) -> list[optax.GradientTransformation]:
    weight_decay = hyperparameters["weight_decay"]
    if options.decoupled_rates and weight_decay is not None:
        # At the rate 0 nothing moves, whatever the decay.
        peak = hyperparameters["learning_rate"]
        weight_decay = weight_decay / jnp.where(peak > 0, peak, jnp.inf)
    decay = _make_weight_decay(options, weight_decay)
    rule = _make_rule(options, hyperparameters)
    coupled = options.optimizer in ("sgd", "adam", "rmsprop", "muon_sgd")
    parts = [decay, rule] if coupled else [rule, decay]
    if options.optimizer == "lamb":
        parts.append(optax.scale_by_trust_ratio())
    return [*parts, optax.scale_by_learning_rate(learning_rate)]


def _make_muon_adamw(
    options: OptimizerOptions,
    learning_rate: jax.Array,
    hyperparameters: Hyperparameters,
) -> optax.GradientTransformation:
    return muon.make_muon_adamw(
        learning_rate,
        hyperparameters["momentum"],
        options.nesterov,
        hyperparameters["weight_decay"],
        options.decay_norms,
        (hyperparameters["adam_beta1"], hyperparameters["adam_beta2"]),
        hyperparameters["epsilon"],
    )


def _make_rule(
    options: OptimizerOptions, hyperparameters: Hyperparameters
) -> optax.GradientTransformation:
    momentum = hyperparameters["momentum"]
    if options.optimizer in ("sgd", "muon_sgd"):
        if momentum is None:
            return optax.identity()
        return optax.trace(momentum, nesterov=options.nesterov)
    epsilon = hyperparameters["epsilon"]
    if options.optimizer == "rmsprop":
        decay = hyperparameters["rmsprop_decay"]
        scaled = optax.scale_by_rms(decay, eps=epsilon, eps_in_sqrt=False)
        trace = optax.identity() if momentum is None else optax.trace(momentum)
        return optax.chain(scaled, trace)
    betas = hyperparameters["adam_beta1"], hyperparameters["adam_beta2"]
    return optax.scale_by_adam(*betas, eps=epsilon)


def _make_weight_decay(
    options: OptimizerOptions, weight_decay: jax.Array | None
) -> optax.GradientTransformation:
    if weight_decay is None:
        return optax.identity()
    select_kernels = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    mask = None if options.decay_norms else select_kernels
    return optax.add_decayed_weights(weight_decay, mask)


def _clip_by_global_norm(largest: jax.Array) -> optax.GradientTransformation:
    """Clip as torch.nn.utils.clip_grad_norm_ does; the norm may be traced."""

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(1.0, largest / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda update: update * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
