"""Make optimizer.json with PyTorch: python tests/golden/make_optimizer.py

Five steps of each update rule on `sum(scale * (w - target)^4)`, and the factors of
PyTorch's schedules.
"""

import json
import warnings
from pathlib import Path

import torch

START = [1.0, -2.0, 0.5, 3.0]
TARGET = [0.0, 1.0, 0.5, -1.0]
SCALE = [0.5, 0.1, 1.0, 0.02]
OPTIM = torch.optim
SGD = {"lr": 0.05}
ADAM = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6}
RMS = {"lr": 0.02, "alpha": 0.9, "eps": 1e-6}
# name: (rule, its arguments, largest norm of the gradient, or 0)
CASES = {
    "sgd": (OPTIM.SGD, SGD, 0),
    "sgd_momentum": (OPTIM.SGD, SGD | {"momentum": 0.9}, 0),
    "sgd_nesterov": (OPTIM.SGD, SGD | {"momentum": 0.9, "nesterov": True}, 0),
    "sgd_all": (
        OPTIM.SGD,
        SGD | {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
        1.5,
    ),
    "adam": (OPTIM.Adam, ADAM, 0),
    "adam_decay": (OPTIM.Adam, ADAM | {"weight_decay": 0.1}, 0),
    "adamw": (OPTIM.AdamW, ADAM | {"weight_decay": 0.1}, 0),
    "rmsprop": (OPTIM.RMSprop, RMS, 0),
    "rmsprop_all": (OPTIM.RMSprop, RMS | {"momentum": 0.7, "weight_decay": 0.1}, 0),
}


def run(rule, arguments, largest_norm):
    """Return the weights after each of five steps."""
    w = torch.tensor(START, requires_grad=True)
    optimizer, path = rule([w], **arguments), []
    for _ in range(5):
        optimizer.zero_grad()
        (torch.tensor(SCALE) * (w - torch.tensor(TARGET)) ** 4).sum().backward()
        if largest_norm:
            torch.nn.utils.clip_grad_norm_([w], largest_norm)
        optimizer.step()
        path.append(w.detach().tolist())
    return path


def run_schedule(make):
    """Return the learning rates of 12 steps that start at 0.1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule, rates = make(optimizer), []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def main():
    """Write the file."""
    warnings.simplefilter("error")
    schedules = OPTIM.lr_scheduler
    golden = {
        "start": START,
        "target": TARGET,
        "scale": SCALE,
        "rules": {name: run(*case) for name, case in CASES.items()},
        "schedules": {
            "cosine": run_schedule(lambda o: schedules.CosineAnnealingLR(o, 12)),
            "linear": run_schedule(lambda o: schedules.LinearLR(o, 1.0, 0.0, 12)),
            "step": run_schedule(lambda o: schedules.MultiStepLR(o, [3, 9], 0.2)),
            "constant": run_schedule(lambda o: schedules.ConstantLR(o, 1.0)),
        },
    }
    path = Path(__file__).parent / "optimizer.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
