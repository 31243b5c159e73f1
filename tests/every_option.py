"""Choices under which an option is read, and such under which it is not.

Both are derived from what the options declare (`only_for`, `modes`) and from `VALUES`,
another value for each option. Choices are mappings by flag name.
"""

import contextlib
import functools
import itertools

from cnn import condition
from cnn.config import list_conditions, list_fields
from cnn.option import read_interval

# Values of the options that have no choices and whose other value does not follow from
# their type and range; where a condition asks that an option be on, it has this one.
VALUES = {
    # model, in place of all models, which test_every_model.py has
    "widths": (3, 5),
    "dense_widths": (3,),
    "mlp_widths": (3,),
    "local_widths": (3,),
    "wrn_block": (3, 1),
    "dropblock_size": (5, 3),
    "airbench_width": 2,
    "auxiliary_weight": 0.5,
    "kernel_size": 5,
    # data: {…} are the directories and files that the fixture `files` makes
    "dataset": "npz:{npz}",
    "task": "multilabel",
    "data_dir": "{other_tfds}",
    "train_split": "test",
    "validation_split": "train[12:]",
    "test_split": "train[:5]",
    "num_classes": 12,
    "classes": (1, 0),
    "image_size": 7,
    "image_size_schedule": ("0:6", "1:7"),
    "eval_image_size": 9,
    "eval_resize_size": 10,
    "channels": 3,
    "resize_size": 11,
    "storage_size": 9,
    "validation_fraction": 0.25,
    "train_examples": 40,
    "drop_examples": "{drop}",
    "mean": (0.25,),
    "std": (0.5,),
    "preprocessing": "published",
    # augmentation
    "augment_repeats": 2,
    "random_resized_crop_min_area": 0.5,
    "random_resized_crop_max_area": 0.75,
    "random_resized_crop_aspect": 1.5,
    "crop_padding": 1,
    "scale_min": 0.5,
    "scale_max": 1.5,
    "blur_size": 7,
    "policy_magnitude": 5.0,
    # update
    "milestones": (1.0,),
    "freeze": ("stage1", "stage2"),
    "freeze_through": "stage2",
    "train_only": ("head",),
    "unfreeze": ("stage1:1",),
    "learning_rate_for": ("head=0.5",),
    "train_until": ("head=1",),
    "lookahead_every_steps": 3,
    # distillation
    "teacher": "{run}",
    "teacher_model": "mlp",
    "teacher_mean": (0.5,),
    "teacher_std": (0.5,),
    "ema_every_steps": 3,
    "plateau_patience": 1,
    "plateau_threshold": 0.5,
    # runs
    "name": "mine",
    "batch_size": 8,
    "accumulate_steps": 2,
    "init_from": "{run}",
    "init_reset": ("head",),
    "init_skip": ("params/head/.*",),
    "init_rename": ("stage1->stage2",),
    "init_key": "model_ema",
    "whitening_images": 20,
    "cached_views": 2,
    "cache_features": "never",
    "resident": "never",
    "storage_cache": "{new}/cache",
    "select_by": "loss",
    "loss": "bce",
    "cpu_kernels": "onednn",
    "mesh": "data:1",
    "precision": "bfloat16",
    "compilation_cache": "off",
    "canary": "off",
    "distributed": "localhost:1,1,0",
    "profile": "{new}/trace",
    "profile_steps": "2:3",
    "checkpoint_every_epochs": 0.5,
    "keep_checkpoints": 1,
    "checkpoint": "best",
    "keep_optimizer": True,
    "log_every_steps": 1,
    "eval_every_epochs": 2,
    # other modes
    "predict_images": "{folder}/train/a/*.png",
    "pictures": ("kernels",),
    "output": "{new}/pictures",
    "coordinate_widths": (1.0, 0.5),
    "picture_examples": (3,),
    "picture_files": "{folder}/train/a/*.png",
    "picture_layers": ("stage1",),
    "picture_classes": ("3",),
    "picture_channels": 2,
    "picture_sample": 7,
    "invariance_images": 9,
    "step": 2,
    "source": "{weights}",
    "class_names": "{names}",
    "sweep": "learning_rate=0.1,0.2",
    "trials": 2,
    "max_trials": 2,
    "trials_at_once": 1,
    "halving": 2,
    "storage": "{new}/journal.log",
    "study": "other",
    "worker": "other",
    "worker_timeout": 30.0,
    "from_trial": "{sweep}:1",
    "extend": "{run}",
    "where": "seed=1",
    "group_by": ("model",),
}
# One value for each kind that patterns of conditions name.
SAMPLES = {
    "model": ("simple_cnn", "mlp"),
    "dataset": ("digits", "folder:{folder}", "csv:{csv}", "npz:{npz}", "tfds:tiny"),
    "pictures": tuple(
        (name,)
        for name in (
            "all curves mistakes suspects fine_tuning architecture kernels features "
            "patches maximisation saliency invariance augmentation transformations "
            "lecture playground coordinate_check"
        ).split()
    ),
}

# What else must be given with a value, for other reasons than that it be read.
COMPANIONS = {
    ("optimizer", "muon_sgd"): {"decoupled_rates": True},
    ("schedule", "plateau"): {"validation_fraction": 0.25},
    ("warmup_kind", "constant"): {"warmup_start_factor": 0.5},
    ("policy", "augmix"): {"policy_magnitude": 3.0},
    ("policy", "randaugment_increasing"): {"policy_magnitude": 6.0},
    ("search", "optuna"): {"trials": 2},
}
COMPANIONS |= {
    (name, value): {"channels": 3}
    for name, value in (
        ("saturation", 0.5), ("hue", 0.25), ("greyscale_probability", 0.5),
        ("lighting_std", 0.5),
    )
}  # fmt: skip


def complete(choices, name):
    """Return choices with what must be given with them, but for one option."""
    found = {}
    for pair in choices.items():
        with contextlib.suppress(TypeError):
            found |= COMPANIONS.get(pair, {})
    found.pop(name, None)
    return found | choices


def choose_value(name):
    """Return another value of an option than its default; one that is on, if any is."""
    field = list_fields()[name]
    if name in VALUES:
        return VALUES[name]
    if name in SAMPLES:
        return SAMPLES[name][1]
    if field.metadata["choices"]:
        others = [x for x in field.metadata["choices"] if x != field.default]
        return others[0]
    if field.type is bool:
        return not field.default
    if field.type is int:
        return field.default + 1
    if field.type is float:
        low, high, _ = read_interval(field.metadata["within"])
        ends = min(high, low + 1, 2 * field.default or high)
        return (low + ends) / 2 if (low + ends) / 2 != field.default else ends * 0.75
    raise AssertionError(f"--{name} needs a value in tests/every_option.py: VALUES")


def list_values(name):
    """List the values of an option that its conditions may tell apart."""
    field = list_fields()[name]
    values = SAMPLES.get(name) or field.metadata["choices"]
    return list(values) or [field.default, choose_value(name)]


@functools.cache
def list_read(name, mode):
    """List choices under which an option is read in a mode, one for each of its kinds.

    Each alternative of each of its conditions is among them, with each value that it
    names.
    """
    return _drop_equal(c for c in _satisfy(name, mode) if _reads(name, mode, c))


@functools.cache
def list_unread(name, mode):
    """List choices under which an option is not read in a mode that can read it.

    They are those of `list_read` with the value of one option changed.
    """
    mentioned = _list_mentioned(name)
    found = []
    for base in list_read(name, mode):
        for other in mentioned:
            for value in list_values(other):
                changed = base | {other: value}
                if not _reads(name, mode, changed):
                    found.append(changed)
    return _drop_equal(found)


def _drop_equal(found):
    kept = {}
    for choices in found:
        defaults = {n: list_fields()[n].default for n in choices}
        plain = {n: x for n, x in choices.items() if x != defaults[n]}
        kept.setdefault(repr(sorted(plain.items())), plain)
    return list(kept.values())


def _reads(name, mode, choices):
    # As Config.find_unread does, which makes a config first, thousands of times here.
    defaults = {n: field.default for n, field in list_fields().items()}
    flat = defaults | choices | {"mode": mode}
    return condition.is_read(name, list_conditions(), flat)


@functools.cache
def _list_mentioned(name):
    """List the options that the conditions of an option name, theirs included."""
    found = {}
    for text in list_conditions()[name]:
        for term in itertools.chain(*condition.parse(text)):
            if term.name not in ("mode", name):
                found[term.name] = None
                found |= dict.fromkeys(_list_mentioned(term.name))
    return tuple(found)


def _satisfy(name, mode):
    """Yield choices that make every condition of an option hold."""
    ways = []
    for text in list_conditions()[name]:
        ways.append(
            [c for terms in condition.parse(text) for c in _satisfy_terms(terms, mode)]
        )
    for parts in itertools.product(*ways):
        merged = {}
        for part in parts:
            if any(merged.get(n, x) != x for n, x in part.items()):
                break
            merged |= part
        else:
            yield merged


def _satisfy_terms(terms, mode):
    ways = []
    for term in terms:
        if term.name == "mode":
            ways.append([{}] if term.holds(mode) else [])
            continue
        values = [x for x in list_values(term.name) if term.holds(x)]
        if not term.is_negated:
            values = _choose_each(term, values)
        if not values:
            values = [choose_value(term.name)]
        deeper = _satisfy(term.name, mode) if not term.is_negated else [{}]
        ways.append([one | {term.name: x} for one in deeper for x in values])
    for parts in itertools.product(*ways):
        yield functools.reduce(lambda one, other: one | other, parts, {})


def _choose_each(term, values):
    """Return one value for each pattern of a term."""
    if not term.values:
        return values[-1:]
    found = []
    for pattern in term.values:
        one = condition.Term(term.name, (pattern,))
        found += [x for x in values if one.holds(x)][:1]
    return list(dict.fromkeys(found))
