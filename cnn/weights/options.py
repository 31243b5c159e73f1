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
        "convert: weights of others, whatever --init_from takes but a run",
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
        "torch: model.safetensors, a PyTorch state dict; orbax: model.orbax, and "
        "msgpack: model.msgpack, trees for Flax; stablehlo: model.stablehlo, the "
        "compiled model for cpu, cuda and tpu; onnx: model.onnx (needs the extra: pip "
        "install onnx onnxruntime)",
        choices=("torch", "orbax", "msgpack", "stablehlo", "onnx"),
    )
    export_preprocessing: bool = free_option(
        True,
        "true: the exported model takes uint8 images [N, H, W, C] and gives "
        "probabilities; false: float32 images, scaled by mean and std (onnx: [N, C, H, "
        "W]), and logits",
        only_for="export_format=stablehlo|onnx",
    )
