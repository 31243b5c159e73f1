"""Architectures of the lecture, drawn from the models of this code.

Source: Krizhevsky et al. 2012, https://papers.nips.cc/paper/4824; Zagoruyko and
    Komodakis 2016, figure 1, https://arxiv.org/abs/1605.07146
"""

from typing import Any

from cnn import models
from cnn.models.options import ModelOptions
from cnn.visualize.compute import architecture
from cnn.visualize.compute.architecture import Architecture, Block
from cnn.visualize.lecture import diagram
from cnn.visualize.lecture.diagram import Diagram

# The four blocks of the figure, as options of the model, and what is said of each.
BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "basic": (
        "two 3×3 convolutions",
        {"model": "wrn_16_1"},
    ),
    "bottleneck": (
        "1×1 convolutions around the 3×3",
        {"model": "wrn_16_1", "wrn_block": (1, 3, 1)},
    ),
    "basic-wide": (
        "basic, with 4 times the channels",
        {"model": "wrn_16_4"},
    ),
    "wide-dropout": (
        "that, with dropout in between",
        {"model": "wrn_16_4", "dropout_rate": 0.3},
    ),
}
_PLACE = "stage1_block2"  # the first that has its input's shape in each of them


def draw_wide_resnet_blocks() -> Diagram:
    """Draw the four residual blocks of the Wide ResNet figure side by side."""
    found = [
        (name, text, find_block(options)) for name, (text, options) in BLOCKS.items()
    ]
    return diagram.draw_blocks("The residual blocks of wide residual networks", found)


def find_block(options: dict[str, Any]) -> Block:
    """Find the block that a Wide ResNet for CIFAR is made of.

    Args:
        options: of the model, by name.
    """
    shown = ["Dropout"] if "dropout_rate" in options else []
    found = _find(ModelOptions(**options), shown)
    blocks = (block for item in found.body for block in _list_blocks(item))
    return next(block for block in blocks if block.path == _PLACE)


def draw_alexnet() -> Diagram:
    """Draw AlexNet as it was published, its convolutions in two groups."""
    found = _find(ModelOptions(model="alexnet_2012"), ["Dropout"])
    return diagram.draw(found, "alexnet_2012")


def _find(options: ModelOptions, shown: list[str]) -> Architecture:
    size, channels, classes = models.get_published_input(options.model)
    model = models.create_model(options, classes)
    return architecture.find_architecture(model, (size, size, channels), shown)


def _list_blocks(item: architecture.Item) -> list[Block]:
    inside = [x for part in architecture.list_parts(item) for x in part]
    found = [block for x in inside for block in _list_blocks(x)]
    return [item, *found] if isinstance(item, Block) else found
