"""The contender `flax`: what a program of flax's own layers and optax computes.

The models are ours with `nn.Conv`, `nn.BatchNorm`, `nn.Dense`, `nn.max_pool`,
`nn.avg_pool` and `nn.relu` in place of the layers of `cnn/`, so that parameters, their
names and the results are the same; what flax has no layer for is plain JAX in both, and
no rule of ours for a gradient is left (asserted). One jitted step is called from a
Python loop, without options for the compiler. Images lie on the device and the state is
donated, as a careful newcomer does.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import contenders
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from contenders import Case, Round

from cnn import config, models
from cnn.models import layers
from cnn.models.variables import count_parameters
from cnn.ops import activation, pooling
from cnn.runtime import devices


@contextlib.contextmanager
def use_flax_layers() -> Iterator[None]:
    """Let models that are created and traced inside be made of flax's own layers."""
    parts = {"Conv": _make_conv, "BatchNorm": _make_norm, "Dense": nn.Dense}
    pools = {"max_pool2d": _pool(nn.max_pool), "avg_pool2d": _pool(nn.avg_pool)}
    with (
        mock.patch.multiple(layers, **parts),
        mock.patch.multiple(pooling, **pools),
        mock.patch.object(activation, "relu", nn.relu),
    ):
        yield


def _make_conv(
    features: int,
    kernel_size: int,
    stride: int = 1,
    padding: int | str = "same",
    groups: int = 1,
    formulation: str = "",
    **options: Any,
) -> nn.Module:
    low, high = (kernel_size - 1) // 2, kernel_size // 2
    if padding != "same":
        low = high = 0 if padding == "valid" else padding
    return nn.Conv(
        features,
        (kernel_size, kernel_size),
        strides=stride,
        padding=((low, high), (low, high)),
        feature_group_count=groups,
        **options,
    )


def _make_norm(
    unbiased: bool = False,
    momentum: float = 0.9,
    zero_init: bool = False,
    **options: Any,
) -> Callable[[jax.Array, bool], jax.Array]:
    init = nn.initializers.zeros if zero_init else nn.initializers.ones
    norm = nn.BatchNorm(momentum=momentum, scale_init=init, **options)
    return lambda x, train: norm(x, use_running_average=not train)


def _pool(rule: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    def pool(x: jax.Array, window: int, stride: int = 0, padding: Any = 0) -> jax.Array:
        strides = (stride or window,) * 2
        pairs = padding if isinstance(padding, list) else [(padding, padding)] * 2
        return rule(x, (window, window), strides, pairs)

    return pool


def create(case: Case, precision: str = "float32") -> tuple[nn.Module, Any]:
    """Create a case's model and its variables; call it inside `use_flax_layers`."""
    given = {"model": case.model, "convolution": "plain", "precision": precision}
    run = config.make_config(given)
    dtype = devices.get_dtype(run.device)
    model = models.create_model(run.model, contenders.NUM_CLASSES, dtype)
    init = jax.jit(model.init, static_argnames="train")
    return model, init(jax.random.key(0), jnp.zeros((1, *case.shape)), train=False)


def make_flax(case: Case, what: str, precision: str, parameters: int) -> Round:
    """Make rounds of the loop.

    Args:
        case: as ours.
        what: `train` or `forward`.
        precision: of `--precision`.
        parameters: how many ours has.
    """
    with use_flax_layers():
        model, variables = create(case, precision)
        found = count_parameters(variables["params"])
        assert found == parameters, f"{case.model}: {found} and {parameters} parameters"
        make = {"train": _make_train, "forward": _make_forward}[what]
        step, kept = make(model, variables)
        data = jax.device_put(contenders.make_data(case))
        batches = list(zip(*data, strict=True))
        traced = step.trace(kept, *batches[0])
        assert "custom_vjp" not in str(traced.jaxpr), "a rule of ours in plain flax"
        program = traced.lower().compile()

    def run_round() -> float:
        nonlocal kept
        started = case.read_clock()
        for images, labels in batches:
            kept, loss = program(kept, images, labels)
        loss.block_until_ready()
        return case.read_clock() - started

    return run_round


def _compute_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean()


def _normalise(images: jax.Array) -> jax.Array:
    return (images.astype(jnp.float32) / 255 - 0.5) / 0.25


def _make_train(model: nn.Module, variables: Any) -> tuple[Callable, Any]:
    chain = optax.chain(
        optax.add_decayed_weights(5e-4), optax.sgd(0.1, 0.9, nesterov=True)
    )

    def step(kept, images, labels):
        params, batch_stats, opt_state = kept

        def loss_of(params):
            variables = {"params": params, "batch_stats": batch_stats}
            logits, updated = model.apply(
                variables, _normalise(images), train=True, mutable=["batch_stats"]
            )
            return _compute_loss(logits, labels), updated.get("batch_stats", {})

        (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = chain.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), stats, opt_state), loss

    params = variables["params"]
    kept = params, variables.get("batch_stats", {}), chain.init(params)
    return jax.jit(step, donate_argnums=0), kept


def _make_forward(model: nn.Module, variables: Any) -> tuple[Callable, Any]:
    def step(kept, images, labels):
        logits = model.apply(kept, _normalise(images), train=False)
        return kept, _compute_loss(logits, labels)

    return jax.jit(step, donate_argnums=0), variables
