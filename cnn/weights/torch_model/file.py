"""The file `model.py`, and its logits beside ours."""

import runpy
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cnn.training.trained import Trained
from cnn.weights.onnx.compare import check_logits
from cnn.weights.onnx.trace import make_graph
from cnn.weights.torch_model.lines import Writer

_TOLERANCE = 1e-5  # of the largest logit
_HEAD = '''"""{model} as it was trained, for evaluation: PyTorch alone is needed.

model = load("model.safetensors")  # pip install torch safetensors
logits = model(images)  # float32 [N, {channels}, {height}, {width}], scaled
logits = model(scale(pixels))  # uint8 [N, {height}, {width}, {channels}]
"""

import torch
import torch.nn.functional as F

CLASSES = {classes}
SIZE = ({height}, {width})
MEAN = {mean}
STD = {std}
SHAPES = {{
{shapes}
}}
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def scale(pixels):
    """Scale uint8 [N, H, W, C] to the float32 [N, C, H, W] that the model takes."""
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return ((pixels / 255 - mean) / std).permute(0, 3, 1, 2)


def load(path):
    """Make the model with the weights of a file."""
    from safetensors.torch import load_file

    model = Model()
    model.load_state_dict(load_file(path))
    return model.eval()


class Model(torch.nn.Module):
    """Logits [N, {count}] of scaled images."""

    def __init__(self):
        """Make the tensors; their numbers come from a state dict."""
        super().__init__()
        for name, shape in SHAPES.items():
            *path, leaf = name.split(".")
            module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, torch.nn.Module())
                module = module._modules[part]
            if leaf == "num_batches_tracked":
                module.register_buffer(leaf, torch.zeros((), dtype=torch.int64))
            elif leaf in BUFFERS:
                module.register_buffer(leaf, torch.zeros(shape))
            else:
                parameter = torch.nn.Parameter(torch.zeros(shape))
                module.register_parameter(leaf, parameter)

    def forward(self, images):
        """Compute the logits, as in evaluation."""
        w = {{**dict(self.named_parameters()), **dict(self.named_buffers())}}
'''


def make_source(trained: Trained, state_dict: Mapping[str, np.ndarray]) -> str:
    """Write the file.

    Args:
        state_dict: what is exported beside it.

    Raises:
        UserError: something that the model computes has no counterpart here.
    """
    graph, logits = make_graph(trained, preprocessing=False)
    writer = Writer(trained, state_dict)
    lines = writer.write_nodes(graph.nodes, logits)
    height, width, channels = trained.image_shape
    head = _HEAD.format(
        model=trained.options["model"],
        height=height,
        width=width,
        channels=channels,
        classes=_wrap(map(repr, trained.class_names)),
        mean=list(trained.structure.mean),
        std=list(trained.structure.std),
        shapes="\n".join(f"    {n!r}: {x.shape}," for n, x in state_dict.items()),
        count=len(trained.class_names),
    )
    return head + "".join(f"        {line}\n" for line in lines)


def check_source(source: str, trained: Trained, path: Path) -> float | None:
    """Compare the logits of the file with ours, where PyTorch is installed.

    Args:
        path: of the state dict.

    Returns:
        The largest difference over the largest logit; None without PyTorch.

    Raises:
        UserError: it is more than rounding explains.
    """
    try:
        import torch
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.py"
        file.write_text(source, "utf-8", "backslashreplace")
        module = runpy.run_path(str(file))
    model, scale = module["load"](str(path)), module["scale"]

    def compute(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(scale(torch.from_numpy(pixels))).numpy()

    return check_logits(trained, compute, _TOLERANCE, "model.py")


def _wrap(texts: Iterable[str]) -> str:
    """Write a list, of several lines where one is too short."""
    texts = list(texts)
    line = f"[{', '.join(texts)}]"
    if len(line) <= 70:
        return line
    return "[\n" + "".join(f"    {text},\n" for text in texts) + "]"
