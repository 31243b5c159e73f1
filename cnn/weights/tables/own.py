"""Ours, with points for slashes: for models that no PyTorch library has."""

from cnn.weights.spelling import Spelling, Table

OWN = Spelling("this project", [(r"(.+)", "{1}")], has_class=False)


def list_own(model: str) -> list[Spelling]:
    """List the spelling of models that no PyTorch library has."""
    return [OWN]


TABLE = Table(r".+", list_own)
