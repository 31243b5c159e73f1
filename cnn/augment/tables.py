"""What policies choose from: their operations, ranges and learnt pairs."""

from typing import NamedTuple

OPERATIONS = (
    "identity",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
    "invert",
)


class Range(NamedTuple):
    """From the weakest to the strongest value of an operation.

    Attributes:
        low: the value at strength 0.
        high: the value at full strength.
        signed: whether the way from low is taken up or down, by chance.
        whole: whether the value is rounded.
        unit: what high is a multiple of: `one`, `width` or `height` in pixels.
    """

    low: float = 0.0
    high: float = 0.0
    signed: bool = False
    whole: bool = False
    unit: str = "one"

    def scale_ends(self, height: int, width: int) -> tuple[float, float]:
        """Return low and high in absolute terms for images of a size in pixels."""
        size = {"one": 1, "height": height, "width": width}[self.unit]
        return self.low, self.high * size


def _make_space(
    shear: float,
    pixels: tuple[Range, Range],
    degrees: float,
    posterize: tuple[float, float],
    enhance: float,
) -> dict[str, Range]:
    """Return operations and their ranges, in the published order."""
    enhanced = Range(1.0, 1 + enhance, True)
    space = {
        "identity": Range(),
        "shear_x": Range(0.0, shear, True),
        "shear_y": Range(0.0, shear, True),
        "translate_x": pixels[0],
        "translate_y": pixels[1],
        "rotate": Range(0.0, degrees, True),
    }
    if enhance:
        names = ("brightness", "saturation", "contrast", "sharpness")
        space |= dict.fromkeys(names, enhanced)
    return space | {
        "posterize": Range(*posterize, whole=True),
        "solarize": Range(255.0, 0.0),
        "autocontrast": Range(),
        "equalize": Range(),
    }


def _share(share: float) -> tuple[Range, Range]:
    wide = Range(0.0, share, True, unit="width")
    return wide, wide._replace(unit="height")


_FIRST = _make_space(0.3, _share(150 / 331), 30.0, (8, 4), 0.9)
_WIDE = _make_space(0.99, (Range(0.0, 32.0, True),) * 2, 135.0, (8, 2), 0.99)
_MIX = _make_space(0.3, _share(1 / 3), 30.0, (4, 0), 0.0)
del _MIX["identity"]

SPACES = {
    "randaugment": _FIRST,
    "trivialaugment": _WIDE,
    "autoaugment": _FIRST | {"invert": Range()},
    "augmix": _MIX | {"identity": Range()},
}

# Operation, probability, strength in ninths; then the second one's.
_LEARNT = {
    "cifar": (
        "invert 0.1 0 | contrast 0.2 6",
        "rotate 0.7 2 | translate_x 0.3 9",
        "sharpness 0.8 1 | sharpness 0.9 3",
        "shear_y 0.5 8 | translate_y 0.7 9",
        "autocontrast 0.5 0 | equalize 0.9 0",
        "shear_y 0.2 7 | posterize 0.3 7",
        "saturation 0.4 3 | brightness 0.6 7",
        "sharpness 0.3 9 | brightness 0.7 9",
        "equalize 0.6 0 | equalize 0.5 0",
        "contrast 0.6 7 | sharpness 0.6 5",
        "saturation 0.7 7 | translate_x 0.5 8",
        "equalize 0.3 0 | autocontrast 0.4 0",
        "translate_y 0.4 3 | sharpness 0.2 6",
        "brightness 0.9 6 | saturation 0.2 8",
        "solarize 0.5 2 | invert 0.0 0",
        "equalize 0.2 0 | autocontrast 0.6 0",
        "equalize 0.2 0 | equalize 0.6 0",
        "saturation 0.9 9 | equalize 0.6 0",
        "autocontrast 0.8 0 | solarize 0.2 8",
        "brightness 0.1 3 | saturation 0.7 0",
        "solarize 0.4 5 | autocontrast 0.9 0",
        "translate_y 0.9 9 | translate_y 0.7 9",
        "autocontrast 0.9 0 | solarize 0.8 3",
        "equalize 0.8 0 | invert 0.1 0",
        "translate_y 0.7 9 | autocontrast 0.9 0",
    ),
    "imagenet": (
        "posterize 0.4 8 | rotate 0.6 9",
        "solarize 0.6 5 | autocontrast 0.6 0",
        "equalize 0.8 0 | equalize 0.6 0",
        "posterize 0.6 7 | posterize 0.6 6",
        "equalize 0.4 0 | solarize 0.2 4",
        "equalize 0.4 0 | rotate 0.8 8",
        "solarize 0.6 3 | equalize 0.6 0",
        "posterize 0.8 5 | equalize 1.0 0",
        "rotate 0.2 3 | solarize 0.6 8",
        "equalize 0.6 0 | posterize 0.4 6",
        "rotate 0.8 8 | saturation 0.4 0",
        "rotate 0.4 9 | equalize 0.6 0",
        "equalize 0.0 0 | equalize 0.8 0",
        "invert 0.6 0 | equalize 1.0 0",
        "saturation 0.6 4 | contrast 1.0 8",
        "rotate 0.8 8 | saturation 1.0 2",
        "saturation 0.8 8 | solarize 0.8 7",
        "sharpness 0.4 7 | invert 0.6 0",
        "shear_x 0.6 5 | equalize 1.0 0",
        "saturation 0.4 0 | equalize 0.6 0",
        "equalize 0.4 0 | solarize 0.2 4",
        "solarize 0.6 5 | autocontrast 0.6 0",
        "invert 0.6 0 | equalize 1.0 0",
        "saturation 0.6 4 | contrast 1.0 8",
        "equalize 0.8 0 | equalize 0.6 0",
    ),
}


def _read(text: str) -> tuple[str, float, int]:
    name, probability, level = text.split()
    return name, float(probability), int(level)


AUTOAUGMENT = {
    name: tuple(tuple(map(_read, row.split(" | "))) for row in rows)
    for name, rows in _LEARNT.items()
}
