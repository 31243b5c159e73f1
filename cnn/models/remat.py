"""Recomputing a model's blocks in the backward pass instead of keeping what they made.

A block is a part of the model, such as a residual block, that has layers of its own.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax

from cnn.errors import UserError


def check(options: Any, layers: Iterable[Mapping[str, Any]]) -> None:
    """Refuse to recompute blocks where there are none.

    Args:
        options: `model` names the model, `remat` says whether blocks are recomputed.
        layers: the model's, each with its `path`, as `stage1_block1/conv1`.

    Raises:
        UserError: no layer lies in a block.
    """
    if options.remat == "blocks" and not any("/" in layer["path"] for layer in layers):
        raise UserError(
            f"--remat=blocks: {options.model} has no blocks to compute again; leave "
            "it out, and save memory by --accumulate_steps=2 or --precision=bfloat16"
        )


def recompute_blocks(is_wanted: bool) -> contextlib.AbstractContextManager:
    """Let blocks be computed again in the backward pass; parameters keep their paths.

    Args:
        is_wanted: whether anything is done.

    Returns:
        A context inside which a model is applied and differentiated.

    Source: Chen et al. 2016, https://arxiv.org/abs/1604.06174
    """
    if not is_wanted:
        return contextlib.nullcontext()
    entered: set[tuple[str, ...]] = set()

    def call(next_call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if module.path in entered or not _is_block(module):
            return next_call(*args, **kwargs)

        def run(module: nn.Module, x: jax.Array) -> jax.Array:
            return module(x, *args[1:], **kwargs)

        entered.add(module.path)
        try:
            return nn.remat(run)(module, args[0])
        finally:
            entered.remove(module.path)

    return nn.intercept_methods(call)


def _is_block(module: nn.Module) -> bool:
    """Whether a module stands directly in the model and has layers of its own."""
    params = module.variables.get("params", {})
    has_layers = any(isinstance(value, Mapping) for value in params.values())
    return len(module.path) == 1 and has_layers
