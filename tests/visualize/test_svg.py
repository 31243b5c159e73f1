"""Flip-books: what is seen when, that they are well-formed, and their numbers."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from cnn.visualize.lecture import svg

SPACE = "{http://www.w3.org/2000/svg}"


def make_drawing():
    drawing = svg.Drawing(100, 50, "a < b", steps=4)
    drawing.text(10, 10, "always")
    drawing.text(10, 10, "first & only", "small", range(0, 1))
    drawing.text(10, 10, "from the third on", "", range(2, 4))
    drawing.circle(5, 5, 2, "unit")
    drawing.line(0, 0, 1, 1, "own")
    return drawing


def list_texts(text):
    return [e.text for e in ElementTree.fromstring(text).iter(f"{SPACE}text")]


@pytest.mark.parametrize(
    "step, texts",
    [
        (0, ["always", "first & only"]),
        (1, ["always"]),
        (2, ["always", "from the third on"]),
        (3, ["always", "from the third on"]),
    ],
)
def test_each_element_is_seen_in_its_steps(step, texts):
    drawing = make_drawing()
    assert drawing.list_texts(step) == texts
    still = drawing.to_svg(step)
    assert list_texts(still) == texts
    assert "animation" not in still


def find_opacities(text, name):
    """Return [(percent, opacity)] of a named animation."""
    (rule,) = re.findall(rf"@keyframes {name}{{(.*}})}}", text)
    frames = re.findall(r"([\d.]+)%{opacity:(\d)}", rule)
    return [(float(percent), int(opacity)) for percent, opacity in frames]


def see(frames, percent):
    """Return the opacity of a step-end animation at a moment."""
    return [opacity for start, opacity in frames if start <= percent][-1]


def test_the_animation_shows_the_same_steps():
    text = make_drawing().to_svg()
    assert list_texts(text) == ["always", "first & only", "from the third on"]
    total = 4 + svg.RESTING_STEPS
    for name, seen in {"from0to1": [1, 0, 0, 0], "from2to4": [0, 0, 1, 1]}.items():
        frames = find_opacities(text, name)
        moments = [100 * (step + 0.5) / total for step in range(4)]
        assert [see(frames, moment) for moment in moments] == seen
        assert see(frames, 99.9) == seen[-1], "the last step rests"
        assert f".{name}{{opacity:{seen[-1]};" in text, "what is seen without motion"
    assert "step-end" in text and "prefers-reduced-motion" in text


def test_nothing_has_an_id_or_a_script():
    text = make_drawing().to_svg()
    root = ElementTree.fromstring(text)
    assert not [e for e in root.iter() if "id" in e.attrib or "script" in e.tag]
    assert root.find(f"{SPACE}title").text == "a < b"


def test_cells_hold_their_numbers():
    drawing = svg.Drawing(100, 50, "")
    drawing.cells(10, 20, np.array([[1, np.nan], [-2.5, 0]]), "input", 40)
    assert drawing.list_texts(0) == ["1", "−2.5", "0"]
    places = [
        (float(e.get("x")), float(e.get("y")))
        for e in ElementTree.fromstring(drawing.to_svg()).iter(f"{SPACE}rect")
        if e.get("class") == "input"
    ]
    assert places == [(10, 20), (50, 20), (10, 60), (50, 60)]


@pytest.mark.parametrize(
    "value, text", [(3, "3"), (-3, "−3"), (0.25, "0.25"), (-0.001, "0"), (1e3, "1000")]
)
def test_numbers_are_short(value, text):
    assert svg.format_number(value) == text


def test_formulas():
    assert svg.format_products([5, 7, 0], [-1, 3, -1], 16) == (
        "5·(−1) + 7·3 + 0·(−1) = 16"
    )
    assert svg.format_products([5, 7], [0, 2], 14) == "7·2 = 14"
    assert svg.format_maximum(np.array([[1, -4]]), 1) == "max(1, −4) = 1"
    assert svg.format_sum([-10, 6], -4) == "(−10) + 6 = −4"
