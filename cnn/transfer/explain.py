"""Refusals: what of a source does not fit, leaf by leaf, and which flag explains it."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np

from cnn import models
from cnn.errors import UserError
from cnn.models.options import ModelOptions
from cnn.option import format_value, read_group
from cnn.transfer.merge import PROBLEMS, Comparison
from cnn.transfer.source import Source
from cnn.weights import lookalikes, names
from cnn.weights.flax_names import split_collection

_SHOWN = 12


def check_fit(comparison: Comparison, options: ModelOptions, has_flags: bool) -> None:
    """Refuse a source that does not fit.

    Args:
        options: of the model.
        has_flags: whether flags explain that the source is of another model.

    Raises:
        UserError: a leaf is missing, unexpected, of another shape or dtype, or holds
            NaN or infinity, each named with the flag that would explain it; or the
            source is of another model, or needs other options.
    """
    name, kinds, model = comparison.source.name, comparison.kinds, options.model
    lookalikes.check(options, comparison.source.says, name)
    theirs = comparison.source.description.get("options", {}).get("model", model)
    parts = [f"--init_from={name} does not fit --model={model}"]
    if theirs != model:
        parts[0] += f": it is of --model={theirs}"
    for problem in PROBLEMS:
        lines = [_explain(comparison, problem, leaf) for leaf in sorted(kinds[problem])]
        if lines:
            parts.append(f"{problem} ({len(lines)} leaves):")
            parts += [f"  {line}" for line in lines[:_SHOWN]]
            parts += ["  …"] * (len(lines) > _SHOWN)
    if len(parts) > 1 or (theirs != model and not has_flags):
        raise UserError("\n  ".join(parts))
    if spelling := comparison.spelling:
        names.check_spelling(spelling, options, name)
    for path, array in comparison.taken.items():
        if bad := int(np.sum(~np.isfinite(array))):
            raise UserError(
                f"--init_from={name}: {path} holds {bad} numbers that are NaN or "
                "infinite; take an earlier checkpoint, or draw it at random with "
                f"--init_reset={split_collection(path)[1]}"
            )


def check_same_function(
    source: Source, options: ModelOptions, num_classes: int, shape: tuple[int, int, int]
) -> None:
    """Refuse weights that another choice of the model's options computed with.

    Two models may have the same leaves and compute something else with them, as with
    another activation function. Everything but the source is of our model.

    Raises:
        UserError: naming the options that differ.
    """
    stored = source.description.get("options")
    if stored is None:
        return
    there = read_group(ModelOptions, stored)
    different = [
        f"--{field.name}={format_value(getattr(there, field.name))}"
        for field in dataclasses.fields(ModelOptions)
        if field.metadata["kind"] == "static"
        and getattr(there, field.name) != getattr(options, field.name)
    ]
    if not different or there.model != options.model:
        return
    try:
        texts = {_trace(each, num_classes, shape) for each in (there, options)}
    except UserError:
        return  # their choices do not take our images: the leaves decide
    if len(texts) == 2:
        raise UserError(
            f"--init_from={source.name}: the source computes otherwise with the same "
            f"weights; it has {', '.join(different)}. Give these too"
        )


def _trace(options: ModelOptions, classes: int, shape: tuple[int, int, int]) -> str:
    """Write out what a model computes."""
    model = models.create_model(options, classes)
    images = jnp.zeros((1, *shape), jnp.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    program = jax.make_jaxpr(model.apply)(shapes, images)
    return re.sub(r" at 0x[0-9a-f]+", "", str(program))


def _explain(comparison: Comparison, problem: str, leaf: str) -> str:
    inside = split_collection(leaf)[1]
    shapes, there = comparison.shapes, comparison.theirs.get(leaf)
    if problem == "unexpected":
        return f"{leaf} {list(there.shape)}: --init_skip={inside}"
    if problem == "missing":
        return f"{leaf} {list(shapes[leaf].shape)}: {_find_remedy(comparison, leaf)}"
    if problem == "differently shaped":
        return (
            f"{leaf} is {list(there.shape)}, not {list(shapes[leaf].shape)}: give the "
            f"source's architecture, or --init_reset={inside}"
        )
    return f"{leaf} is {there.dtype}, not {shapes[leaf].dtype}: --init_reset={inside}"


def _find_remedy(comparison: Comparison, leaf: str) -> str:
    """Return the flags that would explain a missing leaf."""
    collection, inside = split_collection(leaf)
    remedy, wanted = f"--init_reset={inside}", inside
    shape = comparison.shapes[leaf].shape
    if entry := comparison.entries.get(leaf):
        collection, wanted, shape = "", entry.name, entry.torch_shape
    alike = [
        split_collection(name)[1]
        for name, array in comparison.kinds["unexpected"].items()
        if split_collection(name)[0] == collection and array.shape == shape
    ]
    here = f"it is {wanted} there; " if wanted != inside else ""
    if len(alike) == 1:
        return f"{here}--init_rename='{alike[0]}->{wanted}', or {remedy}"
    if alike:
        some = ", ".join(alike[:4])
        return (
            f"{here}--init_rename='OLD->{wanted}' with OLD one of {some}, or {remedy}"
        )
    return here + remedy
