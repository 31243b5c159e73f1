"""Make mup.json: python tests/golden/make_mup.py

With PyTorch and mup 1.0.0 of its authors (`pip install mup`): what simple_cnn of two
stages, four times as wide as its base, has as learning rate and weight decay of each
parameter, twenty steps of it, and the logits after them. Weights and images come from
hashed.py; the head's weights are those of mup, whose logits are divided by four.
"""

import json
from pathlib import Path

import mup
import torch
import torch.nn.functional as F
from hashed import make_images, make_labels, make_uniform
from torch import nn

WIDTHS, TIMES, CLASSES = (2, 4), 4, 10
COUNT, SIZE, STEPS = 16, 8, 20
SGD = {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
ADAM = {"lr": 0.01, "betas": (0.9, 0.99), "eps": 1e-8}
CASES = {
    "sgd": (mup.MuSGD, SGD),
    "adam": (mup.MuAdam, ADAM),
    "adamw": (mup.MuAdamW, ADAM | {"weight_decay": 0.1}),
}


class SimpleCnn(nn.Module):
    """Convolution, normalisation, ReLU and pooling, twice; mean; mup's last layer."""

    def __init__(self, widths):
        """Make the layers of these channels."""
        super().__init__()
        before = 3
        for number, after in enumerate(widths, start=1):
            conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
            setattr(self, f"stage{number}_conv", conv)
            setattr(self, f"stage{number}_norm", nn.BatchNorm2d(after))
            before = after
        self.head = mup.MuReadout(widths[-1], CLASSES)

    def forward(self, x):
        """Map images [N, C, H, W] to logits [N, K]."""
        for number in (1, 2):
            x = getattr(self, f"stage{number}_conv")(x)
            x = F.relu(getattr(self, f"stage{number}_norm")(x))
            x = F.max_pool2d(x, 2)
        return self.head(x.mean((2, 3)))


def make_model():
    """Make the wide model, compared with its base, of hashed weights."""
    model = SimpleCnn([TIMES * width for width in WIDTHS])
    deltas = SimpleCnn([2 * width for width in WIDTHS])
    mup.set_base_shapes(model, SimpleCnn(WIDTHS), delta=deltas)
    with torch.no_grad():
        for name, param in model.named_parameters():
            param.copy_(make_weights(name, tuple(param.shape)))
    return model


def make_weights(name, shape):
    """Make a parameter of mup's model in PyTorch's layout, as `tests/test_mup.py`."""
    drawn = torch.from_numpy(2 * make_uniform(name, shape) - 1)
    if len(shape) == 1:
        return 0.1 * drawn + (1.0 if "norm.weight" in name else 0.0)
    fan = 1 if name == "head.weight" else drawn[0].numel()
    return drawn * (6 / fan) ** 0.5 * (0.5 if name == "head.weight" else 1.0)


def main():
    """Train each case and write what it had and did."""
    torch.set_num_threads(1)
    images = torch.from_numpy(make_images("mup", COUNT, SIZE))
    labels = torch.from_numpy(make_labels("mup", COUNT))
    found = {}
    for case, (make, arguments) in CASES.items():
        model = make_model()
        names = {param: name for name, param in model.named_parameters()}
        optimizer = make(model.parameters(), **arguments)
        groups = {
            names[param]: [group["lr"], group["weight_decay"]]
            for group in optimizer.param_groups
            for param in group["params"]
        }
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        logits = model(images)[:4].tolist()
        found[case] = {"groups": groups, "losses": losses, "logits": logits}
    path = Path(__file__).parent / "mup.json"
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
