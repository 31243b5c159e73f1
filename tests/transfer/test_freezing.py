"""What is frozen stays so to the bit, costs no gradient, and unfreezes on time."""

import contextlib
import dataclasses
import json
import logging
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import read_lines
from fixtures_transfer import plant, read_arrays, train_source, tune
from test_resume import Stopper

from cnn import config as config_module
from cnn import models
from cnn.errors import UserError
from cnn.evaluation import evaluate
from cnn.models import summary
from cnn.models.variables import create_variables, flatten_paths
from cnn.optim import freezing, paths
from cnn.optim.options import FreezingOptions
from cnn.runtime.interrupt import Interrupted
from cnn.runtime.terminal import Terminal
from cnn.training import steps
from cnn.training.state import make_state
from cnn.training.trained import load_trained

SOME = {"freeze_through": "stage2", "ema_decay": 0.9, "weight_decay": 0.01}
GRADUAL = {
    "train_only": ("head",),
    "unfreeze": ("stage3:1", "stage2:2"),
    "ema_decay": 0.9,
    "weight_decay": 0.01,
    "cache_features": "never",
    "epochs": 4,
}
STEPS_PER_EPOCH = 5


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a trained run on digits 0-4; not to be changed."""
    directory = tmp_path_factory.mktemp("source") / "run"
    train_source(directory)
    return directory


@pytest.mark.parametrize(
    "devices, frozen", [(1, "stage2"), (2, "stage2"), (2, "stage3")]
)
def test_frozen_is_unchanged_over_200_steps(source, tmp_path, devices, frozen):
    options = SOME | {"freeze_through": frozen, "epochs": 40, "batch_size": 20}
    options |= {"eval_every_epochs": 20, "checkpoint_every_epochs": 20.0}
    result = tune(tmp_path, source, mesh=f"data:{devices}", **options)
    assert result["steps"] == 200 and result["frozen_unchanged"] is True
    assert result["device"].startswith(str(devices))
    there, here = read_arrays(source), read_arrays(tmp_path)
    layers = ["stage1", "stage2", "stage3"][: int(frozen[-1])]
    same = [path for path in there if path.split("/")[1].split("_")[0] in layers]
    assert result["frozen_leaves"] == len(same) == 5 * len(layers)
    for path in there:
        is_same = there[path].tobytes() == here[path].tobytes()
        assert is_same == (path in same), path


def remove_selection(monkeypatch):
    monkeypatch.setattr(freezing, "select_trained", lambda phase, params: params)


def remove_inference(monkeypatch):
    monkeypatch.setattr(
        freezing, "hold_statistics", lambda phase: contextlib.nullcontext()
    )


def remove_average(monkeypatch):
    monkeypatch.setattr(freezing, "keep_frozen", lambda phase, before, after: after)


@pytest.mark.parametrize("remove", [remove_selection, remove_inference, remove_average])
def test_the_proof_fails_without_each_protection(
    source, tmp_path, monkeypatch, remove, fresh_programs
):
    remove(monkeypatch)
    with pytest.raises(UserError, match="frozen leaves differ from their source"):
        tune(tmp_path, source, epochs=2, **SOME)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["frozen_unchanged"] is False


def test_evaluation_proves_it_again(source, tmp_path):
    result = tune(tmp_path / "tuned", source, epochs=1, **SOME)
    config = config_module.make_config({"classes": (5, 6, 7, 8, 9)})
    head = ["params/head/bias", "params/head/kernel"]
    about = load_trained(tmp_path / "tuned").transfer
    assert about["reset"] == head and about["adapted"] == []
    found = evaluate.evaluate(config, tmp_path / "tuned", Terminal())
    for name in ("frozen_leaves", "frozen_unchanged", "source_sha256"):
        assert found[name] == result[name]
    leaf = "batch_stats/stage2_norm/mean"

    def change(arrays):
        arrays[leaf][0] = np.nextafter(arrays[leaf][0], 1, dtype=np.float32)

    options = {"ema_decay": 0.0}
    changed = plant(tmp_path / "tuned", tmp_path / "changed", change, **options)
    with pytest.raises(UserError, match=f"1 frozen leaves differ.*{leaf}"):
        evaluate.evaluate(config, changed, Terminal())


@pytest.fixture(scope="module")
def gradual(source, tmp_path_factory):
    """Return result and lines of a gradual run that was never stopped."""
    directory = tmp_path_factory.mktemp("gradual")
    result = tune(directory, source, **GRADUAL)
    return result["state_sha256"], read_lines(directory)


@pytest.mark.parametrize("step", [3, 5, 7, 10, 12])
def test_resuming_amid_unfreezing_is_exact(source, gradual, tmp_path, no_pauses, step):
    """The source is needed no more once there is a checkpoint."""
    origin = shutil.copytree(source, tmp_path / "source")
    with pytest.raises(Interrupted):
        tune(tmp_path / "run", origin, Stopper(step), **GRADUAL)
    shutil.rmtree(origin)
    result = tune(tmp_path / "run", origin, **GRADUAL)
    assert (result["state_sha256"], read_lines(tmp_path / "run")) == gradual


def test_each_phase_is_compiled_once(source, tmp_path, caplog):
    options = GRADUAL | {"epochs": 5, "momentum": 0.0}  # which no other test compiles
    with caplog.at_level(logging.DEBUG, "jax"), jax.log_compiles():
        tune(tmp_path, source, **options)
    messages = [record.getMessage() for record in caplog.records]
    # If jax words its log otherwise, nothing is counted and this fails.
    assert sum("XLA compilation of jit(train_chunk" in x for x in messages) == 3


@pytest.fixture
def tiny(make_structure):
    """Return a structure with three stages, its variables and its layers."""
    structure = make_structure(model="simple_cnn", widths=(4, 8, 8))
    variables = jax.jit(
        lambda seed: create_variables(structure.model, seed, (8, 8, 1))
    )(0)
    rows = summary.describe_model(structure.model, (8, 8, 1))["layers"]
    params = flatten_paths(variables["params"])
    return structure, variables, paths.order_layers([x["path"] for x in rows], params)


def restrict(structure, phase):
    """Return the structure of the steps of a phase."""
    rule = dataclasses.replace(structure.rule, phase=phase)
    return dataclasses.replace(structure, rule=rule)


def test_an_unfrozen_leafs_state_starts_at_zero(tiny, make_numbers):
    structure, variables, layers = tiny
    options = FreezingOptions(train_only=("head",), unfreeze=("stage3:1",))
    first, second = freezing.make_phases(options, layers, variables, epochs=2)
    numbers = make_numbers(momentum=0.9)
    states = [
        make_state(restrict(structure, phase).rule, numbers, variables).opt_state
        for phase in (first, second)
    ]
    assert set(flatten_paths(states[0])) < set(flatten_paths(states[1]))
    moved = jax.tree.map(lambda x: x + 1, states[0])
    for path, x in flatten_paths(freezing.carry_over(moved, states[1])).items():
        assert np.all(x == (1 if "head" in path else 0)), path
        assert "head" in path or "stage3" in path


def count_flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def test_no_gradient_below_the_lowest_trained_layer(tiny, make_numbers, make_batch):
    structure, variables, layers = tiny
    numbers, batch = make_numbers(momentum=0.9), make_batch(8)

    def count(**options):
        options = FreezingOptions(**options)
        (phase,) = freezing.make_phases(options, layers, variables, epochs=1)
        changed = restrict(structure, phase)
        state = make_state(changed.rule, numbers, variables)
        step = lambda state, batch: steps.train_step(changed, state, batch, numbers)  # noqa: E731
        return count_flops(step, state, batch)

    forward = count_flops(
        lambda variables, images: steps.predict_step(structure, variables, images),
        variables,
        batch["images"],
    )
    head, last, everything = (
        count(train_only=("head",)),
        count(freeze_through="stage2"),
        count(),
    )
    assert head < 1.2 * forward
    assert head < last < 0.8 * everything
    assert everything > 2 * forward


FAMILIES = ["simple_cnn", "mlp", "resnet20", "wrn_10_1", "vgg11_bn", "squeezenet1_1"]
FAMILIES += ["googlenet"]


@pytest.mark.parametrize("name", [*FAMILIES, "densenet121", "mobilenet_v2"])
def test_layers_come_in_the_order_in_which_they_run(name):
    size, channels, classes = models.get_published_input(name)
    static = config_module.make_config({"model": name}).make_static().model
    description = summary.describe_model(
        models.create_model(static, classes), (size, size, channels)
    )
    rows = [row["path"] for row in description["layers"]]
    layers = paths.order_layers(rows, rows)
    stages = [x for x in paths.list_stages(layers) if x.startswith("stage")]
    assert layers[-1] == "head"
    assert stages == sorted(stages) and ("stem" not in layers or layers[0] == "stem")
    depths = paths.count_depths(layers)
    assert list(depths.values()) == sorted(depths.values(), reverse=True)
    if stages:
        through = paths.list_through(layers, stages[1], "freeze_through")
        inside = {x.split("_")[0] for x in through}
        assert inside >= set(stages[:2]) and not inside & {*stages[2:], "head"}


def test_the_head_is_the_last_layer_of_a_model_with_loose_parameters():
    """What is drawn at random for other classes is its head, not what precedes it."""
    params = ["head/bias", "head/kernel", "local1_kernel", "local2_kernel"]
    layers = paths.order_layers(["", "head"], params)
    assert layers == ("local1_kernel", "local2_kernel", "head")
    assert paths.order_layers([""], ["bias", "kernel"]) == ("bias", "kernel")


MISTAKES = [
    ({"freeze": ("stage9.*",)}, "--freeze=stage9.* matches nothing; did you mean"),
    ({"freeze": ("conv",)}, "--freeze=conv matches nothing"),
    ({"freeze": ("sta(",)}, "--freeze=sta( is no regular expression"),
    ({"train_only": ("haed",)}, "did you mean head"),
    ({"freeze_through": "stage7"}, "--freeze_through=stage7 is no stage; did you mean"),
    ({"freeze_through": "head"}, "Everything is frozen and nothing would train"),
    ({"freeze": (".*",)}, "Everything is frozen"),
    ({"unfreeze": ("stage1:1",)}, "nothing of it is frozen then"),
    (
        {"freeze_through": "stage2", "unfreeze": ("stage1:1", "stage1:2")},
        "--unfreeze=stage1:2: nothing of it is frozen then",
    ),
    ({"freeze": ("stage1",), "unfreeze": ("stage1",)}, "write pattern:epoch"),
    ({"freeze": ("stage1",), "unfreeze": ("stage1:3",)}, "are 1 to 2"),
    ({"freeze": ("stage1",), "unfreeze": ("stage1:0",)}, "are 1 to 2"),
    ({"batch_norm": False, "freeze_statistics": True}, "no batch normalisation"),
    ({"cache_features": "always"}, "give --train_only=head"),
    ({"learning_rate_for": ("stem=0.1",)}, "--learning_rate_for=stem matches nothing"),
    ({"learning_rate_for": ("head=much",)}, "write name=number"),
    ({"learning_rate_for": ("head=-1",)}, "--learning_rate_for=-1.0 is outside"),
    ({"layer_decay": 1.5}, "--layer_decay=1.5 is outside"),
    ({"freeze": ("head",)}, "params/head/bias is drawn at random and frozen"),
    ({"classes": (5, 5)}, "--classes=5,5: give labels from 0 to 9, each once"),
    ({"classes": (5, 10)}, "--classes=5,10: give labels from 0 to 9"),
]


@pytest.mark.parametrize("changes, message", MISTAKES)
def test_mistakes_are_refused(source, tmp_path, changes, message):
    with pytest.raises(UserError) as caught:
        tune(tmp_path / "run", source, **{"epochs": 3} | changes)
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_statistics_alone_may_stay(source, tmp_path):
    result = tune(tmp_path, source, epochs=1, freeze_statistics=True)
    there, here = read_arrays(source), read_arrays(tmp_path)
    assert result["frozen_leaves"] == 6
    for path in there:
        is_same = np.array_equal(there[path], here[path])
        assert is_same == path.startswith("batch_stats/"), path


def test_the_sources_scaling_is_used_unless_given(source, tmp_path, capsys):
    tune(tmp_path / "theirs", source, epochs=1)
    printed = capsys.readouterr().out
    assert "as the source's: mean 0.3" in printed
    found = load_trained(tmp_path / "theirs").structure
    assert found.mean == load_trained(source).structure.mean
    tune(tmp_path / "ours", source, epochs=1, scaling="unit")
    assert "scaled otherwise than the source's" in capsys.readouterr().out
    assert load_trained(tmp_path / "ours").structure.mean == (0.0,)


def test_frozen_normalisation_uses_its_statistics(tiny, make_numbers, make_batch):
    """The loss of a step with everything but the head frozen is that of inference."""
    structure, variables, layers = tiny
    numbers, batch = make_numbers(), make_batch(8)
    options = FreezingOptions(train_only=("head",))
    (phase,) = freezing.make_phases(options, layers, variables, epochs=1)
    structure = restrict(structure, phase)
    state = make_state(structure.rule, numbers, variables)
    _, sums, _ = jax.jit(steps.train_step, static_argnums=0)(
        structure, state, batch, numbers
    )
    mask = jnp.ones(8, bool)
    wanted = steps.eval_step(structure, variables, batch | {"mask": mask})
    np.testing.assert_allclose(sums["loss"], wanted["loss"], rtol=1e-6)
