"""Make recipes.json with PyTorch and timm: python tests/golden/make_recipes.py

Losses of 20 steps of published recipes, with the parts of torchvision's references and
timm's trainer: optimizer with its groups, schedule, loss of mixed targets.
ResNet-18 with hashed weights on hashed images, of which an epoch has one
batch of 8; a run has 20 epochs, five of them of warm-up. Labels are mixed with the
previous example's by shares that the step says; stochastic depth is off. Peak rates are
scaled to the batch size as the rates of the recipes were.
"""

import json
from pathlib import Path

import torch
from hashed import (
    BATCH_SIZE,
    NUM_CLASSES,
    STEPS,
    make_images,
    make_labels,
    make_state_dict,
    make_uniform,
)
from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.optim import lr_scheduler
from torch_models import create

SIZE, WARMUP = 64, 5


def make_model():
    """Make the network."""
    model = create("resnet18", NUM_CLASSES)
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    tensors = make_state_dict(shapes)
    model.load_state_dict({key: torch.from_numpy(x) for key, x in tensors.items()})
    return model.train()


def mix(labels, share, smoothing):
    """Make mixed targets of smoothed labels."""
    hot = torch.nn.functional.one_hot(labels, NUM_CLASSES).float()
    hot = hot * (1 - smoothing) + smoothing / NUM_CLASSES
    return share * hot + (1 - share) * hot.roll(1, 0)


def make_sgd(model, rate, decay, norm_decay):
    """Make SGD with the groups of torchvision's references."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    norms = [p for m in norms for p in m.parameters()]
    known = {id(p) for p in norms}
    others = [p for p in model.parameters() if id(p) not in known]
    groups = [
        {"params": norms, "weight_decay": norm_decay},
        {"params": others, "weight_decay": decay},
    ]
    return torch.optim.SGD(groups, lr=rate, momentum=0.9)


def follow(model, optimizer, schedule, compute, smoothing, mixes):
    """Take the 20 steps; their losses."""
    losses = []
    for step in range(STEPS):
        images = torch.from_numpy(make_images(f"step{step}", BATCH_SIZE, SIZE))
        labels = torch.from_numpy(make_labels(f"labels{step}", BATCH_SIZE))
        share = float(make_uniform(f"share{step}", (1,))[0]) if mixes else 1.0
        loss = compute(model(images), mix(labels, share, smoothing))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        schedule(step + 1)
    return losses


def run_v1(rate):
    """Take torchvision's first recipe."""
    model = make_model()
    optimizer = make_sgd(model, rate, 1e-4, 1e-4)
    schedule = lr_scheduler.StepLR(optimizer, 7, 0.1)
    entropy = torch.nn.CrossEntropyLoss()
    return follow(model, optimizer, lambda _: schedule.step(), entropy, 0.0, False)


def run_v2(rate):
    """Take torchvision's second recipe, which smooths in the loss."""
    model = make_model()
    optimizer = make_sgd(model, rate, 2e-5, 0.0)
    first = lr_scheduler.LinearLR(optimizer, 0.01, total_iters=WARMUP)
    main = lr_scheduler.CosineAnnealingLR(optimizer, STEPS - WARMUP)
    schedule = lr_scheduler.SequentialLR(optimizer, [first, main], [WARMUP])
    entropy = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    return follow(model, optimizer, lambda _: schedule.step(), entropy, 0.0, True)


def run_rsb(rate, decay, smoothing, scale):
    """Take a recipe of ResNet strikes back; `scale` is of all rates."""
    model = make_model()
    optimizer = create_optimizer_v2(model, opt="lamb", lr=rate, weight_decay=decay)
    schedule, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=STEPS,
        warmup_epochs=WARMUP,
        warmup_lr=1e-4 * scale,
        min_lr=1e-6 * scale,
    )
    entropy = BinaryCrossEntropy(target_threshold=0.2)
    return follow(model, optimizer, schedule.step, entropy, smoothing, True)


def main():
    """Write the file."""
    torch.set_flush_denormal(True)
    sgd, lamb = BATCH_SIZE / 1024, (BATCH_SIZE / 2048) ** 0.5
    golden = {
        "imagenet_resnet50_v1": run_v1(0.1 * BATCH_SIZE / 256),
        "imagenet_resnet50_v2": run_v2(0.5 * sgd),
        "rsb_a1": run_rsb(5e-3 * lamb, 0.01, 0.1, lamb),
        "rsb_a2": run_rsb(5e-3 * lamb, 0.02, 0.0, lamb),
        "rsb_a3": run_rsb(8e-3 * lamb, 0.02, 0.0, lamb),
    }
    path = Path(__file__).parent / "recipes.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
