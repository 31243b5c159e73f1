"""Maximal update parametrization: initial weights and rates that keep over widths.

A model at `--width_multiplier` is compared with the same model at `--mup_base_width`,
parameter by parameter: by what its inputs (`i`) and its outputs (`o`) are multiplied.
Inputs of an image's channels, outputs of classes and the stem of wrn_D_K stay at 1.

| parameter                 | deviation at the start | rate in sgd | in Adam and kin |
|---------------------------|------------------------|-------------|-----------------|
| kernel from the image     | 1                      | o           | 1               |
| hidden kernel             | 1 / sqrt(i)            | o / i       | 1 / i           |
| kernel of the logits      | 1 / i                  | 1 / i       | 1 / i           |
| bias, normalisation scale | 1                      | o           | 1               |

All are times what they are at the base width, so that there nothing differs from the
standard parametrization. Weight decay is as strong at all widths: its share of a step
is not multiplied. The logits' multiplier 1 / i of table 8 is folded into their kernel,
which is table 3: the model computes the same, and what is saved and exported is plain.

Source: Yang and Hu et al. 2022, tables 3 and 8 and section C,
    https://arxiv.org/abs/2203.03466
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import optax

from cnn.errors import UserError
from cnn.models import create_model
from cnn.models import layers as model_layers
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables, flatten_paths, is_kernel
from cnn.optim import paths
from cnn.optim.options import OptimizerOptions

# What the standard deviation of a kernel's draw falls with the root of.
_DRAWN_BY = {
    model_layers.kaiming_fan_in: "inputs",
    model_layers.lecun_normal: "inputs",
    model_layers.torch_default: "inputs",
    model_layers.kaiming_fan_out: "outputs",
}
# Rules whose steps do not depend on the size of the gradient.
_SCALE_FREE = ("adam", "adamw", "nadam", "nadamw", "adamax", "lion", "adagrad")
_SCALE_FREE += ("rmsprop",)
_DECAYED = ("sgd", "adamw", "nadamw", "lion")
_SIZES = "its epsilon counts as much as gradients do, whose size changes with the width"
_OWN = "the lengths of its steps follow from a layer's matrix by a rule of its own"
_REASONS = dict.fromkeys(("rmsprop_tf", "adabelief"), _SIZES)
_REASONS |= dict.fromkeys(("lamb", "lars", "muon", "muon_sgd"), _OWN)
_LIMITS = ("clip_norm", "clip_value", "clip_adaptive", "sam_rho")


class Scale(NamedTuple):
    """What a parameter is multiplied by that would be standard.

    Attributes:
        path: of the parameter.
        initial: its initial value.
        rate: its learning rate, but for weight decay.
    """

    path: str
    initial: float
    rate: float


Scales = tuple[Scale, ...]


def check(options: OptimizerOptions) -> None:
    """Refuse what does not keep over widths.

    Raises:
        UserError: naming the flag, and why.
    """
    if options.parametrization != "mup":
        return
    name = options.optimizer
    if name in _REASONS:
        raise UserError(
            f"--parametrization=mup has no rates for --optimizer={name}: "
            f"{_REASONS[name]}; it has for sgd, {', '.join(_SCALE_FREE)}"
        )
    if options.weight_decay and name not in _DECAYED:
        raise UserError(
            f"--parametrization=mup and --weight_decay={options.weight_decay:g}: "
            f"--optimizer={name} adds the decay to gradients, whose size changes with "
            "the width, and divides by their sum; use adamw, nadamw, lion or sgd"
        )
    for limit in _LIMITS:
        if size := getattr(options, limit):
            raise UserError(
                f"--parametrization=mup and --{limit}={size:g}: the size of the whole "
                f"gradient changes with the width, and no --{limit} keeps; leave it out"
            )


def make_scales(
    model: ModelOptions,
    options: OptimizerOptions,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> Scales:
    """Compare a model with the one of the base width.

    Args:
        model: of the run.
        image_shape: (H, W, C).

    Returns:
        Those of its parameters that are not as in the standard parametrization; none
        in that, and at the base width.

    Raises:
        UserError: the base width leaves no whole channels, or other parameters.
    """
    base_width = options.mup_base_width
    if options.parametrization != "mup" or model.width_multiplier == base_width:
        return ()
    base_options = dataclasses.replace(model, width_multiplier=base_width)
    try:
        base, _ = _list_parameters(base_options, num_classes, image_shape)
    except UserError as error:
        named = str(error).replace("--width_multiplier", "--mup_base_width")
        raise UserError(named) from None
    wide, draws = _list_parameters(model, num_classes, image_shape)
    if missing := sorted(wide.keys() - base.keys()):
        raise UserError(
            f"--mup_base_width={base_width:g}: {model.model} of that width has no "
            f"{missing[0]}; give another base width, such as {2 * base_width:g}"
        )
    ratios = {path: _compare(path, wide[path], base[path]) for path in wide}
    scales = []
    for path, (inputs, outputs) in ratios.items():
        layer = path.rpartition("/")[0]
        fan, initial = ratios.get(f"{layer}/kernel", (1.0, 1.0)), 1.0
        if is_kernel(path):
            drawn = inputs if _DRAWN_BY[draws[layer]] == "inputs" else outputs
            is_last = outputs == 1
            initial = drawn**0.5 / (inputs if is_last else inputs**0.5)
        elif path.endswith("bias"):  # of those that are drawn, as `Conv` says
            initial = fan[0] ** 0.5
        rate = (outputs if options.optimizer == "sgd" else 1) / inputs
        scales.append(Scale(path, initial, rate))
    return tuple(one for one in scales if one[1:] != (1, 1))


def scale_initial(scales: Scales, params: Any) -> Any:
    """Multiply parameters that were drawn by their `initial`."""
    return _multiply({one.path: one.initial for one in scales}, params)


def scale_rates(scales: Scales) -> list[optax.GradientTransformation]:
    """Make what multiplies each update by its `rate`; nothing where there is none."""
    if not scales:
        return []
    rates = {one.path: one.rate for one in scales}

    def update(updates: Any, state: Any, params: Any = None) -> tuple:
        del params
        return _multiply(rates, updates), state

    return [optax.GradientTransformation(lambda params: optax.EmptyState(), update)]


def _multiply(factors: dict[str, float], tree: Any) -> Any:
    def multiply(path: Any, leaf: jax.Array) -> jax.Array:
        factor = factors.get(paths.write_path(path), 1.0)
        return leaf if factor == 1 else leaf * factor

    return jax.tree_util.tree_map_with_path(multiply, tree)


def _list_parameters(
    options: ModelOptions, num_classes: int, image_shape: tuple[int, int, int]
) -> tuple[dict[str, Any], dict[str, Callable]]:
    """List the shapes of a model's parameters, and what draws each layer's kernel."""
    draws: dict[str, Callable] = {}

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if init := getattr(module, "kernel_init", None):
            draws["/".join(module.path)] = init
        return call(*args, **kwargs)

    model = create_model(options, num_classes)
    with nn.intercept_methods(note):
        shapes = jax.eval_shape(lambda: create_variables(model, 0, image_shape))
    return flatten_paths(shapes["params"]), draws


def _compare(path: str, wide: Any, base: Any) -> tuple[float, float]:
    """Return by what a parameter's inputs and its outputs are multiplied."""
    inputs = 1.0
    if is_kernel(path):
        for axis in paths.list_input_axes(wide):
            inputs *= wide.shape[axis] / base.shape[axis]
    return inputs, wide.shape[-1] / base.shape[-1]
