"""Make batch_norm.json with PyTorch: python tests/golden/make_batch_norm.py

Two training steps and one evaluation of BatchNorm2d, with the gradients of the first;
and what `swa_utils.update_bn` finds in a small network over three batches.
"""

import json
from pathlib import Path

import torch
from torch.optim.swa_utils import update_bn


def compute_update_bn():
    """Compute the statistics of two convolutions and their normalisations."""
    first, second = torch.nn.Conv2d(1, 3, 3, bias=False), torch.nn.Conv2d(3, 2, 3)
    second.bias = None
    norms = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(2)
    net = torch.nn.Sequential(first, norms[0], torch.nn.ReLU(), second, norms[1])
    images = torch.randint(0, 256, (3, 4, 8, 8, 1), dtype=torch.uint8)
    scaled = images.float() / 255
    update_bn([batch.permute(0, 3, 1, 2) for batch in scaled], net)
    return {
        "images": images.tolist(),
        "kernels": [
            conv.weight.permute(2, 3, 1, 0).tolist() for conv in (first, second)
        ],
        "means": [norm.running_mean.tolist() for norm in norms],
        "vars": [norm.running_var.tolist() for norm in norms],
    }


def main():
    """Write the file."""
    torch.manual_seed(0)
    x = (torch.randn(3, 2, 2, 2) * 2 + 1).requires_grad_()
    cotangent = torch.randn(3, 2, 2, 2)
    norm = torch.nn.BatchNorm2d(2)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.5, -0.5]))
        norm.bias.copy_(torch.tensor([0.25, 2.0]))
    y = norm(x)
    (y * cotangent).sum().backward()
    norm(x * 3 - 1)
    after = norm.eval()(x)

    def channels_last(tensor):
        return tensor.detach().permute(0, 2, 3, 1).tolist()

    golden = {
        "x": channels_last(x),
        "cotangent": channels_last(cotangent),
        "scale": norm.weight.tolist(),
        "bias": norm.bias.tolist(),
        "y": channels_last(y),
        "x_gradient": channels_last(x.grad),
        "scale_gradient": norm.weight.grad.tolist(),
        "bias_gradient": norm.bias.grad.tolist(),
        "mean": norm.running_mean.tolist(),
        "var": norm.running_var.tolist(),
        "evaluated": channels_last(after),
        "update_bn": compute_update_bn(),
    }
    path = Path(__file__).parent / "batch_norm.json"
    path.write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
