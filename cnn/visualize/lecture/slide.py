"""A slide: a picture whose drawing a page can play."""

import dataclasses

from cnn.visualize.draw.picture import Picture
from cnn.visualize.lecture.svg import Drawing


@dataclasses.dataclass(frozen=True)
class Slide(Picture):
    """A picture that was written from a drawing.

    Attributes:
        drawing: the same, with its steps and with how its numbers follow.
    """

    drawing: Drawing = dataclasses.field(kw_only=True)
