"""The lecture's slides of images that are changed in training, with their labels.

Each function draws numbers that were computed before; see `lines`.
"""

import jax
import numpy as np

from cnn.visualize.lecture.svg import Drawing, format_number

_PIXEL, _EDGE, _TOP, _GAP = 18, 16, 74, 48
_BAR = 110  # of a whole label


def mix(images: jax.Array, mixed: jax.Array, targets: jax.Array) -> Drawing:
    """Draw a blend of a 3 and an 8, and its label, at falling shares of the 3.

    Args:
        images: [2, H, W, 1], in 0..1.
        mixed: [steps, H, W, 1].
        targets: [steps, 2], the label's shares of the two classes.
    """
    originals, blends = np.asarray(images)[..., 0], np.asarray(mixed)[..., 0]
    side = originals.shape[1] * _PIXEL
    lefts = [_EDGE + place * (side + _GAP) for place in range(3)]
    title = "Mix-up: an image and its label are blended alike"
    width, height = lefts[-1] + side + _EDGE, _TOP + side + 110
    drawing = Drawing(width, height, title, len(blends))
    drawing.text(_EDGE, 24, title, "title")
    for left, image, name, own in zip(
        lefts, originals, ("3", "8"), np.eye(2), strict=False
    ):
        drawing.text(left, _TOP - 16, f"image of a {name}", "left small")
        drawing.pixels(left, _TOP, 1 - image, _PIXEL)
        _show_label(drawing, left, _TOP + side, dict(zip("38", own, strict=True)))
    drawing.text(lefts[2], _TOP - 16, "the blend", "left small")
    for step, (image, target) in enumerate(zip(blends, targets, strict=True)):
        now = range(step, step + 1)
        drawing.pixels(lefts[2], _TOP, 1 - image, _PIXEL, now)
        label = dict(zip("38", np.asarray(target), strict=True))
        _show_label(drawing, lefts[2], _TOP + side, label, now)
        shares = [format_number(float(share)) for share in target]
        text = f"{shares[0]} · (image of the 3) + {shares[1]} · (image of the 8)"
        drawing.text(_EDGE, height - 20, text, "left", now)
    return drawing


def cut(images: jax.Array, covered: jax.Array, target: jax.Array) -> Drawing:
    """Draw an image with a square of it covered, at another place at each step.

    Args:
        images: [1, H, W, 1], in 0..1.
        covered: [steps, H, W, 1].
        target: what the label has of the image's class.
    """
    original, steps = np.asarray(images)[0, ..., 0], np.asarray(covered)[..., 0]
    side = original.shape[0] * _PIXEL
    lefts = [_EDGE + place * (side + _GAP) for place in range(2)]
    title = "Cut-out: a square is covered, the label stays"
    width, height = max(lefts[-1] + side + _EDGE, 520), _TOP + side + 110
    drawing = Drawing(width, height, title, len(steps))
    drawing.text(_EDGE, 24, title, "title")
    label = {"3": float(target), "8": 0.0}
    drawing.text(lefts[0], _TOP - 16, "image of a 3", "left small")
    drawing.pixels(lefts[0], _TOP, 1 - original, _PIXEL)
    drawing.text(lefts[1], _TOP - 16, "what the network sees", "left small")
    for left in lefts:
        _show_label(drawing, left, _TOP + side, label)
    for step, image in enumerate(steps):
        now = range(step, step + 1)
        drawing.pixels(lefts[1], _TOP, 1 - image, _PIXEL, now)
        text = f"epoch {step}: another square is covered, and it is still a 3"
        drawing.text(_EDGE, height - 20, text, "left", now)
    return drawing


def _show_label(
    drawing: Drawing,
    left: float,
    top: float,
    label: dict[str, float],
    during: range | None = None,
) -> None:
    """Draw a bar for each class, as long as the label's share of it."""
    for row, (name, share) in enumerate(label.items()):
        y = top + 14 + 24 * row
        drawing.text(left, y + 8, name, "left small", during)
        if share:
            drawing.rectangle(left + 16, y, _BAR * share, 16, "bar", during)
        written = format_number(float(share))
        drawing.text(left + 22 + _BAR * share, y + 8, written, "left small", during)
