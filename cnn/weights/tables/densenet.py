"""DenseNet."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table


def list_densenet(model: str) -> list[Spelling]:
    """List torchvision's spelling of DenseNet (timm's too), and its files' older one.

    The published files write `denselayer1.norm.1` for `denselayer1.norm1`. No class of
    torchvision has the stem of `densenet_bc_L_k`.
    """
    has_class = "_bc_" not in model
    rest: list[Rule] = [
        ("stem", "features.conv0"),
        ("stem_norm", "features.norm0"),
        (r"transition(\d)_(conv|norm)", "features.transition{1}.{2}"),
        ("norm", "features.norm5"),
        ("head", "classifier"),
    ]
    ours = r"stage(\d+)_layer(\d+)/(norm|conv)(\d)"
    there = "features.denseblock{1}.denselayer{2}.{3}"
    return [
        Spelling(TORCHVISION, [(ours, there + "{4}"), *rest], has_class=has_class),
        Spelling(TORCHVISION, [(ours, there + ".{4}"), *rest]),
    ]


TABLE = Table(r"densenet(_bc_\d+_)?\d+", list_densenet)
