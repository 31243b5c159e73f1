"""Inception v3."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table

_AUXILIARY = "stage2_block5_aux"
_LETTERS = {5: "bcd", 6: "abcde", 7: "abc"}


def list_inception_v3(model: str) -> list[Spelling]:
    """List torchvision's spelling of Inception v3; timm's is the same."""
    rules: list[Rule] = [
        ("head", "fc"),
        ("stem", "Conv2d_1a_3x3.conv"),
        ("stem_norm", "Conv2d_1a_3x3.bn"),
        (f"{_AUXILIARY}/head", "AuxLogits.fc"),
    ]
    places = {
        f"stem_{name[:2]}": f"Conv2d_{name}"
        for name in ("2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
    }
    places |= {f"{_AUXILIARY}/reduce": "AuxLogits.conv0"}
    places |= {f"{_AUXILIARY}/whole": "AuxLogits.conv1"}
    for number, letters in _LETTERS.items():
        for block, letter in enumerate(letters, start=1):
            ours = rf"stage{number - 4}_block{block}/(branch\w+)"
            places[ours] = f"Mixed_{number}{letter}.{{1}}"
    for ours, there in places.items():
        rules += [(f"{ours}_conv", f"{there}.conv"), (f"{ours}_norm", f"{there}.bn")]
    return [Spelling(TORCHVISION, rules)]


TABLE = Table("inception_v3", list_inception_v3)
