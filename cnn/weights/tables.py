"""What each family's modules are called in PyTorch: one table a family.

A family lists the spellings that are read, of a model by its name, which only VGG's
needs; the first is the one that is written: torchvision's where it has the model.
"""

import re

from cnn.models import inverted_residual, vgg
from cnn.weights import transformers_tables
from cnn.weights.spelling import Rule, Spelling

_TORCHVISION = "torchvision"

# Ours, with points for slashes: for models that no PyTorch library has.
OWN = Spelling("this project", [(r"(.+)", "{1}")])


_BLOCK = r"stage(\d+)_block(\d+)/"
_RESNET: list[Rule] = [
    ("stem", "conv1"),
    ("stem_norm", "bn1"),
    (_BLOCK + r"conv(\d)", "layer{1}.{2-1}.conv{3}"),
    (_BLOCK + r"norm(\d)", "layer{1}.{2-1}.bn{3}"),
    (_BLOCK + "shortcut_conv", "layer{1}.{2-1}.downsample.0"),
    (_BLOCK + "shortcut_norm", "layer{1}.{2-1}.downsample.1"),
    ("head", "fc"),
]


def list_own(model: str) -> list[Spelling]:
    """List the spelling of models that no PyTorch library has."""
    return [OWN]


def list_resnet(model: str) -> list[Spelling]:
    """List the spelling of ResNet, ResNeXt and wide ResNet; timm's is the same."""
    spellings = [Spelling(_TORCHVISION, _RESNET)]
    if re.fullmatch(r"resnet\d+", model):
        spellings.append(transformers_tables.spell_resnet())
    return spellings


def list_cifar_resnet(model: str) -> list[Spelling]:
    """List the spelling of github.com/akamaster/pytorch_resnet_cifar10."""
    own: list[Rule] = [
        (_BLOCK + "shortcut_conv", "layer{1}.{2-1}.shortcut.0"),
        (_BLOCK + "shortcut_norm", "layer{1}.{2-1}.shortcut.1"),
        ("head", "linear"),
    ]
    return [Spelling("akamaster/pytorch_resnet_cifar10", own + _RESNET)]


def list_wide_resnet(model: str) -> list[Spelling]:
    """List the spelling of github.com/xternalz/WideResNet-pytorch."""
    there = "block{1}.layer.{2-1}."
    rules: list[Rule] = [
        ("stem", "conv1"),
        (_BLOCK + r"conv(\d)", there + "conv{3}"),
        (_BLOCK + r"norm(\d)", there + "bn{3}"),
        (_BLOCK + "shortcut_conv", there + "convShortcut"),
        ("norm", "bn1"),
        ("head", "fc"),
    ]
    return [Spelling("xternalz/WideResNet-pytorch", rules)]


def list_alexnet(model: str) -> list[Spelling]:
    """List torchvision's spelling of AlexNet."""
    places = {"stage1": 0, "stage2": 3, "stage3": 6, "stage4": 8, "stage5": 10}
    convs = [(f"{name}_conv", f"features.{i}") for name, i in places.items()]
    dense = [("dense1", "1"), ("dense2", "4"), ("head", "6")]
    rules = convs + [(ours, f"classifier.{there}") for ours, there in dense]
    return [Spelling(_TORCHVISION, rules)]


def list_vgg(model: str) -> list[Spelling]:
    """List torchvision's spelling of VGG, and timm's (convolutions for dense)."""
    features: list[Rule] = []
    place, normalised = 0, model.endswith("_bn")
    for stage, depth in enumerate(vgg.DEPTHS[int(re.sub(r"\D", "", model))], start=1):
        for number in range(1, depth + 1):
            features.append((f"stage{stage}_conv{number}", f"features.{place}"))
            if normalised:
                there = f"features.{place + 1}"
                features.append((f"stage{stage}_norm{number}", there))
            place += 3 if normalised else 2
        place += 1
    torchvision = [("dense1", "0"), ("dense2", "3"), ("head", "6")]
    timm: list[Rule] = [
        ("dense1/kernel", "pre_logits.fc1.weight", (4096, -1, 7, 7)),
        ("dense2/kernel", "pre_logits.fc2.weight", (4096, -1, 1, 1)),
        (r"dense(\d)", "pre_logits.fc{1}"),
        ("head", "head.fc"),
    ]
    dense = [(ours, f"classifier.{there}") for ours, there in torchvision]
    return [
        Spelling(_TORCHVISION, features + dense),
        Spelling("timm", features + timm),
    ]


def list_densenet(model: str) -> list[Spelling]:
    """List torchvision's spelling of DenseNet (timm's too), and its files' older one.

    The published files write `denselayer1.norm.1` for `denselayer1.norm1`.
    """
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
        Spelling(_TORCHVISION, [(ours, there + "{4}"), *rest]),
        Spelling(_TORCHVISION, [(ours, there + ".{4}"), *rest]),
    ]


def list_squeezenet(model: str) -> list[Spelling]:
    """List torchvision's spelling of SqueezeNet 1.1."""
    places = ((3, 4), (6, 7), (9, 10, 11, 12))
    rules: list[Rule] = [("stem", "features.0"), ("head", "classifier.1")]
    for stage, stage_places in enumerate(places, start=1):
        for fire, place in enumerate(stage_places, start=1):
            rules.append((f"stage{stage}_fire{fire}/(.+)", f"features.{place}.{{1}}"))
    return [Spelling(_TORCHVISION, rules)]


def list_mobilenet(model: str) -> list[Spelling]:
    """List the spellings of MobileNet v2, torchvision's and timm's."""
    rules, place = _list_torchvision_ends(18), 0
    for stage, (expansion, *_, depth) in enumerate(inverted_residual.MOBILENET_V2, 1):
        for number in range(1, depth + 1):
            ours, place = f"stage{stage}_block{number}/", place + 1
            names = ["depthwise"] if expansion == 1 else ["expand", "depthwise"]
            for i, name in enumerate(names):
                rules.append((f"{ours}{name}_conv", f"features.{place}.conv.{i}.0"))
                rules.append((f"{ours}{name}_norm", f"features.{place}.conv.{i}.1"))
            last = len(names)
            rules.append((f"{ours}project_conv", f"features.{place}.conv.{last}"))
            rules.append((f"{ours}project_norm", f"features.{place}.conv.{last + 1}"))
    return [
        Spelling(_TORCHVISION, rules),
        Spelling("timm", _list_timm_inverted_residual()),
        transformers_tables.spell_mobilenet_v2(),
    ]


def list_efficientnet(model: str) -> list[Spelling]:
    """List the spellings of EfficientNet, torchvision's and timm's."""
    rules = _list_torchvision_ends(8)
    for first, names in (
        ("1", ["depthwise", "excite", "project"]),
        (r"\d", ["expand", "depthwise", "excite", "project"]),
    ):
        for i, name in enumerate(names):
            ours = rf"stage({first})_block(\d+)/"
            there = f"features.{{1}}.{{2-1}}.block.{i}"
            if name == "excite":
                rules.append((ours + "excite/squeeze", there + ".fc1"))
                rules.append((ours + "excite/excite", there + ".fc2"))
            else:
                rules.append((f"{ours}{name}_conv", there + ".0"))
                rules.append((f"{ours}{name}_norm", there + ".1"))
    return [
        Spelling(_TORCHVISION, rules),
        Spelling("timm", _list_timm_inverted_residual()),
        transformers_tables.spell_efficientnet(),
    ]


def _list_torchvision_ends(last: int) -> list[Rule]:
    """List what comes before and after the blocks, at the places 1 to `last` - 1."""
    return [
        ("stem", "features.0.0"),
        ("stem_norm", "features.0.1"),
        ("last_conv", f"features.{last}.0"),
        ("last_norm", f"features.{last}.1"),
        ("head", "classifier.1"),
    ]


def _list_timm_inverted_residual() -> list[Rule]:
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
        Spelling(_TORCHVISION, torchvision),
        Spelling("timm", timm),
        transformers_tables.spell_convnext(),
    ]
