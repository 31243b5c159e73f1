"""SqueezeNet."""

from cnn.weights.spelling import TORCHVISION, Rule, Spelling, Table


def list_squeezenet(model: str) -> list[Spelling]:
    """List torchvision's spelling of a SqueezeNet."""
    places = ((3, 4), (6, 7), (9, 10, 11, 12))
    if model == "squeezenet1_0":
        places = ((3, 4, 5), (7, 8, 9, 10), (12,))
    rules: list[Rule] = [("stem", "features.0"), ("head", "classifier.1")]
    for stage, stage_places in enumerate(places, start=1):
        for fire, place in enumerate(stage_places, start=1):
            rules.append((f"stage{stage}_fire{fire}/(.+)", f"features.{place}.{{1}}"))
    return [Spelling(TORCHVISION, rules)]


TABLE = Table(r"squeezenet1_\d", list_squeezenet)
