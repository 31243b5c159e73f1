"""RegNet."""

from cnn.weights import transformers_tables
from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table

BLOCK = r"stage(\d+)_block(\d+)/"


def list_regnet(model: str) -> list[Spelling]:
    """List the spellings of RegNet, torchvision's and timm's."""
    there = "trunk_output.block{1}.block{1}-{2-1}."
    torchvision: list[Rule] = [
        (BLOCK + "excite/squeeze", there + "f.se.fc1"),
        (BLOCK + "excite/excite", there + "f.se.fc2"),
        ("head", "fc"),
    ]
    timm: list[Rule] = [
        (BLOCK + "excite/squeeze", "s{1}.b{2}.se.fc1"),
        (BLOCK + "excite/excite", "s{1}.b{2}.se.fc2"),
        ("head", "head.fc"),
    ]
    for place, (part, timm_part) in enumerate((("conv", "conv"), ("norm", "bn"))):
        stem = "stem" if part == "conv" else "stem_norm"
        torchvision += [
            (stem, f"stem.{place}"),
            (f"{BLOCK}shortcut_{part}", f"{there}proj.{place}"),
        ]
        for number, letter in enumerate("abc", start=1):
            torchvision.append((f"{BLOCK}{part}{number}", f"{there}f.{letter}.{place}"))
        timm += [
            (stem, f"stem.{timm_part}"),
            (rf"{BLOCK}{part}(\d)", "s{1}.b{2}.conv{3}." + timm_part),
            (f"{BLOCK}shortcut_{part}", "s{1}.b{2}.downsample." + timm_part),
        ]
    return [
        Spelling(TORCHVISION, torchvision),
        Spelling("timm", timm),
        transformers_tables.spell_regnet(excites=model.startswith("regnet_y")),
    ]


TABLE = Table(r"regnet_[xy]_\w+", list_regnet)
