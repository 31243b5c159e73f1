"""Optimizers and learning-rate schedules, built inside the step from traced numbers.

Nothing here branches on a number: every strength is an array, or None where the
option is 0 and its code is absent. Steps count from 0.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from cnn.options import option

Hyperparameters = Mapping[str, jax.Array | None]


@dataclasses.dataclass(frozen=True)
class OptimizerOptions:
    """How parameters follow their gradients."""

    optimizer: str = option(
        "sgd",
        "update rule",
        choices=("sgd", "adam", "adamw", "rmsprop", "lamb", "muon"),
    )
    learning_rate: float = option(
        0.1, "peak learning rate", kind="traced", within="[0, inf)"
    )
    momentum: float = option(
        0.9,
        "momentum of sgd, rmsprop and muon",
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
    schedule: str = option(
        "cosine",
        "learning rate over the run: constant, cosine or linear (both to 0), "
        "step (times milestone_factor at each milestone)",
        choices=("constant", "cosine", "linear", "step"),
    )
    warmup_epochs: float = option(
        0.0,
        "epochs over which the rate rises linearly, times the schedule",
        kind="traced_unless_zero",
        within="[0, inf)",
    )
    milestones: tuple[float, ...] = option(
        (60.0, 120.0, 160.0),
        "epochs at which schedule=step lowers the rate",
        kind="traced",
        within="[0, inf)",
    )
    milestone_factor: float = option(
        0.1,
        "what schedule=step multiplies the rate by at each milestone",
        kind="traced",
        within="(0, 1]",
    )
    ema_decay: float = option(
        0.0,
        "decay per step of the averaged weights, which are then the ones evaluated; "
        "early on min(decay, (1 + step) / (10 + step))",
        kind="traced_unless_zero",
        within="[0, 1)",
    )


def compute_learning_rate(
    options: OptimizerOptions,
    step: jax.Array,
    steps_per_epoch: int,
    hyperparameters: Hyperparameters,
) -> jax.Array:
    """Compute the learning rate of one step: warm-up times schedule times peak.

    Args:
        options: chooses the schedule.
        step: int32 [], from 0.
        steps_per_epoch: the length of an epoch.
        hyperparameters: `learning_rate`, `epochs`, `warmup_epochs`, `milestones`,
            `milestone_factor`.

    Returns:
        float32 []. Warm-up is `min(1, (step + 1) / warm-up steps)`; cosine is
        `(1 + cos(pi · step / all steps)) / 2`.

    Source: Goyal et al. 2017 (warm-up), https://arxiv.org/abs/1706.02677;
        Loshchilov and Hutter 2017 (cosine), https://arxiv.org/abs/1608.03983
    """
    step = step.astype(jnp.float32)
    progress = step / (hyperparameters["epochs"] * steps_per_epoch)
    if options.schedule == "cosine":
        factor = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    elif options.schedule == "linear":
        factor = 1 - progress
    elif options.schedule == "step":
        passed = step >= jnp.round(hyperparameters["milestones"] * steps_per_epoch)
        factor = hyperparameters["milestone_factor"] ** jnp.sum(passed)
    else:
        factor = 1.0
    if hyperparameters["warmup_epochs"] is not None:
        warmup_steps = hyperparameters["warmup_epochs"] * steps_per_epoch
        factor = factor * jnp.minimum(1.0, (step + 1) / warmup_steps)
    return hyperparameters["learning_rate"] * factor


def make_optimizer(
    options: OptimizerOptions,
    learning_rate: jax.Array,
    hyperparameters: Hyperparameters,
) -> optax.GradientTransformation:
    """Make the optax chain of one step.

    Args:
        options: chooses the rule and its structure.
        learning_rate: float32 [], this step's.
        hyperparameters: the numbers, traced; None where absent.

    Returns:
        Clipping, then the rule with its weight decay where PyTorch has it: before
        the momentum in sgd, adam and rmsprop, decoupled in the others.
    """
    if options.optimizer == "muon":
        parts = [_make_muon(options, learning_rate, hyperparameters)]
    else:
        decay = _make_weight_decay(options, hyperparameters["weight_decay"])
        rule = _make_rule(options, hyperparameters)
        coupled = options.optimizer in ("sgd", "adam", "rmsprop")
        parts = [decay, rule] if coupled else [rule, decay]
        if options.optimizer == "lamb":
            parts.append(optax.scale_by_trust_ratio())
        parts.append(optax.scale_by_learning_rate(learning_rate))
    if hyperparameters["clip_norm"] is not None:
        parts.insert(0, _clip_by_global_norm(hyperparameters["clip_norm"]))
    return optax.chain(*parts)


def update_ema(ema: Any, current: Any, decay: jax.Array, step: jax.Array) -> Any:
    """Move averaged weights towards the current ones.

    Args:
        ema: pytree of float arrays.
        current: the same tree after this step.
        decay: float32 [] in [0, 1).
        step: int32 [], from 0; an early step averages over fewer.

    Returns:
        `d · ema + (1 - d) · current`, d = min(decay, (1 + step) / (10 + step)).
    """
    step = step.astype(jnp.float32)
    decay = jnp.minimum(decay, (1 + step) / (10 + step))
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, ema, current)


def _make_rule(
    options: OptimizerOptions, hyperparameters: Hyperparameters
) -> optax.GradientTransformation:
    momentum = hyperparameters["momentum"]
    if options.optimizer == "sgd":
        if momentum is None:
            return optax.identity()
        return optax.trace(momentum, nesterov=options.nesterov)
    if options.optimizer == "rmsprop":
        scaled = optax.scale_by_rms(
            hyperparameters["rmsprop_decay"],
            eps=hyperparameters["epsilon"],
            eps_in_sqrt=False,
        )
        trace = optax.identity() if momentum is None else optax.trace(momentum)
        return optax.chain(scaled, trace)
    return optax.scale_by_adam(
        b1=hyperparameters["adam_beta1"],
        b2=hyperparameters["adam_beta2"],
        eps=hyperparameters["epsilon"],
    )


def _make_muon(
    options: OptimizerOptions,
    learning_rate: jax.Array,
    hyperparameters: Hyperparameters,
) -> optax.GradientTransformation:
    """Make Muon for kernels, each a matrix of its inputs by its outputs, else AdamW.

    As optax has it, moments are bias-corrected and `nesterov` holds for AdamW too.

    Updates have AdamW's root mean square (0.2), so that one learning rate serves both.

    Source: Liu et al. 2025, https://arxiv.org/abs/2502.16982
    """
    momentum, decay = hyperparameters["momentum"], hyperparameters["weight_decay"]
    decay = 0.0 if decay is None else decay
    return optax.contrib.muon(
        learning_rate,
        beta=0.0 if momentum is None else momentum,
        nesterov=options.nesterov and momentum is not None,
        eps=hyperparameters["epsilon"],
        weight_decay=decay,
        adam_b1=hyperparameters["adam_beta1"],
        adam_b2=hyperparameters["adam_beta2"],
        adam_weight_decay=decay if options.decay_norms else 0.0,
        muon_weight_dimension_numbers=_kernel_dimensions,
        consistent_rms=0.2,
    )


def _kernel_dimensions(params: Any) -> Any:
    def dimensions(leaf: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        if leaf.ndim < 2:
            return None
        inputs = tuple(range(leaf.ndim - 1))
        return optax.contrib.MuonDimensionNumbers(inputs, (leaf.ndim - 1,))

    return jax.tree.map(dimensions, params)


def _make_weight_decay(
    options: OptimizerOptions, weight_decay: jax.Array | None
) -> optax.GradientTransformation:
    if weight_decay is None:
        return optax.identity()
    mask = None if options.decay_norms else _is_kernel_tree
    return optax.add_decayed_weights(weight_decay, mask)


def _is_kernel_tree(params: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _clip_by_global_norm(largest: jax.Array) -> optax.GradientTransformation:
    """Clip as torch.nn.utils.clip_grad_norm_ does; the norm may be traced."""

    def update(updates, state, params=None):
        del params
        scale = jnp.minimum(1.0, largest / (optax.tree.norm(updates) + 1e-6))
        return jax.tree.map(lambda update: update * scale, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
