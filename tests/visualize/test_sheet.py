"""The numbers of a slide say truly how they follow from one another."""

import html
import json
import re

import numpy as np
import pytest
from redrawn import NUMBERED, list_all_texts, redraw

from cnn.visualize.lecture import sheet, slides, svg
from cnn.visualize.lecture.svg import Drawing, Shown
from cnn.visualize.page import player

# What the operations mean, apart from the script of the page.
OPERATIONS = {
    "dot": lambda values, taps: np.dot(values, taps),
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "best": lambda before, rest: np.argmax([*before, *rest]) == len(before),
}


def evaluate(described, given):
    """Compute the numbers of a description, the first ones being given."""
    values, lists = [], []
    for place, number in enumerate(described):
        if not isinstance(number, list):
            values.append(given[place] if place < len(given) else number)
            lists.append([])
            continue
        lists.append([[values[one] for one in read] for read in number[1:]])
        values.append(float(OPERATIONS[number[0]](*lists[-1])))
    return values, lists


def write(writer, operation, value, lists):
    return {
        "number": lambda: svg.format_number(value),
        "tap": lambda: f"×{svg.format_number(value)}",
        "line": lambda: svg.LINES[operation](*lists, value),
        "best": lambda: "← the best match" if value else "",
    }[writer]()


def read_page(page):
    """Return a player's texts, and what numbers are written in them, by their place."""
    found = re.findall(r"<text ([^>]*)>(.*?)</text>", page)
    data = [dict(re.findall(r'data-(\w+)="([^"]*)"', inside)) for inside, _ in found]
    written = {
        place: (int(one["number"]), one["writer"])
        for place, one in enumerate(data)
        if "number" in one
    }
    return [html.unescape(text) for _, text in found], written


def read_numbers(page):
    """Return the description of a player's numbers, and those of its form."""
    (described,) = re.findall(r'<script type="application/json">(.*?)</script>', page)
    given = re.findall(r'<input type="number" step="any" value="([^"]*)"', page)
    return json.loads(described), [float(value) for value in given]


def rewrite(page, given):
    """Return a player's texts for some numbers, and how many of them show a number."""
    texts, written = read_page(page)
    described, _ = read_numbers(page)
    values, lists = evaluate(described, given)
    for place, (number, writer) in written.items():
        operation = described[number][0] if lists[number] else ""
        texts[place] = write(writer, operation, values[number], lists[number])
    return texts, len(written)


@pytest.mark.parametrize("name", NUMBERED)
def test_texts_follow_from_the_numbers(name):
    drawing = slides.SLIDES[name][0]()
    page = player.embed(drawing)
    _, given = read_numbers(page)
    texts, count = rewrite(page, given)
    assert texts == list_all_texts(drawing)
    assert count > len(given), "inputs, and what follows from them"


@pytest.mark.parametrize("name", NUMBERED)
def test_other_numbers_give_what_the_operators_give(name):
    """Every text of the slide of other numbers follows from the slide's description."""
    other = redraw(name)
    _, given = read_numbers(player.embed(other))
    page = player.embed(slides.SLIDES[name][0]())
    assert rewrite(page, given)[0] == list_all_texts(other)


def test_every_number_of_a_slide_can_be_replaced_or_follows():
    """Of the cells, only the padding's zeros stay as they are."""
    for name in NUMBERED:
        drawing = slides.SLIDES[name][0]()
        offered = {n for table in drawing.tables for n in table.numbers.flat}
        cells = [e for e in drawing._elements if e.tag == "text" and _is_number(e.text)]
        for element in cells:
            assert element.shown, (name, element.text)
            number = element.shown.number
            assert number in offered or number.operation or element.text == "0", name


def _is_number(text):
    return bool(re.fullmatch(r"×?−?[\d.]+", text))


def test_a_description_names_what_comes_before():
    x = sheet.make_numbers([1, 4])
    tap = sheet.make_numbers([-2])
    total = sheet.follow(-10, "dot", x, np.repeat(tap, 2))
    places = sheet.sort_numbers([sheet.Table("x", x)], [total])
    assert sheet.describe(places) == [1, 4, -2, ["dot", [0, 1], [2, 2]]]


def test_what_is_computed_of_something_computed_comes_after_it():
    x = sheet.make_numbers([[1, 2], [5, 4]])
    rows = np.array([sheet.follow(3, "sum", x[0]), sheet.follow(5, "max", x[1])])
    mean = sheet.follow(4, "mean", rows)
    places = sheet.sort_numbers([sheet.Table("x", x)], [mean, *rows])
    assert sheet.describe(places)[4:] == [
        ["sum", [0, 1]],
        ["max", [2, 3]],
        ["mean", [4, 5]],
    ]
    assert Shown(mean, "line").text == "(3 + 5) / 2 = 4"


def test_a_drawing_without_formulas_has_buttons_and_no_form():
    drawing = Drawing(100, 50, 'a "quoted" <title>', steps=3)
    drawing.text(5, 5, "plain", "left", range(1, 2))
    drawing.cells(0, 0, np.array([[1.0, np.nan]]), "input", 20)
    page = player.embed(drawing)
    assert 'type="range" min="1" max="3" value="3"' in page
    assert "<form" not in page and "application/json" not in page
    assert 'aria-label="a &#34;quoted&#34; &lt;title&gt;"' in page
    assert '<text x="5" y="5" class="left unseen" data-steps="1 2">plain</text>' in page


def test_numbers_of_products_that_are_all_left_out():
    assert svg.format_products(np.array([5.0, 7]), np.zeros(2), 0) == "0 = 0"
    assert svg.format_mean(np.array([1, -4]), -1.5) == "(1 + (−4)) / 2 = −1.5"


def test_the_script_and_its_style_leave_the_rest_of_a_page_alone():
    for rule in player.read_style().splitlines():
        assert rule.startswith((".player ", "@media", "  .player ", "}")), rule
    script = player.read_script()
    assert len(script.encode()) < 15_000
    assert not re.search(r"fetch|XMLHttp|import|https?:|localStorage|eval", script)
