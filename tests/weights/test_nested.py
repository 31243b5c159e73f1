"""Sets of weights in trees: which are found, and which one is taken."""

import numpy as np
import pytest

from cnn.errors import UserError
from cnn.weights.chosen_set import choose_set
from cnn.weights.nested import find_sets


def array(*shape):
    return np.zeros(shape, np.float32)


NAMES = {
    "conv1.weight": array(3, 3),
    "bn1.running_mean": array(3),
    "fc.weight": array(2, 3),
    "fc.bias": array(2),
}
FLAX = {"stem": {"kernel": array(3, 3)}, "head": {"kernel": array(3, 2)}}
STATISTICS = {"stem_norm": {"mean": array(3)}}
OPTIMIZER = {"state": {0: {"exp_avg": array(3)}}, "param_groups": [{"params": [0]}]}


def under(prefix, names=NAMES):
    return {prefix + name: x for name, x in names.items()}


WRAPPED = {
    "nothing": NAMES,
    "state_dict": {"epoch": 3, "state_dict": NAMES, "best": array()},
    "model": {"model": NAMES, "optimizer": OPTIMIZER},
    "two": {"model": {"state_dict": under("module.")}},
    "net": {"net": under("module."), "acc": 93.2},
    "any": {"mine": {"inside": NAMES}, "epoch": 3},
    "list": [NAMES],
    "paths": {f"params/{name}": x for name, x in NAMES.items()},
    "data parallel": under("module."),
    "compiled": under("_orig_mod."),
    "both": under("module._orig_mod."),
    "both turned": under("_orig_mod.module."),
    "inside": {n.replace(".", "._orig_mod.", 1): x for n, x in NAMES.items()},
    "sharded": under("_fsdp_wrapped_module."),
    "lightning": {"state_dict": under("model."), "callbacks": {}, "loops": {}},
    "with a loss": {"state_dict": under("model.") | {"criterion.weight": array(2)}},
    "averaged model": {"n_averaged": array(), **under("module.")},
    "backbone": under("backbone."),
    "ema alone": {"ema": {"module": NAMES, "updates": 3}},
    "an average in all names": under("ema_state_dict."),
    "another network beside": {"model": NAMES, "netD": {"a.weight": array(2)}},
    "with metrics": {
        "state_dict": under("model.") | {"train_acc.tp": array(2), "val_f1.tp": array()}
    },
    "a state with generators": {
        "state": {"model": under("module."), "rng": [{"torch": array(5)}]},
        "rng": [{"torch": array(5)}],
    },
    "a loss beside": {
        "model_state_dict": NAMES,
        "criterion_state_dict": {"weight": array(2)},
    },
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_weights_are_found_in_what_wraps_them(name):
    path, leaves, notes = choose_set(find_sets(WRAPPED[name], "f"), "", "f")
    assert leaves.keys() == NAMES.keys()
    assert all(leaves[key] is x for key, x in NAMES.items())
    assert bool(notes) == (WRAPPED[name] is not NAMES)
    assert not path or path in notes[0]


AVERAGES = {
    "model and model_ema": {"model": NAMES, "model_ema": under("module.")},
    "state_dict and its ema": {"state_dict": NAMES, "state_dict_ema": dict(NAMES)},
    "student and teacher": {"student": NAMES, "teacher": dict(NAMES)},
    "prefixes": {"state_dict": under("model.") | under("ema_model.")},
    "deeper prefixes": under("module.model.") | under("module.ema.module."),
    "params and ema_params": {"params": FLAX, "ema_params": dict(FLAX)},
}


@pytest.mark.parametrize("name", AVERAGES)
def test_weights_come_before_their_average_which_is_named(name):
    sets = find_sets(AVERAGES[name], "f")
    _, plain, notes = choose_set(sets, "", "f")
    (typed,) = [note for note in notes if "--init_key=" in note]
    key = typed.partition("--init_key=")[2].split()[0]
    path, average, notes = choose_set(sets, key, "f")
    assert average.keys() == plain.keys()
    assert "an average" in notes[0] and path in notes[0]


def test_an_optimizer_of_any_name_is_no_set():
    tree = {"model": NAMES, "sgd": OPTIMIZER}
    assert find_sets(tree, "f").keys() == {"model"}


def test_an_average_of_flax_has_the_averaged_statistics():
    averaged = {"stem_norm": {"mean": array(3)}}
    tree = {"params": FLAX, "ema_params": dict(FLAX), "batch_stats": STATISTICS}
    sets = find_sets(tree | {"ema_batch_stats": averaged}, "f")
    assert sets.keys() == {"params", "ema_params"}
    for path, statistics in (("params", STATISTICS), ("ema_params", averaged)):
        mean = sets[path]["batch_stats/stem_norm/mean"]
        assert mean is statistics["stem_norm"]["mean"]


def test_a_layer_of_flax_may_have_a_weight():
    (leaves,) = find_sets(FLAX | {"scaled": {"weight": array(3)}}, "f").values()
    assert sorted(leaves) == ["head/kernel", "scaled/weight", "stem/kernel"]


def test_what_is_beside_the_weights_of_flax_belongs_to_them():
    state = {
        "step": array(),
        "params": FLAX,
        "model_state": {"batch_stats": STATISTICS},
    }
    state |= {"opt_state": [{"mu": FLAX, "nu": FLAX}], "ema_params": dict(FLAX)}
    for key, tree in (("", state), ("model/params", {"model": state})):
        path, leaves, _ = choose_set(find_sets(tree, "f"), key, "f")
        assert path == (key or "params")
        assert sorted(leaves) == [
            "batch_stats/stem_norm/mean",
            "params/head/kernel",
            "params/stem/kernel",
        ]


@pytest.mark.parametrize(
    ("tree", "key", "words"),
    [
        ({}, "", "holds no weights"),
        ({"a": 3, "b": [None, "text"]}, "", "holds no weights"),
        ({"optimizer": OPTIMIZER}, "", "holds no weights"),
        ({"netG": NAMES, "netD": dict(NAMES)}, "", "--init_key=netG"),
        ({"ema": NAMES, "swa": dict(NAMES)}, "", "several.*--init_key=ema"),
        ({"model": NAMES}, "modle", "names nothing.*model .4 tensors"),
    ],
)
def test_what_does_not_follow_is_refused_with_what_there_is(tree, key, words):
    with pytest.raises(UserError, match=words):
        choose_set(find_sets(tree, "f"), key, "f")


def test_a_key_may_be_the_beginning_of_names():
    names = under("module.encoder_q.") | under("module.encoder_k.")
    sets = find_sets({"state_dict": names | {"module.queue": array(5)}}, "f")
    for key in ("encoder_q", "module.encoder_q", "state_dict/module/encoder_q"):
        assert choose_set(sets, key, "f")[1].keys() == NAMES.keys()


@pytest.mark.parametrize(
    "tree",
    [{"a": array(1), "a/b": array(2)}, {"a/b": array(1), "a": array(2)}],
)
def test_no_tensor_replaces_another_where_names_are_paths(tree):
    sets = find_sets(tree, "f")
    assert sorted(x.size for leaves in sets.values() for x in leaves.values()) == [1, 2]


def test_a_key_is_looked_for_at_the_end_of_paths_first():
    sets = {"a/ema/b": NAMES, "ema/b": NAMES, "a/ema": NAMES, "ema": NAMES}
    for path in reversed(list(sets)):
        assert choose_set(sets, "ema", "f")[0] == path
        del sets[path]


@pytest.mark.parametrize("inner", [NAMES, {"params": FLAX}])
def test_a_key_may_be_in_the_middle_of_a_path(inner):
    """The leaves keep their whole names then."""
    tree = {"model": {"ours": {"x": inner}}, "model_ema": {"other": {"x": inner}}}
    sets = find_sets(tree, "f")
    path, leaves, notes = choose_set(sets, "ours", "f")
    assert path.startswith("model/ours/x") and "model_ema/other" in notes[1]
    assert leaves.keys() == sets[path].keys()
    with pytest.raises(UserError, match="names several sets"):
        choose_set(sets, "x", "f")


def test_parts_of_one_model_are_one_set():
    parts = {
        "features": {"0.weight": array(3)},
        "classifier": {"0.weight": array(4, 4)},
    }
    _, leaves, _ = choose_set(find_sets(parts, "f"), "", "f")
    assert sorted(leaves) == ["classifier.0.weight", "features.0.weight"]
    parts = {"backbone": under(""), "head": {"weight": array(2)}}
    _, leaves, _ = choose_set(find_sets(parts, "f"), "", "f")
    assert sorted(leaves) == sorted([*NAMES, "head.weight"])


def test_a_tensor_that_no_wrapper_explains_is_kept():
    """So that the model that has no place for it refuses it."""
    for extra in ({"avg.weight": array(7)}, {"conv1.filt": array(3)}):
        _, leaves, _ = choose_set(find_sets(NAMES | extra, "f"), "", "f")
        assert leaves.keys() == NAMES.keys() | extra.keys()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_no_tensor_replaces_another_where_names_are_shortened(prefix):
    names = {f"{prefix}fc.weight": array(1), "fc.weight": array(2)}
    assert choose_set(find_sets(names, "f"), "", "f")[1] == names


def test_what_lies_deeper_than_any_weights_is_left_alone():
    tree = NAMES
    for _ in range(10_000):
        tree = {"a": tree}
    assert find_sets(tree, "f") == {}


def test_trees_that_are_endless_are_refused_at_once():
    tree = {"x": array(1)}
    for _ in range(50):
        tree = {"a": tree, "b": tree}
    with pytest.raises(UserError, match="f holds .* tensors; 1,000,000 are allowed"):
        find_sets(tree, "f")
