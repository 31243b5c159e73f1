"""What the families of inverted residuals share."""

from cnn.models.inverted_residual import Block
from cnn.weights.spelling import TENSORFLOW, Rule, Spelling
from cnn.weights.transformers_tables import number_blocks


def list_torchvision_ends(last: int) -> list[Rule]:
    """List what comes before and after the blocks, at the places 1 to `last` - 1."""
    return [
        ("stem", "features.0.0"),
        ("stem_norm", "features.0.1"),
        ("last_conv", f"features.{last}.0"),
        ("last_norm", f"features.{last}.1"),
        ("head", "classifier.1"),
    ]


def list_torchvision_blocks(model: str, is_flat: bool) -> list[Rule]:
    """List the blocks of EfficientNet and MobileNet v3.

    Args:
        is_flat: whether blocks are numbered through all stages.
    """
    rules = []
    for place, (ours, block) in enumerate(number_blocks(model).items(), start=1):
        there = f"features.{place}" if is_flat else "features.{1}.{2-1}"
        for i, part in enumerate(list_parts(ours, block)):
            here = f"{there}.block.{i}."
            if part == "excite":
                rules.append((ours + "excite/squeeze", here + "fc1"))
                rules.append((ours + "excite/excite", here + "fc2"))
            else:
                rules.append((f"{ours}{part}_conv", here + "0"))
                rules.append((f"{ours}{part}_norm", here + "1"))
    return rules


def list_parts(ours: str, block: Block) -> list[str]:
    """List the parts of a block in order; those of stage 1 expand nothing."""
    is_first = ours.startswith("stage(1)")
    if block.is_fused:
        return ["fused"] if is_first else ["fused", "project"]
    excite = ["excite"] if block.squeezed else []
    return [*([] if is_first else ["expand"]), "depthwise", *excite, "project"]


def list_timm() -> list[Rule]:
    """List timm's names."""
    ours, there = r"stage(\d)_block(\d+)/", "blocks.{1-1}.{2-1}."
    first, first_there = r"stage1_block(\d+)/", "blocks.0.{1-1}."
    return [
        ("stem", "conv_stem"),
        ("stem_norm", "bn1"),
        (first + "depthwise_norm", first_there + "bn1"),
        (first + "project_conv", first_there + "conv_pw"),
        (first + "project_norm", first_there + "bn2"),
        (ours + "expand_conv", there + "conv_pw"),
        (ours + "expand_norm", there + "bn1"),
        (ours + "depthwise_conv", there + "conv_dw"),
        (ours + "depthwise_norm", there + "bn2"),
        (ours + "excite/squeeze", there + "se.conv_reduce"),
        (ours + "excite/excite", there + "se.conv_expand"),
        (ours + "project_conv", there + "conv_pwl"),
        (ours + "project_norm", there + "bn3"),
        ("last_conv", "conv_head"),
        ("last_norm", "bn2"),
        ("head", "classifier"),
    ]


def spell_timm_twice(rules: list[Rule]) -> list[Spelling]:
    """Spell what timm has twice, and neither with our epsilon and padding.

    Its own weights have PyTorch's epsilon; those that it calls `tf_` are TensorFlow's.
    """
    return [
        Spelling("timm", rules, {"bn_epsilon": 1e-5}),
        Spelling("timm (tf_)", rules, TENSORFLOW),
    ]
