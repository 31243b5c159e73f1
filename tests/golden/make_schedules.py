"""Make schedules.json with PyTorch and timm: python tests/golden/make_schedules.py

Learning rates of schedules, warm-ups and published recipes, momenta of one cycle,
factors of a plateau, and the decays of two averages of weights.
"""

import json
import math
import warnings
from pathlib import Path

import torch
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch.optim import lr_scheduler

# Validation metrics of an invented run, for the plateau.
METRICS = [0.5, 0.6, 0.6, 0.605, 0.6, 0.7, 0.69, 0.7, 0.65, 0.7, 0.71, 0.70, 0.2, 0.3]
METRICS += [0.7101, 0.71, 0.7, 0.71, 0.72, 0.72, 0.71, 0.72, 0.72] + 20 * [0.71]


def make_optimizer(rate=0.1, adam=False):
    """Make an optimizer of one weight."""
    weights = [torch.zeros(1, requires_grad=True)]
    if adam:
        return torch.optim.Adam(weights, lr=rate)
    return torch.optim.SGD(weights, lr=rate, momentum=0.95)


def follow(make, count, rate=0.1, **more):
    """Return the rates of a PyTorch schedule over some of its steps."""
    optimizer = make_optimizer(rate, **more)
    schedule, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def follow_momentum(make, count, adam):
    """Return the momenta of a PyTorch schedule."""
    optimizer = make_optimizer(adam=adam)
    schedule, found = make(optimizer), []
    for _ in range(count):
        group = optimizer.param_groups[0]
        found.append(group["betas"][0] if adam else group["momentum"])
        optimizer.step()
        schedule.step()
    return found


def follow_timm(rate, count, length=0, **arguments):
    """Return a timm schedule's rates of epochs, or of steps with their `length`."""
    optimizer = make_optimizer(rate)
    more = {"step_on_epochs": not length, "updates_per_epoch": length}
    schedule, _ = create_scheduler_v2(optimizer, **more, **arguments)
    rates = []
    for number in range(count):
        if number and length:
            schedule.step_update(number)
        elif number:
            schedule.step(number)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def warm_up(optimizer, main, warmup_epochs, factor, constant=False):
    """Let a warm-up precede a schedule, as torchvision's references do."""
    if constant:
        first = lr_scheduler.ConstantLR(optimizer, factor, warmup_epochs)
    else:
        first = lr_scheduler.LinearLR(optimizer, factor, total_iters=warmup_epochs)
    schedules = [first, main]
    return lr_scheduler.SequentialLR(optimizer, schedules, [warmup_epochs])


def follow_torchvision(rate, epochs, main, warmup_epochs=0, factor=0.01, **more):
    """Return the rate of each epoch of a recipe of torchvision's references."""

    def make(optimizer):
        schedule = main(optimizer, epochs - warmup_epochs)
        if not warmup_epochs:
            return schedule
        return warm_up(optimizer, schedule, warmup_epochs, factor, **more)

    return follow(make, epochs, rate)


def follow_plateau(mode, metrics, **arguments):
    """Return the rate after each evaluation, of a rate of 1 at first."""
    optimizer, rates = make_optimizer(1.0), []
    schedule = lr_scheduler.ReduceLROnPlateau(optimizer, mode, eps=0, **arguments)
    for metric in metrics:
        schedule.step(metric)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def average_as_torchvision(decay, every, length, epochs, warmup_epochs):
    """Return an average after each step, of weights that are the step's number."""
    model = torch.nn.BatchNorm1d(1)
    average = torch.optim.swa_utils.AveragedModel(
        model, avg_fn=lambda a, w, _: decay * a + (1 - decay) * w, use_buffers=True
    )
    found = []
    for step in range(epochs * length):
        with torch.no_grad():
            model.weight.fill_(step + 2.0)
            model.running_mean.fill_(-step - 3.0)
        if step % length % every == 0:
            average.update_parameters(model)
            if step // length < warmup_epochs:
                average.n_averaged.fill_(0)
        found.append([average.module.weight.item(), average.module.running_mean.item()])
    return found


def find_timm_decays(count, **arguments):
    """Return the decays of timm's average; its first update is number 1."""
    average = ModelEmaV3(torch.nn.Linear(1, 1), **arguments)
    return [average.get_decay(step + 1) for step in range(count)]


def make_shapes():
    """Make 24 steps of each of PyTorch's schedules, at 4 steps an epoch."""
    cosine, one = lr_scheduler.CosineAnnealingLR, lr_scheduler.OneCycleLR
    restarts, step = lr_scheduler.CosineAnnealingWarmRestarts, lr_scheduler.StepLR
    cycle = {"total_steps": 24, "base_momentum": 0.85, "max_momentum": 0.95}
    return {
        "cosine_floor": follow(lambda o: cosine(o, 24, 0.002), 24),
        "polynomial": follow(lambda o: lr_scheduler.PolynomialLR(o, 24, 2.5), 24),
        "step_every": follow(lambda o: step(o, 5, 0.3), 24),
        "restarts": follow(lambda o: restarts(o, 6, 1, 0.001), 24),
        "restarts_longer": follow(lambda o: restarts(o, 3, 2), 24),
        "one_cycle": follow(lambda o: one(o, 0.1, **cycle), 24),
        "one_cycle_own": follow(
            lambda o: one(o, 0.1, 24, pct_start=0.4, div_factor=5, final_div_factor=20),
            24,
        ),
        "exponential_epochs": follow(lambda o: lr_scheduler.ExponentialLR(o, 0.8), 6),
        "momentum": follow_momentum(lambda o: one(o, 0.1, **cycle), 24, False),
        "beta1": follow_momentum(lambda o: one(o, 0.1, **cycle), 24, True),
        "timm_poly": follow_timm(
            0.1, 24, 4, sched="poly", num_epochs=6, decay_rate=1.5, min_lr=0.01
        ),
    }


def follow_one_cycle(adam):
    """Return 20 weights of an optimizer whose rate and momentum cycle."""
    w = torch.tensor([1.0, -2.0, 0.5, 3.0], requires_grad=True)
    if adam:
        optimizer = torch.optim.Adam([w], lr=0.1)
    else:
        optimizer = torch.optim.SGD([w], lr=0.1, momentum=0.95)
    schedule, path = lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=24), []
    for _ in range(20):
        optimizer.zero_grad()
        ((w - 1) ** 2).sum().backward()
        optimizer.step()
        schedule.step()
        path.append(w.detach().tolist())
    return path


def make_recipes():
    """Make the rates of published recipes: each epoch, or 6 times 12 steps."""
    cosine = lr_scheduler.CosineAnnealingLR
    step = lr_scheduler.StepLR
    strikes = {"warmup_lr": 1e-4, "min_lr": 1e-6, "warmup_epochs": 5}
    convnext = {"sched": "cosine", "min_lr": 1e-6, "warmup_epochs": 20, "warmup_lr": 0}
    length, places = 12, [0, 19, 20, 21, 150, 299]
    by_step = follow_timm(
        4e-3, 300 * length, length, num_epochs=280, warmup_prefix=True, **convnext
    )
    return {
        "torchvision_v1": follow_torchvision(0.1, 90, lambda o, _: step(o, 30, 0.1)),
        "torchvision_v2": follow_torchvision(0.5, 600, cosine, 5),
        "torchvision_constant": follow_torchvision(
            0.1, 30, lambda o, _: step(o, 7, 0.5), 4, 0.1, constant=True
        ),
        "rsb_a1": follow_timm(5e-3, 600, sched="cosine", num_epochs=600, **strikes),
        "rsb_a2": follow_timm(5e-3, 300, sched="cosine", num_epochs=300, **strikes),
        "rsb_a3": follow_timm(8e-3, 100, sched="cosine", num_epochs=100, **strikes),
        "convnext": [by_step[n * length : (n + 1) * length] for n in places],
        "convnext_epochs": places,
    }


def main():
    """Write the file."""
    warnings.simplefilter("ignore")
    losses = [math.exp(-x) for x in METRICS]
    golden = {
        "shapes": make_shapes(),
        "one_cycle_sgd": follow_one_cycle(False),
        "one_cycle_adam": follow_one_cycle(True),
        "recipes": make_recipes(),
        "plateau": {
            "metrics": METRICS,
            "accuracy": follow_plateau("max", METRICS, factor=0.5, patience=2),
            "loss": follow_plateau(
                "min", losses, factor=0.6, patience=1, threshold=0.01, cooldown=2,
                min_lr=0.05,
            ),
        },
        "torchvision_average": average_as_torchvision(0.9, 3, 7, 4, 2),
        "torchvision_average_cold": average_as_torchvision(0.9, 3, 7, 2, 0),
        "timm_decays": find_timm_decays(20, decay=0.9998),
        "timm_decays_warm": find_timm_decays(
            40, decay=0.9, use_warmup=True, update_after_step=5
        ),
        "timm_decays_slow": find_timm_decays(
            40, decay=0.9, use_warmup=True, warmup_gamma=3.0, warmup_power=0.75
        ),
    }  # fmt: skip
    path = Path(__file__).parent / "schedules.json"
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
