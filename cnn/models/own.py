"""Models of the user's own files: `--model=FILE.py:NAME`, as one more family.

NAME is a class of `flax.linen.Module` with the attribute `num_classes`, or a function
`create(options, num_classes, dtype)` that returns one; the contract of a model
(`cnn.models`) holds as far as it is kept. The attributes `dtype` and `layers` of a
class are set too, where it has them. What is no such model is refused before anything
is compiled.
"""

import contextlib
import dataclasses
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn import own_code
from cnn.errors import UserError
from cnn.models.family import DIGITS, Family, Pattern
from cnn.models.layers import Layers, select_rates
from cnn.models.options import ModelOptions
from cnn.models.variables import flatten_paths

_COLLECTIONS = ("params", "batch_stats", "features", "auxiliary")
_RATES = ("dropout_rate", "stochastic_depth_rate")
_LAYERS = "attribute `layers: Layers`, which would make its layers"
_OF_LAYERS = ("convolution", "bn_variance", "bn_epsilon")


def create(options: ModelOptions, num_classes: int, dtype: Any) -> nn.Module:
    """Create the model that a file of the user defines; equal files make equal ones.

    Raises:
        UserError: the file fails, or what it defines is no such model.
    """
    made = own_code.load("model", options.model)
    given = f"--model={options.model}: {own_code.find_file(options.model)}"
    name = own_code.split(options.model)[1]
    if isinstance(made, type) and issubclass(made, nn.Module):
        model = _instantiate(f"{given}: {name}", made, options, num_classes, dtype)
    elif isinstance(made, types.FunctionType):
        model = _call(made, options, num_classes, jnp.dtype(dtype))
    else:
        raise UserError(
            f"{given}: {name} is {type(made).__name__} {made!r:.60}; give a class of "
            "flax.linen.Module, or a function create(options, num_classes, dtype)"
        )
    _check_model(f"{given}: {name}", model)
    return model


@functools.lru_cache
def _call(
    function: types.FunctionType, options: ModelOptions, num_classes: int, dtype: Any
) -> Any:
    """Call a function of the user, once for equal arguments.

    Raises:
        UserError: it raises something.
    """
    with explaining(options.model):
        return function(options, num_classes, dtype.type)


def _instantiate(
    given: str, made: type, options: ModelOptions, num_classes: int, dtype: Any
) -> nn.Module:
    """Create a module with those of its attributes that the program knows."""
    fields = {x.name: x for x in dataclasses.fields(made) if x.init}
    if "num_classes" not in fields:
        raise UserError(
            f"{given} has no attribute num_classes; write `num_classes: int` in the "
            "class, and let the last layer have as many units"
        )
    known = {"num_classes": num_classes, "dtype": dtype}
    known["layers"] = Layers.from_options(options, dtype)
    values = {name: x for name, x in known.items() if name in fields}
    unset = dataclasses.MISSING
    for name, field in fields.items():
        if (field.default, field.default_factory) == (unset, unset):
            if name not in values:
                raise UserError(f"{given}: the attribute {name} needs a default")
    if dtype != jnp.float32 and not {"dtype", "layers"} & values.keys():
        raise UserError(
            f"{given} computes in float32 whatever --precision is: it has no attribute "
            "dtype; write `dtype: Any = jnp.float32` and give it to the layers, or "
            "leave --precision out"
        )
    with explaining(options.model):
        return made(**values)


def _check_model(given: str, model: Any) -> None:
    """Refuse what is no module, cannot be compared, or is called in another way."""
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{given} returns {type(model).__name__}; return a flax.linen.Module"
        )
    try:
        hash(model)
    except TypeError as error:
        raise UserError(
            f"{given} cannot be compared with another one ({error}); let its "
            "attributes be numbers, strings, tuples and functions"
        ) from None
    arguments = inspect.signature(type(model).__call__).parameters
    train = arguments.get("train")
    if train is None or train.default is not False:
        raise UserError(
            f"{given} has no argument train=False; write "
            "`def __call__(self, x, train=False)`"
        )


def check_options(options: ModelOptions, recompute_statistics: int = 0) -> None:
    """Refuse options that a model of the user has no place for.

    Args:
        recompute_statistics: as the option.

    Raises:
        UserError: naming the flags, and what would read them; or as `create`.
    """
    if own_code.split(options.model) is None:
        return
    model = create(options, 2, jnp.float32)
    made = own_code.load("model", options.model)
    usual, problems = ModelOptions(), []
    changed = [n for n in _RATES if getattr(options, n) != getattr(usual, n)]
    named = inspect.signature(type(model).__call__).parameters
    for name in changed:
        if name not in named:
            problems.append((name, f"argument {name} of __call__"))
    without = not hasattr(model, "layers")
    if isinstance(made, type) and without:
        changed = [n for n in _OF_LAYERS if getattr(options, n) != getattr(usual, n)]
        problems += [(name, _LAYERS) for name in changed]
    if without and recompute_statistics:
        problems.append(("recompute_statistics", _LAYERS))
    if problems:
        raise UserError(
            *(
                f"--{name} would have no effect: --model={options.model} has no "
                f"{wanted}; leave it out"
                for name, wanted in problems
            )
        )


def check_call(
    options: ModelOptions,
    model: nn.Module,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> None:
    """Refuse a model of the user that computes something else; by shapes alone.

    Args:
        options: of the model; one of this program's own is not looked at.
        image_shape: (H, W, C).

    Raises:
        UserError: it raises something, returns another shape than [N, K], or has
            variables of another kind or type.
    """
    if own_code.split(options.model) is None:
        return
    images = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)

    def run(images: jax.Array) -> tuple[Any, Any, Any]:
        key = jax.random.key(0)
        variables = model.init(key, images, train=False)
        kept = {n: x for n, x in variables.items() if n in _COLLECTIONS[:2]}
        trained, _ = model.apply(
            kept,
            images,
            train=True,
            **select_rates(model, dict.fromkeys(_RATES)),
            rngs={"dropout": key},
            mutable=["batch_stats", "auxiliary"],
        )
        return variables, model.apply(kept, images, train=False), trained

    with explaining(options.model):
        variables, *results = jax.eval_shape(run, images)
    given = f"--model={options.model}"
    for logits in results:
        if getattr(logits, "shape", None) != (2, num_classes):
            found = getattr(logits, "shape", type(logits).__name__)
            raise UserError(
                f"{given} returns {found} for 2 images of "
                f"{'x'.join(map(str, image_shape))}; return logits [N, num_classes], "
                f"here (2, {num_classes})"
            )
    for name in variables.keys() - {*_COLLECTIONS}:
        raise UserError(
            f"{given} has variables {name}; a run keeps params and batch_stats alone"
        )
    if not variables.get("params"):
        raise UserError(f"{given} has no parameters, so that nothing can be trained")
    for path, leaf in flatten_paths({"params": variables["params"]}).items():
        if leaf.dtype != jnp.float32:
            raise UserError(f"{given}: {path} is {leaf.dtype}; let it be float32")


@contextlib.contextmanager
def explaining(model: str, note: str = "") -> Iterator[None]:
    """Turn what the code of a user's model raises into a UserError that names the line.

    Args:
        model: its name; of one that is the program's nothing is turned.
        note: what to add.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or own_code.split(model) is None:
            raise
        said = own_code.describe_failure(error, own_code.find_file(model))
        raise UserError(f"--model={model}: {said}{note}") from error


# What to do where a model cannot be traced for exports.
ANY_NUMBER = (
    ". The number of images is a symbol here: write x.shape[0] in place of len(x). The "
    "weights come into a mended file by --export_format=msgpack, then --mode=convert"
)

FAMILY = Family(
    "of your own, a flax.linen.Module in a file",
    {},
    (Pattern("FILE.py:NAME", r"(?s).+\.py:.*", (), create, DIGITS),),
)
