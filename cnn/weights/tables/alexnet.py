"""AlexNet."""

from cnn.weights.spelling import TORCHVISION, Spelling, Table


def list_alexnet(model: str) -> list[Spelling]:
    """List torchvision's spelling of AlexNet."""
    places = {"stage1": 0, "stage2": 3, "stage3": 6, "stage4": 8, "stage5": 10}
    convs = [(f"{name}_conv", f"features.{i}") for name, i in places.items()]
    dense = [("dense1", "1"), ("dense2", "4"), ("head", "6")]
    rules = convs + [(ours, f"classifier.{there}") for ours, there in dense]
    return [Spelling(TORCHVISION, rules)]


TABLE = Table("alexnet", list_alexnet, {"dense1": 6})
