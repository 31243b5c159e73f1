"""Distillation: the losses, the step, and whom a run takes for its teacher."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path

import effects
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import make_setup, run_main, train_run
from PIL import Image

from cnn import models
from cnn.errors import UserError
from cnn.models import auxiliary
from cnn.models.options import ModelOptions
from cnn.models.variables import create_variables
from cnn.ops import scaling
from cnn.runtime.interrupt import Stop
from cnn.sweep import choose
from cnn.training import distillation, epoch, progress, report, steps
from cnn.training.distillation import Teacher
from cnn.training.state import TrainState
from cnn.training.trained import load_trained

GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "distillation.json").read_text()
)


@functools.partial(jax.jit, static_argnums=0)
def compute_gradients(structure, state, batch, numbers):
    """Return the gradients of a batch, and its metric sums."""
    prepared = steps.prepare_batch(structure, 0, batch, numbers)
    return steps.compute_gradients(structure, state, prepared, numbers)[::2]


STEP = jax.jit(steps.train_step, static_argnums=0)
# A student that is compiled fast, on the data of the run `trained`.
STUDENT = {"model": "logistic_regression", "train_examples": 100, "epochs": 2}
STUDENT |= {"batch_size": 20, "validation_fraction": 0.1}
# One that sees images of two sizes.
BY_EPOCH = {"model": "simple_cnn", "widths": (4,), "head": "global_average"}
BY_EPOCH |= {"image_size_schedule": ("0:6", "1:8")}


@pytest.mark.parametrize("name, temperature", [("soft1", 1), ("soft4", 4), ("hard", 1)])
def test_mean_and_gradient_equal_pytorch(name, temperature):
    compute, taught = distillation.LOSSES[name[:4]], jnp.float32(GOLDEN["taught"])

    def mean(logits):
        return jnp.mean(compute(logits, taught, jnp.float32(temperature)))

    loss, gradient = jax.value_and_grad(mean)(jnp.float32(GOLDEN["logits"]))
    np.testing.assert_allclose(loss, GOLDEN[name]["loss"], rtol=1e-6)
    assert_near(gradient, GOLDEN[name]["gradient"], 1e-6)


def assert_near(found, wanted, share):
    """Compare arrays, to a share of the largest."""
    most = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=share * most)


def nest(weights):
    dense, head = weights[:2], weights[2:]
    layers = {"dense1": dense, "head": head}
    params = {
        name: {"kernel": jnp.float32(kernel), "bias": jnp.float32(bias)}
        for name, (kernel, bias) in layers.items()
    }
    return {"params": params, "batch_stats": {}}


def make_mlp(width):
    return models.create_model(ModelOptions(model="mlp", mlp_widths=(width,)), 4)


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_twenty_steps_equal_pytorch(make_structure, make_numbers, start, kind, pieces):
    run, pixels = GOLDEN["runs"][kind], GOLDEN["scaling"]
    ours, theirs = pixels["student"], pixels["teacher"]
    teacher = Teacher(
        make_mlp(6),
        scale=(ours["std"] / theirs["std"],),
        shift=((ours["mean"] - theirs["mean"]) / theirs["std"],),
        kind=kind,
    )
    fields = {"teacher": teacher, "accumulate_steps": pieces}
    update = {"momentum": 0.9, "nesterov": False, "weight_decay": 0.0}
    structure = make_structure(fields, schedule="constant", **update)
    numbers = make_numbers(
        learning_rate=0.1,
        label_smoothing=GOLDEN["smoothing"],
        distillation_share=GOLDEN["share"],
        distillation_temperature=GOLDEN["temperature"],
        **update,
    )
    state = start(structure, numbers, (4, 4, 1))
    params, variables = nest(run["student"])["params"], nest(run["teacher"])
    state = state.replace(params=params, teacher=variables)
    images, labels = np.uint8(run["images"]), np.int32(run["labels"])
    found = []
    for step in range(20):
        rows = np.arange(8) + step % 2 * 8
        batch = {"images": images[rows], "labels": labels[rows], "ids": np.int32(rows)}
        state, _, step_metrics = STEP(structure, state, batch, numbers)
        found.append(step_metrics["loss"])
    np.testing.assert_allclose(found, run["losses"], rtol=2e-6)
    wanted = nest(run["trained"])["params"]
    jax.tree.map(lambda x, y: assert_near(x, y, 1e-6), state.params, wanted)
    jax.tree.map(np.testing.assert_array_equal, state.teacher, variables)


def test_a_teacher_is_in_evaluation_mode_and_sees_its_own_scaling(trained):
    run = load_trained(trained)
    variables = jax.device_get(run.variables)
    model = run.structure.model
    assert variables["batch_stats"]
    images = jnp.asarray(np.random.default_rng(0).random((6, 8, 8, 1)), jnp.float32)
    places = (7, 0, 3)
    teacher = Teacher(model, (2.0,), (-0.5,), places)
    found = distillation.compute_logits(teacher, variables, images)
    wanted = model.apply(variables, 2 * images - 0.5, train=False)[:, places]
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == jnp.float32


def test_images_reach_a_run_as_it_scales_them(trained):
    run, own = load_trained(trained), {"mean": (0.1,), "std": (3.0,)}
    setup = make_setup(STUDENT, own, {"teacher": str(trained)})
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    seen = scaling.scale_images(pixels, **own)
    teacher = setup.structure.teacher
    found = distillation.compute_logits(teacher, setup.teacher.variables, seen)
    wanted = steps.predict_step(run.structure, run.variables, pixels)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture
def differentiate(make_structure, make_numbers):
    """Return a function to the gradients of a batch, and its metric sums."""

    def create(model, seed):
        return jax.jit(lambda: create_variables(model, seed, (8, 8, 1)))()

    def compute(batch, fields, model=None, **numbers):
        structure = make_structure(fields)
        if model is not None:
            structure = dataclasses.replace(structure, model=model)
        variables, teacher = create(structure.model, 0), None
        if structure.teacher is not None:
            teacher = create(structure.teacher.model, 1)
        state = TrainState(jnp.int32(0), **variables, opt_state=(), ema=None)
        state = state.replace(teacher=teacher)
        return compute_gradients(structure, state, batch, make_numbers(**numbers))

    return compute


MLP = Teacher(make_mlp(6), (1.0,), (0.0,))


def assert_close(one, other):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), one, other
    )


def test_the_share_weighs_task_and_distillation(differentiate, make_batch):
    batch = make_batch(8)
    alone, sums = differentiate(batch, {})
    none, others = differentiate(batch, {"teacher": MLP}, distillation_share=0.0)
    assert_close(alone, none)
    whole, third = differentiate(batch, {"teacher": MLP}, distillation_share=1.0)
    for name in ("loss", "correct"):
        assert sums[name] == others[name] == third[name], "what evaluation computes"
    some, _ = differentiate(batch, {"teacher": MLP}, distillation_share=0.25)
    assert_close(some, jax.tree.map(lambda x, y: 0.75 * x + 0.25 * y, alone, whole))
    assert np.abs(whole["head"]["kernel"] - alone["head"]["kernel"]).max() > 0.01


def test_class_weights_weigh_examples(differentiate, make_batch):
    """From an example whose class weighs nothing, nothing is learnt."""
    batch = make_batch(8)
    chosen = batch["labels"] == batch["labels"][0]
    assert 0 < chosen.sum() < 8
    weights = tuple(float(k == batch["labels"][0]) for k in range(4))
    fields = {"teacher": MLP, "class_weights": weights}
    one, _ = differentiate(batch, fields, distillation_share=1.0)
    few = {name: x[chosen] for name, x in batch.items()}
    other, _ = differentiate(few, {"teacher": MLP}, distillation_share=1.0)
    assert_close(one, other)


class TwoHeads(nn.Module):
    """A head, and an auxiliary classifier."""

    auxiliary_weight: float = 0.3

    @nn.compact
    def __call__(self, x, train=False, dropout_rate=None, stochastic_depth_rate=None):
        x = x.reshape(len(x), -1)
        if auxiliary.is_computed(self, train):
            auxiliary.sow(self, "a_aux", nn.Dense(4, name="a_aux")(x))
        return nn.Dense(4, name="head")(x)


def test_auxiliary_classifiers_learn_the_task_alone(differentiate, make_batch):
    numbers = {"auxiliary_weight": 0.5, "distillation_share": 1.0}
    one, other = (
        differentiate(make_batch(8), fields, TwoHeads(), **numbers)[0]
        for fields in ({}, {"teacher": MLP})
    )
    assert_close(one["a_aux"], other["a_aux"])
    assert np.abs(one["head"]["kernel"] - other["head"]["kernel"]).max() > 0.01


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Return a run like `trained` with other weights."""
    directory = tmp_path_factory.mktemp("other") / "run"
    train_run(directory, epochs=1, seed=5)
    return directory


def lower(setup):
    """Return the program of a run's steps as text."""
    run, ids = progress.begin(setup), np.zeros((2, 20), np.int32)
    chunk, bounds = setup.loaders["train"].fill(ids, ids=ids), epoch.make_bounds(0, 1)
    arguments = run.state, run.sums, chunk, setup.numbers, bounds
    program = setup.phases[0].train_chunk
    return program.lower(*arguments, setup.teacher_variables).as_text()


def test_no_array_of_the_teacher_is_a_constant(trained, other):
    one, two = (make_setup(STUDENT, {"teacher": str(x)}) for x in (trained, other))
    assert one.teacher.about["sha256"] != two.teacher.about["sha256"]
    text = lower(one)
    assert text == lower(dataclasses.replace(one, teacher=two.teacher))
    arguments = text[text.index("@main(") : text.index(" -> ")]
    kernel = one.teacher.variables["params"]["stage1_conv"]["kernel"]
    assert kernel.shape == (3, 3, 1, 4)
    assert arguments.count("tensor<3x3x1x4xf32>") == 1


def train_trials(name, setup, configs):
    executor = choose.make_executor(name, setup, Stop(), len(configs))
    states, losses = executor.create(configs), []
    for number in (0, 1):
        states, found = executor.train_epoch(states, configs, number, [True] * 3)
        losses.append([x.losses for x in found])
    return executor, np.concatenate(losses, axis=1)


def test_trials_share_one_teacher_and_one_program(trained):
    base = make_setup(STUDENT, {"teacher": str(trained), "flip_probability": 0.5})
    configs = [
        base.config.change({"distillation_temperature": t, "distillation_share": s})
        for t, s in ((1.0, 0.5), (4.0, 0.5), (2.0, 0.0))
    ]
    assert len({config.make_program_key() for config in configs}) == 1
    _, wanted = train_trials("loop", base, configs)
    assert wanted.shape == (3, 10) and len(np.unique(wanted[:, -1])) == 3
    own = jax.tree.leaves(base.teacher.variables)
    for name in ("map", "vmap"):
        executor, losses = train_trials(name, base, configs)
        np.testing.assert_allclose(losses, wanted, rtol=1e-5)
        shared = jax.tree.leaves(executor._teacher)
        assert [x.shape for x in shared] == [x.shape for x in own], "one for all"
        assert not any(x.is_deleted() for x in (*shared, *own)), "none is donated"


def test_groups_of_a_sweep_share_a_teacher(trained, other):
    options = STUDENT | {"teacher": str(trained)}
    one = make_setup(options)
    two = make_setup(options, {"distillation": "hard"}, like=one)
    assert two.teacher is one.teacher and two.structure != one.structure
    three = make_setup(options, {"teacher": str(other)}, like=one)
    assert three.teacher is not one.teacher


def test_a_student_needs_no_teacher_once_it_is_trained(trained, tmp_path):
    teacher, run = tmp_path / "teacher", tmp_path / "run"
    shutil.copytree(trained, teacher)
    result = train_run(run, **STUDENT, teacher=str(teacher))
    about = json.loads((run / "result.json").read_text())["teacher"]
    assert about["source"] == str(teacher) and about["model"] == "simple_cnn"
    digest = make_setup(STUDENT, {"teacher": str(trained)}).teacher.about["sha256"]
    assert about["sha256"] == digest
    plain = train_run(tmp_path / "plain", **STUDENT)
    assert plain["state_sha256"] != result["state_sha256"] and "teacher" not in plain
    shutil.rmtree(teacher)
    assert run_main("--mode=evaluate", f"--workdir={run}") == 0


def test_a_run_is_resumed_with_its_teacher_wherever_that_lies(trained, other, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved"
    result = train_run(
        run, **STUDENT, checkpoint_every_epochs=1.0, teacher=str(trained)
    )
    (run / "result.json").unlink()
    shutil.rmtree(run / "checkpoints" / str(result["steps"]))
    shutil.copytree(trained, moved)
    with pytest.raises(UserError, match=f"--teacher={other} holds .* --workdir"):
        train_run(run, **STUDENT, checkpoint_every_epochs=1.0, teacher=str(other))
    again = train_run(run, **STUDENT, checkpoint_every_epochs=1.0, teacher=str(moved))
    assert again["state_sha256"] == result["state_sha256"]
    with pytest.raises(UserError, match="another run, one with --teacher="):
        train_run(run, **STUDENT, checkpoint_every_epochs=1.0)


def test_classes_are_matched_by_name(trained):
    options = STUDENT | {"teacher": str(trained)}
    assert make_setup(options).structure.teacher.classes == ()
    some = make_setup(options, {"classes": (7, 2), "batch_size": 10})
    assert some.structure.teacher.classes == (7, 2)


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Return the path of 8x8 images of two classes that no digits are."""
    root = tmp_path_factory.mktemp("letters")
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir()
        for number in range(20):
            pixels = random.integers(0, 256, (8, 8), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def test_what_cannot_be_a_teacher_is_refused(trained, letters, tmp_path):
    file = tmp_path / "weights.safetensors"
    model = models.create_model(ModelOptions(model="mlp"), 10)
    effects.save_weights(model, "mlp", (8, 8, 1), file, 0.2)
    run, file = {"teacher": str(trained)}, {"teacher": str(file)}
    scaled = {"teacher_mean": (0.5,), "teacher_std": (0.5,)}
    cases = [
        ({"teacher": "/not/there"}, "--teacher=/not/there .* does not exist"),
        (file, "--teacher_model=NAME"),
        (file | {"teacher_model": "mpl"}, "--teacher_model=mpl is unknown.* mlp"),
        (file | {"teacher_model": "mlp"}, "--teacher_mean=.* --teacher_std=1"),
        (
            file | {"teacher_model": "lenet5"} | scaled,
            "does not fit --teacher_model=lenet5.*--mode=convert",
        ),
        (
            file | {"teacher_model": "mlp"} | scaled | BY_EPOCH,
            "trained on images of 8x8x1 and cannot take 6x6x1",
        ),
        (run | {"teacher_model": "mlp"}, "leave out --teacher_model"),
        (run | {"teacher_std": (0.5,)}, "leave out --teacher_std"),
        (
            run | {"dataset": f"folder:{letters}", "train_examples": 20},
            r"does not know 2 classes \(a, b\) .* it knows 10 classes \(0, 1",
        ),
        (run | {"channels": 3}, "trained on images of 8x8x1 and cannot take 8x8x3"),
        (
            run | {"train_only": ("head",), "cache_features": "always"},
            "--cache_features=always is not possible: --teacher sees images",
        ),
    ]
    for options, message in cases:
        base = {"model": "simple_cnn"} if "train_only" in options else {}
        with pytest.raises(UserError, match=f"(?s){message}"):
            make_setup(STUDENT, base, options)


def test_a_file_of_weights_teaches(tmp_path):
    path = tmp_path / "weights.safetensors"
    model = models.create_model(ModelOptions(model="mlp"), 10)
    effects.save_weights(model, "mlp", (8, 8, 1), path, 0.2)
    options = {"teacher": str(path), "teacher_model": "mlp"}
    options |= {"teacher_mean": (0.25,), "teacher_std": (0.5,)}
    setup = make_setup(STUDENT, {"mean": (0.5,), "std": (0.25,)}, options)
    teacher = setup.structure.teacher
    assert teacher.model == model
    assert (teacher.scale, teacher.shift) == ((0.5,), (0.5,))


def test_a_teacher_computes_in_the_precision_of_the_run(trained):
    options = STUDENT | {"teacher": str(trained), "precision": "bfloat16"}
    teacher = make_setup(options).structure.teacher
    assert teacher.model.layers.dtype == jnp.bfloat16
    assert load_trained(trained).structure.model.layers.dtype == jnp.float32


def test_a_share_of_nothing_is_said(trained):
    base = STUDENT | {"teacher": str(trained)}
    found = []
    for share in (0.0, 0.5):
        setup = make_setup(base, {"distillation_share": share})
        found.append(
            any("distillation_share=0:" in x for x in report.list_notes(setup))
        )
    assert found == [True, False]


def test_a_teacher_that_takes_any_size_sees_the_students_with_a_warning(
    trained, capsys
):
    for size in (8, 12):
        make_setup(STUDENT, {"teacher": str(trained), "image_size": size})
        said = " ".join(capsys.readouterr().out.split())
        assert ("trained on images of 8x8 and sees 12x12" in said) == (size == 12)
    make_setup(STUDENT, BY_EPOCH, {"teacher": str(trained)})
    said = " ".join(capsys.readouterr().out.split())
    assert "trained on images of 8x8 and sees 6x6," in said
