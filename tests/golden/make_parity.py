"""Make parity.npz with PyTorch and torchvision: python tests/golden/make_parity.py

For every architecture, from hashed weights (`hashed.py`): `logits` of two images in
evaluation mode at 224x224 pixels (32x32 for CIFAR's models, 64x64 for the largest);
then on small images, batches of 8, dropout and stochastic depth off: `train_logits` of
the first batch, after it `running` (for each running statistic by sorted name its
norm), `gradients` (for each parameter by sorted name its gradient's norm), and `losses`
of 20 steps of SGD with learning rate 0.01, Nesterov momentum 0.9 and weight decay 5e-4.
Names given as arguments are made anew, the rest kept; `--logits_only` before them
leaves training out.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from hashed import (
    BATCH_SIZE,
    EVAL_IMAGES,
    NUM_CLASSES,
    SIZES,
    STEPS,
    UNTRAINED,
    make_images,
    make_labels,
    make_state_dict,
)
from torch_models import AUXILIARY_WEIGHTS, OTHERS, TIMM, TORCHVISION, create

FILE = Path(__file__).parent / "parity.npz"


def measure(name, trains=True):
    """Measure one architecture; arrays by what they are."""
    torch.set_flush_denormal(True)  # as XLA does; VGG is ten times as fast
    sizes = SIZES.get(name, (32, 32) if name in OTHERS else (224, 64))
    model = create(name, NUM_CLASSES)
    shapes = {key: tuple(x.shape) for key, x in model.state_dict().items()}
    tensors = make_state_dict(shapes)
    state_dict = model.state_dict()  # with the version that MNASNet asks for
    state_dict.update((key, torch.from_numpy(x)) for key, x in tensors.items())
    model.load_state_dict(state_dict)
    images = torch.from_numpy(make_images("eval", EVAL_IMAGES, sizes[0]))
    with torch.no_grad():
        found = {"logits": model.eval()(images).numpy()}
    if trains:
        weight = AUXILIARY_WEIGHTS.get(name, 0.0)
        found |= train(model.train(), sizes[1], weight)
    return {key: np.asarray(value, np.float32) for key, value in found.items()}


def train(model, size, auxiliary_weight):
    """Take the 20 steps; numbers by what they are.

    A model may return logits of auxiliary classifiers behind its own; their losses are
    added with a weight.
    """
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    found, losses = {}, []
    for step in range(STEPS):
        images = torch.from_numpy(make_images(f"step{step}", BATCH_SIZE, size))
        labels = torch.from_numpy(make_labels(f"labels{step}", BATCH_SIZE))
        outputs = model(images)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        for more in auxiliary:
            loss += auxiliary_weight * torch.nn.functional.cross_entropy(more, labels)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        if step == 0:
            found["train_logits"] = logits.detach().numpy()
            gradients = {k: p.grad.norm().item() for k, p in model.named_parameters()}
            found["gradients"] = [gradients[key] for key in sorted(gradients)]
            buffers = dict(model.named_buffers())
            found["running"] = [
                buffers[key].norm().item()
                for key in sorted(buffers)
                if key.endswith(("running_mean", "running_var"))
            ]
        optimizer.step()
    return found | {"losses": losses}


def main():
    """Write the file."""
    known = dict(np.load(FILE)) if FILE.exists() else {}
    trains, names = "--logits_only" not in sys.argv, sys.argv[1:]
    names = [name for name in names if name != "--logits_only"]
    for name in names or [*OTHERS, *TORCHVISION, *TIMM]:
        started = time.perf_counter()
        found = measure(name, trains and name not in UNTRAINED)
        known = {k: x for k, x in known.items() if not k.startswith(f"{name}/")}
        known |= {f"{name}/{key}": value for key, value in found.items()}
        np.savez_compressed(FILE, **dict(sorted(known.items())))
        seconds = time.perf_counter() - started
        print(name, f"{seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
