"""Presets of published recipes against the code that made the published weights.

Rates of whole runs are in golden/schedules.json, losses of 20 steps in
golden/recipes.json; see the scripts beside them.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fixtures_runs import ROOT

from cnn.config import load_preset, make_config
from cnn.optim import optimizer
from cnn.optim.optimizer import Rule
from cnn.optim.schedules import Clock
from cnn.training import losses, setup, state, steps
from tests.golden import hashed, ours

GOLDEN = ROOT / "tests" / "golden"
RATES = json.loads((GOLDEN / "schedules.json").read_text())["recipes"]
LOSSES = json.loads((GOLDEN / "recipes.json").read_text())
PUBLISHED = {
    "imagenet_resnet50_v1": "torchvision_v1",
    "imagenet_resnet50_v2": "torchvision_v2",
    "rsb_a1": "rsb_a1",
    "rsb_a2": "rsb_a2",
    "rsb_a3": "rsb_a3",
}
# What the published arguments are, in our names: torchvision's references (V2), table 2
# of ResNet strikes back, timm's rand-mM-mstd0.5-inc1, table 5 of ConvNeXt.
ARGUMENTS = {
    "imagenet_resnet50_v2": {
        "batch_size": 1024, "image_size": 176, "eval_image_size": 224,
        "eval_resize_size": 232, "weight_decay": 2e-5, "decay_norms": False,
        "label_smoothing": 0.1, "mixup_alpha": 0.2, "cutmix_alpha": 1.0,
        "policy": "trivialaugment", "erasing_probability": 0.1,
        "flip_probability": 0.5, "repeats_in_batch": 4,
    },
    "rsb_a1": {
        "epochs": 600, "batch_size": 2048, "image_size": 224, "weight_decay": 0.01,
        "label_smoothing": 0.1, "stochastic_depth_rate": 0.05, "repeats_in_batch": 3,
        "policy_magnitude": 7.0, "mixup_alpha": 0.2, "cutmix_alpha": 1.0,
    },
    "rsb_a2": {
        "epochs": 300, "batch_size": 2048, "image_size": 224, "weight_decay": 0.02,
        "label_smoothing": 0.0, "stochastic_depth_rate": 0.05, "repeats_in_batch": 3,
        "policy_magnitude": 7.0, "mixup_alpha": 0.1, "cutmix_alpha": 1.0,
    },
    "rsb_a3": {
        "epochs": 100, "batch_size": 2048, "image_size": 160, "weight_decay": 0.02,
        "label_smoothing": 0.0, "stochastic_depth_rate": 0.0, "repeats_in_batch": 1,
        "policy_magnitude": 6.0, "mixup_alpha": 0.1, "cutmix_alpha": 1.0,
    },
    "imagenet_convnext_tiny": {
        "epochs": 300, "batch_size": 4096, "learning_rate": 4e-3, "weight_decay": 0.05,
        "label_smoothing": 0.1, "stochastic_depth_rate": 0.1, "mixup_alpha": 0.8,
        "cutmix_alpha": 1.0, "erasing_probability": 0.25, "policy_magnitude": 9.0,
        "policy_magnitude_std": 0.5, "ema_decay": 0.9999, "warmup_epochs": 20.0,
    },
}  # fmt: skip


def make_rule(config):
    static = config.make_static()
    return Rule(static.optimizer, static.schedule, averaging=static.averaging)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_preset_has_the_published_arguments(name):
    flat = make_config(load_preset(name)).to_flat()
    assert {key: flat[key] for key in ARGUMENTS[name]} == ARGUMENTS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_has_the_published_rate_in_each_epoch(name):
    config, expected = make_config(load_preset(name)), np.array(RATES[PUBLISHED[name]])
    assert config.train.epochs == len(expected)
    rule, numbers = make_rule(config), config.make_numbers()

    def compute(step):
        return optimizer.compute_learning_rate(rule, Clock(step, 7), numbers)

    firsts = jnp.arange(len(expected), dtype=jnp.int32) * 7
    for offset in (0, 3, 6):
        found = jax.jit(jax.vmap(compute))(firsts + offset)
        np.testing.assert_allclose(
            found, expected, rtol=1e-6, atol=1e-7 * max(expected)
        )


def test_torchvisions_average_decays_as_its_code_has_it():
    """Source: `--model-ema-decay` in references/classification/train.py."""
    config = make_config(load_preset("imagenet_resnet50_v2"))
    alpha = (1 - 0.99998) * 8 * 128 * config.averaging.ema_every_steps / 600
    assert config.averaging.ema_decay == pytest.approx(1 - alpha, rel=1e-12)
    assert config.averaging.ema_start_epochs == config.schedule.warmup_epochs == 5


def make_step(name):
    """Return the preset's step on given images and targets, and its first state."""
    model, variables, _ = ours.create("resnet18")
    preset = load_preset(name)
    batch, rate = hashed.BATCH_SIZE, preset["learning_rate"]
    share = batch / preset["batch_size"]
    changes = {"model": "resnet18", "epochs": hashed.STEPS, "batch_size": batch}
    changes |= {"stochastic_depth_rate": 0.0, "ema_decay": 0.0, "repeats_in_batch": 1}
    changes["learning_rate"] = rate * (share**0.5 if "rsb" in name else share)
    if "step_every_epochs" in preset:
        changes["step_every_epochs"] = 7.0
    config = make_config(preset, changes)
    structure = setup.make_structure_of_model(config, hashed.NUM_CLASSES)
    structure = dataclasses.replace(structure, model=model)
    numbers = config.make_numbers()
    first = state.make_state(structure.rule, numbers, variables)
    return structure, numbers, first


def make_targets(structure, numbers, number, mixes):
    labels = hashed.make_labels(f"labels{number}", hashed.BATCH_SIZE).astype(np.int32)
    targets = losses.make_targets(labels, hashed.NUM_CLASSES, numbers.label_smoothing)
    share = float(hashed.make_uniform(f"share{number}", (1,))[0]) if mixes else 1.0
    targets = share * targets + (1 - share) * jnp.roll(targets, 1, axis=0)
    if numbers.bce_threshold is not None:
        targets = losses.harden_targets(targets, numbers.bce_threshold)
    return {"targets": targets, "labels": labels}


@pytest.mark.parametrize("name", LOSSES)
def test_twenty_steps_have_the_published_codes_losses(
    name, monkeypatch, fresh_programs
):
    structure, numbers, current = make_step(name)
    monkeypatch.setattr(
        steps, "prepare_batch", lambda structure, epoch, batch, _: batch
    )

    @jax.jit
    def take(current, batch):
        current, _, found = steps.train_step(structure, current, batch, numbers)
        return current, found["loss"]

    found = []
    for number in range(hashed.STEPS):
        batch = make_targets(structure, numbers, number, "v1" not in name)
        batch["images"] = ours.make_batch(f"step{number}", hashed.BATCH_SIZE, 64)
        current, loss = take(current, batch)
        found.append(float(loss))
    np.testing.assert_allclose(found, LOSSES[name], rtol=1e-3)
