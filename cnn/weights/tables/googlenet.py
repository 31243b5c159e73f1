"""GoogLeNet."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table

_LETTERS = {3: "ab", 4: "abcde", 5: "ab"}
_AUXILIARY = ("stage2_block1_aux", "stage2_block4_aux")


def list_googlenet(model: str) -> list[Spelling]:
    """List torchvision's spelling of GoogLeNet."""
    rules: list[Rule] = [
        ("head", "fc"),
        ("stem", "conv1.conv"),
        ("stem_norm", "conv1.bn"),
    ]
    places = {"stem_reduce": "conv2", "stem_expand": "conv3"}
    for number, layer in enumerate(_AUXILIARY, start=1):
        places[f"{layer}/reduce"] = f"aux{number}.conv"
        rules.append((f"{layer}/dense", f"aux{number}.fc1"))
        rules.append((f"{layer}/head", f"aux{number}.fc2"))
    for number, letters in _LETTERS.items():
        for block, letter in enumerate(letters, start=1):
            ours, there = (
                f"stage{number - 2}_block{block}",
                f"inception{number}{letter}",
            )
            places[f"{ours}/branch1"] = f"{there}.branch1"
            places[f"{ours}/branch4"] = f"{there}.branch4.1"
            for branch in (2, 3):
                places[f"{ours}/branch{branch}_reduce"] = f"{there}.branch{branch}.0"
                places[f"{ours}/branch{branch}"] = f"{there}.branch{branch}.1"
    for ours, there in places.items():
        rules += [(f"{ours}_conv", f"{there}.conv"), (f"{ours}_norm", f"{there}.bn")]
    return [Spelling(TORCHVISION, rules)]


TABLE = Table(
    "googlenet", list_googlenet, {f"{layer}/dense": 4 for layer in _AUXILIARY}
)
