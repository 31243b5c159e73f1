"""Make airbench.json with PyTorch: python tests/golden/make_airbench.py

The speedrun network of Jordan 2024, https://arxiv.org/abs/2404.00498, built from its
description at width 2 on images of 16x16, with hashed weights: `logits` in evaluation
mode, then three steps of its SGD (summed loss, label smoothing 0.2, a group for the
biases of normalisations): `losses`, and `norms` of every parameter after them, sorted
by our paths. Images are scaled by mean 0.5 and standard deviation 0.25.
"""

import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

WIDTH, SIZE, BATCH = 2, 16, 8
RATE, MOMENTUM, DECAY, BIAS_FACTOR = 11.5, 0.85, 0.0153, 64.0


def draw(name, shape):
    """Draw float32 numbers that depend on a name alone; the test draws them too."""
    seed = np.frombuffer(name.encode(), np.uint8)
    return 0.3 * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def draw_pixels():
    """Draw the batch, uint8 [N, H, W, 3]."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)


class Group(nn.Module):
    """Convolution, pooling, normalisation; convolution, normalisation."""

    def __init__(self, inputs, outputs):
        """Build it."""
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs, eps=1e-12, momentum=0.4)

    def forward(self, x):
        """Map images to images of half the size."""
        x = nn.functional.max_pool2d(self.conv1(x), 2)
        x = nn.functional.gelu(self.norm1(x))
        return nn.functional.gelu(self.norm2(self.conv2(x)))


class Net(nn.Module):
    """Stem, three groups, head."""

    def __init__(self):
        """Build it with hashed weights."""
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 2)
        self.stage1 = Group(24, WIDTH)
        self.stage2 = Group(WIDTH, 4 * WIDTH)
        self.stage3 = Group(4 * WIDTH, 4 * WIDTH)
        self.head = nn.Linear(4 * WIDTH, 10, bias=False)
        with torch.no_grad():
            for name, x in self.named_parameters():
                if "norm" in name and name.endswith("weight"):
                    x.requires_grad = False
                else:
                    x.copy_(torch.from_numpy(draw(name, x.shape)))
        self.stem.weight.requires_grad = False

    def forward(self, x):
        """Map images [N, 3, H, W] to logits."""
        x = nn.functional.gelu(self.stem(x))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.head(x.amax((2, 3))) / 9


def main():
    """Write the file."""
    net = Net()
    pixels = torch.from_numpy(draw_pixels()).permute(0, 3, 1, 2)
    images = (pixels / 255 - 0.5) / 0.25
    labels = torch.arange(BATCH) % 10
    with torch.no_grad():
        logits = net.eval()(images)
    scale = 1024 * (1 + 1 / (1 - MOMENTUM))
    rate, decay = RATE / scale, DECAY * BATCH / scale
    trained = [(n, x) for n, x in net.named_parameters() if x.requires_grad]
    biases = [x for n, x in trained if "norm" in n]
    others = [x for n, x in trained if "norm" not in n]
    fast = rate * BIAS_FACTOR
    groups = [
        {"params": biases, "lr": fast, "weight_decay": decay / fast},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    optimizer = torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM, nesterov=True)
    losses = []
    net.train()
    for _ in range(3):
        loss = nn.functional.cross_entropy(
            net(images), labels, label_smoothing=0.2, reduction="sum"
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item() / BATCH)
    paths = {n.replace(".", "/").replace("weight", "kernel"): x for n, x in trained}
    golden = {
        "logits": logits.tolist(),
        "losses": losses,
        "norms": {name: paths[name].norm().item() for name in sorted(paths)},
    }
    path = Path(__file__).parent / "airbench.json"
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
