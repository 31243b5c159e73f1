"""What a run starts from and what of it trains when: made before anything compiles."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from cnn.config import Config
from cnn.data.images import Dataset
from cnn.errors import UserError
from cnn.models import auxiliary
from cnn.models.variables import create_variables, flatten_paths
from cnn.optim import clipping, freezing, muon, paths
from cnn.optim.freezing import Phase
from cnn.optim.layer_rates import Rates, make_rates
from cnn.option import split_numbers
from cnn.runtime.terminal import Terminal
from cnn.training import statistics
from cnn.training.setup import Plan
from cnn.training.steps import Structure
from cnn.transfer import explain, merge, whitening
from cnn.transfer.merge import choose_reset
from cnn.transfer.optimizer_state import take_state
from cnn.transfer.source import Source
from cnn.weights.flax_names import split_collection


def make_plan(
    config: Config,
    source: Source | None,
    stored: Mapping[str, Any],
    structure: Structure,
    description: Mapping[str, Any],
    dataset: Dataset,
    terminal: Terminal,
) -> Plan:
    """Merge the source, find what is frozen, and show both.

    Args:
        source: the weights; None without, and for a run that is resumed.
        stored: as of `open_start`.
        description: of it, as of `summary.describe_model`.

    Raises:
        UserError: source and model do not fit, or what is frozen makes no sense.
    """
    image_shape, options = tuple(description["input_shape"]), config.transfer
    variables = jax.eval_shape(
        lambda: create_variables(structure.model, 0, image_shape)
    )
    params = flatten_paths(variables["params"])
    run_order = [layer["path"] for layer in description["layers"]]
    layers = paths.order_layers(run_order, list(params))
    phases = freezing.make_phases(
        config.freezing, layers, variables, config.train.epochs
    )
    statistics.check(config.train.recompute_statistics, phases)
    rates = _make_rates(config, layers, params)
    clipping.check_clipped(config.optimizer, list(params), phases)
    shapes = flatten_paths(variables)
    found = None
    if source is not None:
        reset = choose_reset(config, source, shapes, layers[-1], dataset, terminal)
        name = config.model.model
        found = merge.compare(source, name, shapes, layers, options, reset)
    _show_leaves(found, phases[0], shapes, terminal)
    taken = {}
    about = {x: y for x, y in stored.get("transfer", {}).items() if x != "frozen"}
    if found is not None:
        _check_merge(config, found, phases[0], len(dataset.class_names), image_shape)
        taken = merge.nest(found.taken)
        about = {"source": source.name, "source_sha256": source.sha256}
        about |= {"source_checkpoint": config.checkpoint.checkpoint}
        about |= {kind: sorted(found.kinds[kind]) for kind in ("reset", "adapted")}
        if options.keep_optimizer:
            rule = dataclasses.replace(structure.rule, phase=phases[0])
            taken |= take_state(config, found, rule, variables["params"])
            terminal.say("optimizer its state is the source's; steps start again")
        _print_adapted(source, found.kinds["adapted"], image_shape, terminal)
        for layer in found.absent:
            terminal.say(f"note      the source has no {layer}; it is drawn at random")
    elif options.whitening_images and not stored:
        path = whitening.find_kernel(config.model.model, layers, shapes)
        shape, pixels = shapes[path].shape, (structure.mean, structure.std)
        kernel = whitening.compute_kernel(options, shape, pixels, dataset.train)
        taken = merge.nest({path: kernel})
        terminal.say(f"whitened  {path}")
    _print_phases(phases, shapes, terminal)
    return Plan(phases, rates, taken, about)


def _make_rates(
    config: Config, layers: Sequence[str], params: Mapping[str, Any]
) -> Rates:
    """Make the rates by layer, and refuse those that the optimizer would undo."""
    options = config.freezing
    named, until = (
        split_numbers(flag, getattr(options, flag))[0]
        for flag in ("learning_rate_for", "train_until")
    )
    rates = make_rates(named, layers, list(params), until)
    if config.optimizer.optimizer == "muon_sgd":
        for path, _, number, _ in rates:
            is_stepped = muon.is_stepped(path, params[path])
            if is_stepped and (number >= 0 or options.layer_decay):
                flag = "learning_rate_for" if number >= 0 else "layer_decay"
                raise UserError(
                    f"--{flag} does not change how {path} is trained: under "
                    "--optimizer=muon_sgd the length of a convolution's step is "
                    "--muon_learning_rate; name biases and the head alone"
                )
    return rates


def _show_leaves(
    found: merge.Comparison | None,
    phase: Phase | None,
    shapes: Mapping[str, Any],
    terminal: Terminal,
) -> None:
    """Print how many leaves are taken, and how many are frozen at first."""
    kinds = {} if found is None else dict(found.kinds)
    if phase is not None:
        kinds["frozen"] = {p: x for p, x in shapes.items() if phase.is_frozen(p)}
    if kinds:
        terminal.show(merge.make_table(kinds))


def _check_merge(
    config: Config,
    found: merge.Comparison,
    phase: Phase | None,
    num_classes: int,
    image_shape: tuple[int, int, int],
) -> None:
    """Refuse a source that does not fit the model, or what is frozen at first."""
    options = config.transfer
    has_flags = bool(options.init_reset or options.init_skip or options.init_rename)
    explain.check_fit(found, config.model, has_flags)
    for path in found.kinds["reset"]:
        if phase is not None and phase.is_frozen(path) and not _is_idle(phase, path):
            raise UserError(
                f"{path} is drawn at random and frozen, so it would stay random; let "
                "it train, or take it from the source with another --init_reset"
            )
    static = config.make_static().model
    explain.check_same_function(found.source, static, num_classes, image_shape)


def _is_idle(phase: Phase, path: str) -> bool:
    """Return whether a leaf is of an auxiliary classifier that nothing reads."""
    layers = auxiliary.list_layers([split_collection(path)[1]])
    return any(not phase.trains(layer) for layer in layers)


def _print_adapted(
    source: Source,
    adapted: Mapping[str, Any],
    image_shape: tuple[int, int, int],
    terminal: Terminal,
) -> None:
    for path, array in adapted.items():
        how = "summed over" if array.shape[2] == 1 else "shared among"
        terminal.say(f"adapted   {path} is {how} the channels: {list(array.shape)}")
    theirs = tuple(source.description.get("image_shape", image_shape))
    if theirs[:2] != image_shape[:2]:
        there, here = ("x".join(map(str, x[:2])) for x in (theirs, image_shape))
        terminal.say(
            f"adapted   images of {there} there and {here} here: nothing to do"
        )


def _print_phases(
    phases: Sequence[Phase | None], shapes: Mapping[str, Any], terminal: Terminal
) -> None:
    for phase in phases:
        if phase is None:
            continue
        layers = dict.fromkeys(
            path.split("/")[1]
            for path in shapes
            if path.startswith("params/") and not phase.is_frozen(path)
        )
        terminal.say(
            f"phase     from epoch {phase.first_epoch} on: {len(phase.trained)} "
            f"leaves train ({', '.join(layers)}); statistics of {len(phase.moving)} "
            "batch normalisations move"
        )
