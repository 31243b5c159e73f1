"""What the families of inverted residuals share."""

from cnn.weights.spelling import Rule


def list_torchvision_ends(last: int) -> list[Rule]:
    """List what comes before and after the blocks, at the places 1 to `last` - 1."""
    return [
        ("stem", "features.0.0"),
        ("stem_norm", "features.0.1"),
        ("last_conv", f"features.{last}.0"),
        ("last_norm", f"features.{last}.1"),
        ("head", "classifier.1"),
    ]


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
