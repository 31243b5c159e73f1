"""The PyTorch contender of sweep.py: Optuna's grid sampler, all trials in one process.

python torch_sweep.py DATA.npz SPACE.json EPOCHS LAYOUT
"""

import json
import math
import sys
import time

import numpy as np
import optuna
import torch
from torch import nn

WIDTHS = (32, 64, 64)
BATCH_SIZE = 32


def make_model(layout: torch.memory_format) -> nn.Module:
    """Make the simple_cnn of the preset digits."""
    blocks, features = [], 1
    for width in WIDTHS:
        blocks += [
            nn.Conv2d(features, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(2),
        ]
        features = width
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(features, 10))
    return model.to(memory_format=layout)


@torch.no_grad()
def evaluate(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Return the accuracy on a set, and compute its loss."""
    model.eval()
    logits = model(images)
    nn.functional.cross_entropy(logits, labels).item()
    return (logits.argmax(1) == labels).float().mean().item()


def train(
    data: dict, rate: float, decay: float, seed: int, epochs: int, layout
) -> float:
    """Train one trial and return its validation accuracy."""
    torch.manual_seed(seed)
    model = make_model(layout)
    optimizer = torch.optim.SGD(
        model.parameters(), rate, momentum=0.9, weight_decay=decay, nesterov=True
    )
    images, labels = data["train"]
    steps = len(images) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / (steps * epochs)))
    )
    accuracy = evaluate(model, *data["validation"])
    for _ in range(epochs):
        model.train()
        order = torch.randperm(len(images))[: steps * BATCH_SIZE]
        for ids in order.view(steps, BATCH_SIZE):
            loss = nn.functional.cross_entropy(model(images[ids]), labels[ids])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
        accuracy = evaluate(model, *data["validation"])
    evaluate(model, *data["test"])
    return accuracy


def main() -> None:
    """Run the study; print its seconds and its best value as JSON."""
    layout = torch.channels_last
    if sys.argv[4] == "default":
        layout = torch.contiguous_format
    with np.load(sys.argv[1]) as file:
        arrays = {name: file[name] for name in file}
    space, epochs = json.loads(open(sys.argv[2]).read()), int(sys.argv[3])
    torch.set_num_threads(int(sys.argv[5]))
    started = time.perf_counter()
    mean, std = arrays["train_images"].mean() / 255, arrays["train_images"].std() / 255
    data = {}
    for split in ("train", "validation", "test"):
        pixels = torch.from_numpy(arrays[f"{split}_images"]).permute(0, 3, 1, 2)
        images = ((pixels.float() / 255 - mean) / std).contiguous(memory_format=layout)
        data[split] = images, torch.from_numpy(arrays[f"{split}_labels"]).long()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=optuna.samplers.GridSampler(space)
    )

    def objective(trial: optuna.Trial) -> float:
        chosen = {
            name: trial.suggest_categorical(name, values)
            for name, values in space.items()
        }
        return train(
            data,
            chosen["learning_rate"],
            chosen["weight_decay"],
            chosen["seed"],
            epochs,
            layout,
        )

    study.optimize(objective)
    seconds = time.perf_counter() - started
    found = {"seconds": seconds, "trials": len(study.trials), "best": study.best_value}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
