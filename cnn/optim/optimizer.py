"""The update of parameters by their gradients: `update` is the step's one door.

Nothing here branches on a number: every strength is an array, or None where the
option is 0 and its code is absent. Steps count from 0.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnn.config import Numbers
from cnn.errors import UserError
from cnn.models.variables import replace_leaves
from cnn.optim import (
    clipping,
    freezing,
    layer_rates,
    muon,
    mup,
    paths,
    rules,
    schedules,
)
from cnn.optim.freezing import Phase
from cnn.optim.layer_rates import Rates
from cnn.optim.mup import Scales
from cnn.optim.options import AveragingOptions, OptimizerOptions, ScheduleOptions
from cnn.optim.schedules import Clock

# Rules that add the weight decay to the gradient; see `OptimizerOptions.weight_decay`.
COUPLED = ("sgd", "muon_sgd", "adam", "nadam", "adamax", "adagrad", "rmsprop")


@dataclasses.dataclass(frozen=True)
class Rule:
    """The static part of an update.

    Attributes:
        options: the rule and its choices.
        schedule: the learning rate's.
        phase: which leaves train; None: all.
        rates: each parameter's place among the learning rates by layer.
        averaging: how weights are averaged afterwards.
        scales: by what initial weights and rates differ from the standard ones.
    """

    options: OptimizerOptions = OptimizerOptions()
    schedule: ScheduleOptions = ScheduleOptions()
    phase: Phase | None = None
    rates: Rates = ()
    averaging: AveragingOptions = AveragingOptions()
    scales: Scales = ()


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
    clipping.check(options)
    mup.check(options)


def create_state(rule: Rule, numbers: Numbers, params: Any) -> Any:
    """Create the optimizer's state, for the parameters that train."""
    chain = make_optimizer(
        rule.options, numbers.learning_rate, numbers, scales=rule.scales
    )
    return chain.init(freezing.select_trained(rule.phase, params))


def update(
    rule: Rule,
    clock: Clock,
    numbers: Numbers,
    gradients: Any,
    params: Any,
    opt_state: Any,
    batch_size: int,
) -> tuple[Any, Any, jax.Array]:
    """Update parameters by the gradients of one step.

    Args:
        gradients: of the parameters that train, as a tree without the others.
        batch_size: examples of a batch, for rates that depend on it.

    Returns:
        Parameters, the optimizer's state and the learning rate, float32 [].
    """
    options, trained = rule.options, freezing.select_trained(rule.phase, params)
    schedule = schedules.compute_schedule(rule.schedule, clock, numbers)
    rate = _scale_rate(rule, numbers, schedule, batch_size)
    numbers = schedules.cycle_momentum(rule.schedule, clock, numbers)
    chain = make_optimizer(options, rate, numbers, schedule, rule.scales)
    scale = functools.partial(layer_rates.scale, rule.rates, numbers)
    scaled = scale(gradients) if options.decoupled_rates else gradients
    updates, opt_state = chain.update(scaled, opt_state, trained)
    updates = updates if options.decoupled_rates else scale(updates)
    updates = layer_rates.stop(rule.rates, numbers, clock.epoch, updates)
    params = replace_leaves(params, optax.apply_updates(trained, updates))
    return params, opt_state, rate


def compute_learning_rate(
    rule: Rule, clock: Clock, numbers: Numbers, batch_size: int = 1024
) -> jax.Array:
    """Compute the learning rate of one step: warm-up and schedule times peak.

    `batch_size` is for rates that depend on it; what is returned is float32 [].
    """
    schedule = schedules.compute_schedule(rule.schedule, clock, numbers)
    return _scale_rate(rule, numbers, schedule, batch_size)


def compute_peak_rate(rule: Rule, numbers: Numbers, batch_size: int) -> jax.Array:
    """Compute what warm-up and schedule are times, float32 []."""
    return _scale_rate(rule, numbers, jnp.ones(()), batch_size)


def _scale_rate(
    rule: Rule, numbers: Numbers, factor: jax.Array, batch_size: int
) -> jax.Array:
    """Multiply the peak learning rate by a schedule's factor; float32 [].

    Source: Jordan 2024, https://arxiv.org/abs/2404.00498, after
        https://myrtle.ai/learn/how-to-train-your-resnet-5-numbers (decoupled);
        Goyal et al. 2017, https://arxiv.org/abs/1706.02677 (linear scaling);
        Krizhevsky 2014, https://arxiv.org/abs/1404.5997 (by the root)
    """
    if rule.options.decoupled_rates:
        momentum = 0.0 if numbers.momentum is None else numbers.momentum
        factor = factor * batch_size / 1024 / (1 + 1 / (1 - momentum))
    elif rule.schedule.rate_scaling != "none":
        share = batch_size / numbers.rate_scaling_base
        is_linear = rule.schedule.rate_scaling == "linear"
        factor = factor * (share if is_linear else jnp.sqrt(share))
    return numbers.learning_rate * factor


def make_optimizer(
    options: OptimizerOptions,
    learning_rate: jax.Array,
    numbers: Numbers,
    schedule: jax.Array | float = 1.0,
    scales: Scales = (),
) -> optax.GradientTransformation:
    """Make the optax chain of one step.

    Args:
        schedule: of `schedules.compute_schedule`, for muon_sgd's other rate.
        scales: of `mup.make_scales`.

    Returns:
        Clipping, then the rule with its weight decay where PyTorch or timm has it:
        added to the gradient in those of `COUPLED` and in lars, decoupled in the
        others.
    """
    if options.optimizer == "muon":
        parts = [muon.make_muon_adamw(options, learning_rate, numbers)]
    else:
        parts = _list_parts(options, learning_rate, numbers, scales)
    if options.optimizer == "muon_sgd":
        rate = numbers.muon_learning_rate * schedule
        momentum, others = numbers.muon_momentum, optax.chain(*parts)
        parts = [muon.make_muon_sgd(rate, momentum, options.nesterov, others)]
    return optax.chain(*clipping.make_clipping(numbers), *parts)


def _list_parts(
    options: OptimizerOptions,
    learning_rate: jax.Array,
    numbers: Numbers,
    scales: Scales,
) -> list[optax.GradientTransformation]:
    weight_decay = numbers.weight_decay
    if options.decoupled_rates and weight_decay is not None:
        # At the rate 0 nothing moves, whatever the decay.
        peak = numbers.learning_rate
        weight_decay = weight_decay / jnp.where(peak > 0, peak, jnp.inf)
    rate = optax.scale_by_learning_rate(learning_rate)
    if options.optimizer == "lars":
        decayed = 0.0 if weight_decay is None else weight_decay
        adapt = rules.scale_by_lars(numbers.trust_coefficient, numbers.epsilon, decayed)
        return [_spare_vectors(options, adapt), *_make_momentum(options, numbers), rate]
    decay = _make_weight_decay(options, weight_decay)
    if options.optimizer == "rmsprop_tf":  # what its momentum sums are whole steps
        scaled = optax.scale_by_rms(
            numbers.rmsprop_decay, numbers.epsilon, initial_scale=1.0
        )
        return [decay, scaled, rate, *_make_momentum(options, numbers)]
    rule, scaled = _make_rule(options, numbers), mup.scale_rates(scales)
    if options.optimizer == "sgd":  # whose steps are as long as its gradients
        parts = [*scaled, decay, rule]
    elif options.optimizer in COUPLED:
        parts = [decay, rule, *scaled]
    else:
        parts = [rule, *scaled, decay]
    if options.optimizer == "lamb":
        parts.append(_spare_vectors(options, optax.scale_by_trust_ratio()))
    return [*parts, rate]


def _make_rule(
    options: OptimizerOptions, numbers: Numbers
) -> optax.GradientTransformation:
    name, epsilon = options.optimizer, numbers.epsilon
    betas = numbers.adam_beta1, numbers.adam_beta2
    match name:
        case "sgd" | "muon_sgd":
            momentum = _make_momentum(options, numbers)
            return momentum[0] if momentum else optax.identity()
        case "rmsprop":
            decay = numbers.rmsprop_decay
            scaled = optax.scale_by_rms(decay, eps=epsilon, eps_in_sqrt=False)
            trace = _make_momentum(options, numbers) or [optax.identity()]
            return optax.chain(scaled, *trace)
        case "adagrad":
            return rules.scale_by_adagrad(epsilon)
        case "lion":
            return optax.scale_by_lion(*betas)
        case "adabelief":
            return optax.scale_by_belief(*betas, eps=epsilon, eps_root=epsilon)
    make = {
        "nadam": rules.scale_by_nadam,
        "nadamw": rules.scale_by_nadamw,
        "adamax": optax.scale_by_adamax,
    }.get(name, optax.scale_by_adam)
    return make(*betas, epsilon)


def _make_momentum(
    options: OptimizerOptions, numbers: Numbers
) -> list[optax.GradientTransformation]:
    """Make the momentum of sgd, rmsprop and lars, if there is one."""
    if numbers.momentum is None:
        return []
    nesterov = options.nesterov and not options.optimizer.startswith("rmsprop")
    return [optax.trace(numbers.momentum, nesterov=nesterov)]


def _spare_vectors(
    options: OptimizerOptions, transformation: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Restrict a rule to kernels where weight decay is."""
    if options.decay_norms:
        return transformation
    return optax.masked(transformation, paths.mark_kernels)


def _make_weight_decay(
    options: OptimizerOptions, weight_decay: jax.Array | None
) -> optax.GradientTransformation:
    if weight_decay is None:
        return optax.identity()
    mask = None if options.decay_norms else paths.mark_kernels
    return optax.add_decayed_weights(weight_decay, mask)
