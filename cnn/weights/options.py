"""The modes convert and export."""

import dataclasses

from cnn.option import option


@dataclasses.dataclass(frozen=True)
class ConvertOptions:
    """Where converted weights come from."""

    source: str = option(
        "",
        "convert: file of PyTorch's weights, .pth, .th, .pt or .safetensors",
        changes_run=False,
    )
    class_names: str = option(
        "",
        "convert: text file with a class name a line, in the order of the logits; "
        "empty: numbers",
        changes_run=False,
    )


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What is exported."""

    export_format: str = option(
        "torch",
        "torch: model.safetensors, a PyTorch state dict; stablehlo: model.stablehlo, "
        "the compiled model for cpu, cuda and tpu",
        choices=("torch", "stablehlo"),
        changes_run=False,
    )
