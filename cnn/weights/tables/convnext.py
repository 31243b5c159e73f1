"""ConvNeXt."""

from cnn.weights import transformers_tables
from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table


def list_convnext(model: str) -> list[Spelling]:
    """List the spellings of ConvNeXt, torchvision's and timm's."""
    torchvision: list[Rule] = [
        ("stem", "features.0.0"),
        ("stem_norm", "features.0.1"),
        ("norm", "classifier.0"),
        ("head", "classifier.2"),
    ]
    timm: list[Rule] = [
        ("stem", "stem.0"),
        ("stem_norm", "stem.1"),
        (r"downsample(\d)_norm", "stages.{1}.downsample.0"),
        (r"downsample(\d)_conv", "stages.{1}.downsample.1"),
        ("norm", "head.norm"),
        ("head", "head.fc"),
    ]
    parts = (
        ("depthwise_conv", "0", "conv_dw"),
        ("norm", "2", "norm"),
        ("expand", "3", "mlp.fc1"),
        ("project", "5", "mlp.fc2"),
    )
    for stage in (1, 2, 3, 4):
        here, there = 2 * stage - 1, f"stages.{stage - 1}.blocks.{{1-1}}."
        ours = rf"stage{stage}_block(\d+)/"
        name = f"features.{here}.{{1-1}}.layer_scale"
        torchvision.append((ours + "scale", name, (-1, 1, 1)))
        timm.append((ours + "scale", there + "gamma", (-1,)))
        for part, place, timm_name in parts:
            name = f"features.{here}.{{1-1}}.block.{place}"
            torchvision.append((ours + part, name))
            timm.append((ours + part, there + timm_name))
        for i, part in enumerate(("norm", "conv")):
            torchvision.append(
                (f"downsample{stage}_{part}", f"features.{2 * stage}.{i}")
            )
    return [
        Spelling(TORCHVISION, torchvision),
        Spelling("timm", timm),
        transformers_tables.spell_convnext(),
    ]


TABLE = Table(r"convnext_\w+", list_convnext)
