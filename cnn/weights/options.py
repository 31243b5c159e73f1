"""The modes convert and export."""

import dataclasses
from typing import ClassVar

from cnn.option import free_option


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Where converted weights come from."""

    modes: ClassVar[str] = "convert"

    source: str = free_option(
        "",
        "convert: file of PyTorch's weights, .pth, .th, .pt or .safetensors",
        is_path=True,
    )
    class_names: str = free_option(
        "",
        "convert: text file with a class name a line, in the order of the logits; "
        "empty: numbers",
        is_path=True,
    )


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What is exported."""

    modes: ClassVar[str] = "export"

    export_format: str = free_option(
        "torch",
        "torch: model.safetensors, a PyTorch state dict; stablehlo: model.stablehlo, "
        "the compiled model for cpu, cuda and tpu",
        choices=("torch", "stablehlo"),
    )
