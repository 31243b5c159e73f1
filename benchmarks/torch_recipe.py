"""The recipe of recipe.py in PyTorch: python torch_recipe.py IMAGES SETTINGS

IMAGES is a npz of x_train, y_train, x_test, y_test; SETTINGS is JSON. Prints the test
accuracy.
"""

import json
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F
import torchvision


def make_model() -> torch.nn.Module:
    """Make torchvision's ResNet-18 with the stem for small images."""
    model = torchvision.models.resnet18(num_classes=10)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    torch.nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out")
    model.maxpool = torch.nn.Identity()
    return model.to(memory_format=torch.channels_last)


def vary(images: torch.Tensor) -> torch.Tensor:
    """Mirror half of the images and cut a window from 4 reflected pixels."""
    count, _, size, _ = images.shape
    mirrored = torch.rand(count) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    padded = F.pad(images, (4, 4, 4, 4), mode="reflect")
    corners = torch.randint(0, 9, (count, 2)).tolist()
    cut = [x[:, i : i + size, j : j + size] for x, (i, j) in zip(padded, corners)]  # noqa: B905
    return torch.stack(cut)


def choose_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Return the rate of a step: a cosine to 0, times a rise over the first steps."""
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return peak * cosine * min(1, (step + 1) / warmup)


def main() -> None:
    """Train and print the accuracy."""
    arrays, settings = np.load(sys.argv[1]), json.loads(sys.argv[2])
    torch.manual_seed(settings["seed"])
    mean, std = (
        torch.tensor(settings[name])[:, None, None] for name in ("mean", "std")
    )

    def scale(pixels: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        return ((images - mean) / std).contiguous(memory_format=torch.channels_last)

    images, labels = scale(arrays["x_train"]), torch.from_numpy(arrays["y_train"])
    model, batch = make_model(), settings["batch"]
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0, momentum=0.9, nesterov=True,
        weight_decay=settings["decay"],
    )  # fmt: skip
    length = len(images) // batch
    for epoch in range(settings["epochs"]):
        order = torch.randperm(len(images))
        for number in range(length):
            step = epoch * length + number
            rate = choose_rate(
                step, settings["epochs"] * length, length, settings["rate"]
            )
            optimizer.param_groups[0]["lr"] = rate
            chosen = order[number * batch : (number + 1) * batch]
            loss = F.cross_entropy(model(vary(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}", file=sys.stderr, flush=True)
    model.eval()
    with torch.no_grad():
        parts = scale(arrays["x_test"]).split(batch)
        found = torch.cat([model(part).argmax(1) for part in parts])
    print((found == torch.from_numpy(arrays["y_test"])).float().mean().item())


if __name__ == "__main__":
    main()
