"""Make optimizer.json and updates.json: python tests/golden/make_optimizer.py

With PyTorch five steps of each update rule on `sum(scale * (w - target)^4)`, and the
factors of PyTorch's schedules; with timm 1.0.31 too, twenty steps of the rules on a
kernel and a bias whose gradients are given, clipped gradients, and SAM.
"""

import json
import math
import warnings
from pathlib import Path

import timm.optim
import torch
from timm.optim.adabelief import AdaBelief
from timm.optim.rmsprop_tf import RMSpropTF
from timm.utils.agc import adaptive_clip_grad

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

BETAS = {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-6}
LAMB = BETAS | {"weight_decay": 0.02, "max_grad_norm": 1.0}
LARS = {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.1, "eps": 1e-6}
LARS |= {"trust_coeff": 0.05}
TF = {"lr": 0.02, "alpha": 0.9, "eps": 1e-3}
# name: (rule, its arguments, whether the bias is decayed)
TREES = {
    "sgd": (
        OPTIM.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        True,
    ),
    "adam": (OPTIM.Adam, BETAS | {"weight_decay": 0.1}, True),
    "adamw": (OPTIM.AdamW, BETAS | {"weight_decay": 0.1}, False),
    "rmsprop": (OPTIM.RMSprop, TF | {"momentum": 0.9, "weight_decay": 0.1}, True),
    "nadam": (OPTIM.NAdam, BETAS | {"weight_decay": 0.1}, True),
    "nadamw": (timm.optim.NAdamW, BETAS | {"weight_decay": 0.1}, True),
    "adamax": (OPTIM.Adamax, BETAS | {"weight_decay": 0.1}, True),
    "adabelief": (AdaBelief, BETAS | {"weight_decay": 0.1, "rectify": False}, True),
    "lion": (timm.optim.Lion, {"lr": 0.02, "betas": (0.8, 0.95)}, True),
    "lion_decay": (
        timm.optim.Lion,
        {"lr": 0.02, "betas": (0.8, 0.95), "weight_decay": 0.1},
        True,
    ),
    "adagrad": (OPTIM.Adagrad, {"lr": 0.1, "eps": 1e-6, "weight_decay": 0.1}, True),
    "rmsprop_tf": (RMSpropTF, TF, True),
    "rmsprop_tf_all": (RMSpropTF, TF | {"momentum": 0.9, "weight_decay": 0.1}, False),
    "lamb": (timm.optim.Lamb, LAMB, False),
    "lamb_all": (timm.optim.Lamb, LAMB, True),
    "lamb_adapt": (
        timm.optim.Lamb,
        LAMB | {"weight_decay": 0.0, "always_adapt": True, "max_grad_norm": None},
        True,
    ),
    "lars": (timm.optim.Lars, LARS, False),
    "lars_nesterov": (timm.optim.Lars, LARS | {"nesterov": True}, True),
}
KERNEL = [[0.6, -1.0, 0.3], [0.2, 0.9, -0.4]]
BIAS = [0.5, -0.25, 1.0]
SHOWN = (0, 1, 4, 9, 19)


def run_tree(rule, arguments, is_bias_decayed):
    """Return kernel and bias after some of twenty steps."""
    torch.set_default_dtype(torch.float64)
    kernel, bias = (torch.tensor(x, requires_grad=True) for x in (KERNEL, BIAS))
    rest = {"params": [bias]} | ({} if is_bias_decayed else {"weight_decay": 0.0})
    optimizer, path = rule([{"params": [kernel]}, rest], **arguments), []
    for step in range(20):
        for number, w in enumerate((kernel, bias)):
            places = torch.arange(w.numel()).reshape(w.shape)
            wave = torch.sin(0.7 * step + places + number)
            w.grad = (0.8 * w.detach() - 0.5 + 0.6 * wave).clone()
        optimizer.step()
        if step in SHOWN:
            path.append([kernel.tolist(), bias.tolist()])
    torch.set_default_dtype(torch.float32)
    return path


def make_tensor(*shape, rate):
    """Return numbers of all sizes and signs."""
    places = torch.arange(math.prod(shape), dtype=torch.float32)
    return (torch.cos(rate * places) * (0.1 + places % 4)).reshape(shape)


def clip(method):
    """Return weights, gradients and clipped ones, in PyTorch's layout."""
    shapes = {"conv": (3, 2, 2, 2), "dense": (4, 3), "vector": (5,), "zero": (3,)}
    found = {}
    for number, (name, shape) in enumerate(shapes.items()):
        w = torch.nn.Parameter(make_tensor(*shape, rate=1.1) * (name != "zero"))
        w.grad = make_tensor(*shape, rate=0.3 + number) * 0.1
        before = w.grad.tolist()
        method([w])
        found[name] = [w.tolist(), before, w.grad.tolist()]
    return found


def run_sharp(kind, rho):
    """Take twenty steps of SGD, its gradients from where the loss is about steepest.

    The perturbations of github.com/davda54/sam (sam) and
    github.com/SamsungLabs/ASAM (asam, whose eta of 0.01 is for all but biases).
    """
    torch.set_default_dtype(torch.float64)
    x, targets = make_tensor(8, 2, rate=0.9).double(), torch.arange(8) % 3
    kernel, bias = torch.tensor(KERNEL), torch.tensor(BIAS)
    scale, parts, path = torch.tensor([1.0, -0.5, 2.0]), {}, []
    parts = {"kernel": kernel, "bias": bias, "scale": scale}

    def differentiate(values):
        leaves = {n: v.clone().requires_grad_() for n, v in values.items()}
        logits = torch.tanh(x @ leaves["kernel"]) * leaves["scale"] + leaves["bias"]
        torch.nn.functional.cross_entropy(logits, targets).backward()
        return {name: leaf.grad for name, leaf in leaves.items()}

    for step in range(20):
        first = differentiate(parts)
        sizes = {name: torch.ones_like(v) for name, v in parts.items()}
        if kind == "asam":
            sizes = {n: 1 if n == "bias" else v.abs() + 0.01 for n, v in parts.items()}
        lengths = [(sizes[name] * g).square().sum() for name, g in first.items()]
        length = sum(lengths).sqrt() + 1e-12
        near = {
            n: v + rho * sizes[n] ** 2 * first[n] / length for n, v in parts.items()
        }
        second = differentiate(near)
        parts = {name: v - 0.5 * second[name] for name, v in parts.items()}
        if step in SHOWN:
            path.append({name: v.tolist() for name, v in parts.items()})
    torch.set_default_dtype(torch.float32)
    return {"x": x.tolist(), "targets": targets.tolist(), "path": path}


def make_updates():
    """Write updates.json."""
    golden = {
        "kernel": KERNEL,
        "bias": BIAS,
        "shown": SHOWN,
        "rules": {name: run_tree(*case) for name, case in TREES.items()},
        "clip_value": clip(lambda w: torch.nn.utils.clip_grad_value_(w, 0.15)),
        "clip_adaptive": clip(lambda w: adaptive_clip_grad(w, 0.1)),
        "sam": run_sharp("sam", 0.3),
        "asam": run_sharp("asam", 1.5),
    }
    path = Path(__file__).parent / "updates.json"
    path.write_text(json.dumps(_round(golden)) + "\n")


def _round(tree):
    if isinstance(tree, dict):
        return {name: _round(x) for name, x in tree.items()}
    if isinstance(tree, list | tuple):
        return [_round(x) for x in tree]
    return round(tree, 9)


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
    """Write both files."""
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
    make_updates()
    path = Path(__file__).parent / "optimizer.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
