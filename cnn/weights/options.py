"""The modes convert and export."""

import dataclasses

from cnn.option import free_option


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Where converted weights come from."""

    source: str = free_option(
        "", "convert: file of PyTorch's weights, .pth, .th, .pt or .safetensors"
    )
    class_names: str = free_option(
        "",
        "convert: text file with a class name a line, in the order of the logits; "
        "empty: numbers",
    )


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What is exported."""

    export_format: str = free_option(
        "torch",
        "torch: model.safetensors, a PyTorch state dict; stablehlo: model.stablehlo, "
        "the compiled model for cpu, cuda and tpu",
        choices=("torch", "stablehlo"),
    )
