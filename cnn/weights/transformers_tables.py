"""What transformers calls each family's modules, in the manner of `tables`.

Its MobileNet v2 and EfficientNet are TensorFlow's: they need paddings and an epsilon
that PyTorch's do not.
"""

from cnn import models
from cnn.models.inverted_residual import Block
from cnn.models.options import ModelOptions
from cnn.weights.spelling import TENSORFLOW, Rule, Spelling

_LIBRARY = "transformers"


def spell_resnet(root: str = "resnet") -> Spelling:
    """Spell ResNet, or a family whose modules have its names under another root."""
    block, stages = r"stage(\d+)_block(\d+)/", root + ".encoder.stages.{1-1}.layers."
    there = stages + "{2-1}."
    rules: list[Rule] = []
    for ours, theirs in (("conv", "convolution"), ("norm", "normalization")):
        stem = "stem" if ours == "conv" else "stem_norm"
        rules += [
            (stem, f"{root}.embedder.embedder.{theirs}"),
            (block + ours + r"(\d)", there + "layer.{3-1}." + theirs),
            (block + "shortcut_" + ours, there + "shortcut." + theirs),
        ]
    return Spelling(_LIBRARY, [*rules, ("head", "classifier.1")])


def spell_regnet(excites: bool) -> Spelling:
    """Spell RegNet: as ResNet, but what rescales channels is third in a block."""
    block, stages = r"stage(\d+)_block(\d+)/", "regnet.encoder.stages.{1-1}.layers."
    there = stages + "{2-1}.layer."
    rules: list[Rule] = [
        (block + "excite/squeeze", there + "2.attention.0"),
        (block + "excite/excite", there + "2.attention.2"),
        (block + "conv3", there + "3.convolution"),
        (block + "norm3", there + "3.normalization"),
    ]
    return Spelling(_LIBRARY, (rules if excites else []) + spell_resnet("regnet").rules)


def spell_convnext() -> Spelling:
    """Spell ConvNeXt."""
    block = r"stage(\d)_block(\d+)/"
    stages = "convnext.encoder.stages."
    there = stages + "{1-1}.layers.{2-1}."
    rules: list[Rule] = [
        ("stem", "convnext.embeddings.patch_embeddings"),
        ("stem_norm", "convnext.embeddings.layernorm"),
        (r"downsample(\d)_norm", stages + "{1}.downsampling_layer.0"),
        (r"downsample(\d)_conv", stages + "{1}.downsampling_layer.1"),
        (block + "scale", there + "layer_scale_parameter", (-1,)),
        (block + "depthwise_conv", there + "dwconv"),
        (block + "norm", there + "layernorm"),
        (block + "expand", there + "pwconv1"),
        (block + "project", there + "pwconv2"),
        ("norm", "convnext.layernorm"),
        ("head", "classifier"),
    ]
    return Spelling(_LIBRARY, rules)


def spell_mobilenet_v2(model: str) -> Spelling:
    """Spell MobileNet v2."""
    parts = {"expand": "expand_1x1", "depthwise": "conv_3x3", "project": "reduce_1x1"}
    rules: list[Rule] = [("head", "classifier")]
    for ours, theirs in (("conv", "convolution"), ("norm", "normalization")):
        stem = "stem" if ours == "conv" else "stem_norm"
        root = "mobilenet_v2."
        rules.append((stem, f"{root}conv_stem.first_conv.{theirs}"))
        rules.append((f"last_{ours}", f"{root}conv_1x1.{theirs}"))
        for number, block in enumerate(number_blocks(model), start=-1):
            place = f"layer.{number}" if number >= 0 else "conv_stem"
            for part, name in parts.items():
                there = f"{root}{place}.{name}.{theirs}"
                rules.append((f"{block}{part}_{ours}", there))
    return Spelling(_LIBRARY, rules, TENSORFLOW)


def spell_efficientnet(model: str) -> Spelling:
    """Spell EfficientNet."""
    root = "efficientnet."
    rules: list[Rule] = [
        ("stem", root + "embeddings.convolution"),
        ("stem_norm", root + "embeddings.batchnorm"),
        ("last_conv", root + "encoder.top_conv"),
        ("last_norm", root + "encoder.top_bn"),
        ("head", "classifier"),
    ]
    parts = {
        "expand_conv": "expansion.expand_conv",
        "expand_norm": "expansion.expand_bn",
        "depthwise_conv": "depthwise_conv.depthwise_conv",
        "depthwise_norm": "depthwise_conv.depthwise_norm",
        "excite/squeeze": "squeeze_excite.reduce",
        "excite/excite": "squeeze_excite.expand",
        "project_conv": "projection.project_conv",
        "project_norm": "projection.project_bn",
    }
    for number, block in enumerate(number_blocks(model)):
        for ours, theirs in parts.items():
            there = f"{root}encoder.blocks.{number}.{theirs}"
            rules.append((block + ours, there))
    return Spelling(_LIBRARY, rules, TENSORFLOW)


def number_blocks(model: str) -> dict[str, Block]:
    """List the blocks of a net of inverted residuals in order.

    Returns:
        By the pattern of what is inside each, `stage(2)_block(1)/`.
    """
    stages = models.create_model(ModelOptions(model=model), 1).stages
    return {
        f"stage({stage})_block({number})/": block
        for stage, blocks in enumerate(stages, start=1)
        for number, block in enumerate(blocks, start=1)
    }
