"""SqueezeNet."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table


def list_squeezenet(model: str) -> list[Spelling]:
    """List torchvision's spelling of SqueezeNet 1.1."""
    places = ((3, 4), (6, 7), (9, 10, 11, 12))
    rules: list[Rule] = [("stem", "features.0"), ("head", "classifier.1")]
    for stage, stage_places in enumerate(places, start=1):
        for fire, place in enumerate(stage_places, start=1):
            rules.append((f"stage{stage}_fire{fire}/(.+)", f"features.{place}.{{1}}"))
    return [Spelling(TORCHVISION, rules)]


TABLE = Table("squeezenet1_1", list_squeezenet)
