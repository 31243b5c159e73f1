"""The PyTorch contender: runs a round for each line that it reads.

A line `memory` is answered with the most bytes that the process has had in memory
beyond those it had before the model was made.

python torch_step.py train|forward default|channels_last eager|compiled \
    float32|bfloat16 MODEL SIZE CHANNELS BATCH STEPS wall|cpu
python torch_step.py has MODEL

In bfloat16 by autocast: parameters stay float32, as ours.
"""

import sys
from pathlib import Path

import torch
from clocks import CLOCKS
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "golden"))

import resident  # noqa: E402
import torch_models  # noqa: E402

WIDTHS = (32, 64, 128)


def make_simple_cnn(channels: int) -> nn.Module:
    """Make our simple_cnn of the default widths: max-pooling, global average."""
    blocks: list[nn.Module] = []
    for width in WIDTHS:
        blocks += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        channels = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)]
    return nn.Sequential(*blocks, *head)


def create(name: str, channels: int) -> nn.Module:
    """Create a model by our name."""
    if name == "simple_cnn":
        return make_simple_cnn(channels)
    return torch_models.create(name, 10)


def has(name: str) -> bool:
    """Return whether there is a model of our name."""
    known = (*torch_models.TORCHVISION, *torch_models.OTHERS, *torch_models.TIMM)
    return name in ("simple_cnn", *known) or name.startswith("wrn_")


def main() -> None:
    """Print the seconds of one round for each line of input."""
    if sys.argv[1] == "has":
        print(has(sys.argv[2]))
        return
    before = resident.read_now()
    what, layout, mode, precision, name = sys.argv[1:6]
    size, channels, batch_size, count = map(int, sys.argv[6:10])
    read_clock = CLOCKS[sys.argv[10]]
    model = create(name, channels)
    memory_format = torch.contiguous_format
    if layout == "channels_last":
        memory_format = torch.channels_last
    cuda = torch.cuda.is_available()
    torch.backends.cudnn.benchmark = True  # sizes do not change
    device = torch.device("cuda" if cuda else "cpu")
    model = model.to(device, memory_format=memory_format).train(what == "train")
    optimizer = torch.optim.SGD(
        model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    shape = (count, batch_size, channels, size, size)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    labels = torch.randint(0, 10, (count, batch_size), device=device)
    call = torch.compile(model) if mode == "compiled" else model

    def compute_loss(i: int) -> torch.Tensor:
        x = (images[i].float() / 255 - 0.5) / 0.25
        x = x.contiguous(memory_format=memory_format)
        with torch.autocast(device.type, torch.bfloat16, precision == "bfloat16"):
            outputs = call(x)
        logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
        loss = nn.functional.cross_entropy(logits.float(), labels[i])
        for more in auxiliary:  # classifiers of earlier layers, in training
            more = nn.functional.cross_entropy(more.float(), labels[i])
            loss = loss + torch_models.AUXILIARY_WEIGHTS[name] * more
        return loss

    def train(i: int) -> torch.Tensor:
        loss = compute_loss(i)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss

    def forward(i: int) -> torch.Tensor:
        with torch.inference_mode():
            return compute_loss(i)

    step = train if what == "train" else forward
    for line in sys.stdin:
        if line == "memory\n":
            print(resident.read_most() - before, flush=True)
            continue
        started = read_clock()
        for i in range(count):
            loss = step(i)
        loss.item()
        print(read_clock() - started, flush=True)


if __name__ == "__main__":
    main()
