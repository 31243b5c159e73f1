"""The PyTorch contender of train_epoch.py: runs a round for each line it reads.

python torch_epoch.py LAYOUT SIZE CHANNELS BATCH STEPS WIDTH…
"""

import sys
import time

import torch
from torch import nn


def main() -> None:
    """Print the seconds of one round of training steps for each line of input."""
    layout = sys.argv[1]
    size, channels, batch_size, count, *widths = (int(text) for text in sys.argv[2:])
    blocks: list[nn.Module] = []
    features = channels
    for width in widths:
        blocks += [
            nn.Conv2d(features, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        features = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, 10)]
    model = nn.Sequential(*blocks, *head).train()
    shape = (count, batch_size, channels, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count, batch_size))
    memory_format = torch.contiguous_format
    if layout == "channels_last":
        memory_format = torch.channels_last
    model = model.to(memory_format=memory_format)
    optimizer = torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    for _ in sys.stdin:
        started = time.perf_counter()
        for i in range(count):
            x = (images[i].float() / 255 - 0.5) / 0.25
            loss = nn.functional.cross_entropy(
                model(x.contiguous(memory_format=memory_format)), labels[i]
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        loss.item()
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
