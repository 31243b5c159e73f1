"""The page's charts in headless Chromium: values, scales, smoothing, what is hidden."""

import json

import browser
import numpy as np
import pytest

from cnn.visualize.draw import chart
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.page import report

pytestmark = pytest.mark.skipif(
    not (browser.DRIVER and browser.BINARY), reason="chromium and its driver are absent"
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"></svg>'
EPOCHS = np.arange(5.0)
LOSSES = {"first": np.array([2.0, 1, 0.5, np.nan, 0.25]), "second": 1 / (1 + EPOCHS)}
SHARES = {"first": 1 - 0.1**EPOCHS, "second": 0.8 + EPOCHS / 20}
VALUES = (
    "return [...document.querySelectorAll('.chart tbody tr')]"
    ".map(row => [...row.cells].map(cell => cell.innerText))"
)
PATHS = (
    "return [...document.querySelectorAll('.chart svg')]"
    ".map(svg => [...svg.querySelectorAll('path')].map(path => path.getAttribute('d')))"
)
SET = (
    "const input = document.querySelector(arguments[0]); input.value = arguments[1];"
    "input.dispatchEvent(new Event('input'))"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a browser, and a report of two runs' curves."""
    directory = tmp_path_factory.mktemp("chart")
    path = directory / "curves.svg"
    path.write_text(SVG)
    colours = {"first": "#0072B2", "second": "#000000"}
    lines = [
        chart.Line(panel, name, "test", colours[name], EPOCHS, values[name])
        for panel, values in (("loss", LOSSES), ("accuracy", SHARES))
        for name in ("first", "second")
    ]
    panels = [chart.Panel("loss", "loss", "log")]
    panels.append(chart.Panel("accuracy", "accuracy", "share"))
    chart.write(path, panels, lines, x="epochs", groups="Runs", names="Lines")
    section = Section("curves", "Curves", (Picture(path, "Training", "Caption."),))
    written = report.write_report(directory, [], [section])
    with browser.start_browser(directory) as opened:
        yield opened, written


@pytest.fixture
def opened(page):
    page[0].open(page[1], width=390)
    return page[0]


def read_heights(opened, panel, line):
    """Return the vertical places of a line's points."""
    drawn = opened.run(PATHS)[panel][line]
    points = drawn.replace("M", "L").split("L")[1:]
    return np.array([float(point.split()[1]) for point in points])


def test_values_are_whole_on_a_small_phone(page):
    """A number is on one line, and most of the window may be values."""
    opened = page[0]
    opened.open(page[1], width=240, height=900)
    lines = opened.run(
        "return [...document.querySelectorAll('.chart td:not(:first-child)')]"
        ".map(cell => { const range = document.createRange();"
        "  range.selectNodeContents(cell);"
        "  return range.getClientRects().length; })"
    )
    assert lines == [1] * 4
    most = "return getComputedStyle(document.querySelector('.chart .table')).maxHeight"
    assert opened.run(most) in ("675px", "max(20rem, 75vh)", "max(320px, 675px)")


def test_values_follow_the_slider_by_keyboard(opened):
    assert opened.run(VALUES) == [
        ["first, test", "0.25", "99.99 %"],
        ["second, test", "0.2", "100 %"],
    ]
    opened.run("document.querySelector('.chart .place').focus()")
    opened.press("Home")
    opened.press("ArrowRight")
    expected = [["first, test", "1", "90 %"], ["second, test", "0.5", "85 %"]]
    assert opened.run(VALUES) == expected
    assert opened.run("return document.querySelector('.place ~ output').value") == "1"


def test_values_follow_the_pointer(opened):
    opened.run(
        "const svg = document.querySelectorAll('.chart svg')[1];"
        "const box = svg.getBoundingClientRect();"
        "const at = {clientX: box.left + 57, clientY: box.top + 9, bubbles: true};"
        "svg.dispatchEvent(new PointerEvent('pointermove', at))"
    )
    assert opened.run(VALUES)[0] == ["first, test", "2", "0 %"]


def test_scales_are_stretched_or_linear(opened):
    stretched = read_heights(opened, 1, 0)
    assert np.diff(stretched)[2] < -20, "99 % and 99.9 % are apart"
    logarithmic = read_heights(opened, 0, 0)
    np.testing.assert_allclose(*np.diff(logarithmic)[:2], atol=0.2)
    opened.run("document.querySelector('.chart .log').click()")
    assert np.diff(read_heights(opened, 1, 0))[2] > -5
    linear = np.diff(read_heights(opened, 0, 0))
    assert linear[0] == pytest.approx(2 * linear[1], abs=0.3)


def test_runs_are_hidden_and_shown(opened):
    assert [len(paths) for paths in opened.run(PATHS)] == [2, 2]
    click = "document.querySelector('.chart fieldset input').click()"
    opened.run(click)
    assert [len(paths) for paths in opened.run(PATHS)] == [1, 1]
    assert [row[0] for row in opened.run(VALUES)] == ["second, test"]
    opened.run(click)
    assert len(opened.run(VALUES)) == 2


def test_smoothing_is_a_mean_of_what_came_before(opened):
    opened.run(SET, ".chart .smoothing", 0.5)
    opened.run(SET, ".chart .place", 2)
    # (2/4 + 1/2 + 0.5) / (1/4 + 1/2 + 1) and (1/4 + 1/4 + 1/3) / 1.75
    assert [row[1] for row in opened.run(VALUES)] == ["0.8571", "0.4762"]
    assert [len(paths) for paths in opened.run(PATHS)] == [4, 4], "and the raw lines"
    assert "NaN" not in json.dumps(opened.run(PATHS))


def test_a_gap_interrupts_the_line(opened):
    assert opened.run(PATHS)[0][0].count("M") == 2


def test_the_picture_stands_where_there_is_no_script(page):
    opened, path = page
    shown = "return document.querySelector('{}').checkVisibility()"
    opened.open(path)
    assert not opened.run(shown.format(".zoom")) and opened.run(shown.format(".chart"))
    opened.command("Emulation.setScriptExecutionDisabled", value=True)
    opened.open(path)
    opened.command("Emulation.setScriptExecutionDisabled", value=False)
    assert opened.run(shown.format(".zoom")) and not opened.run(shown.format(".chart"))


def test_line_art_is_dark_in_the_dark(page):
    opened, path = page
    look = "return getComputedStyle(document.querySelector('.drawn img')).filter"
    for scheme, expected in (("light", "none"), ("dark", "invert(0.91) hue-rotate(")):
        opened.open(path, scheme=scheme)
        assert opened.run(look).startswith(expected)
