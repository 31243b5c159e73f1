"""The report in headless Chromium: it decodes, asks for nothing, fits and works."""

import json

import browser
import pytest
from PIL import Image

from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.lecture import slides_2d
from cnn.visualize.page import report

pytestmark = pytest.mark.skipif(
    not (browser.DRIVER and browser.BINARY), reason="chromium and its driver are absent"
)
SIZES = [(360, 740), (1400, 900)]
WIDTHS = "return [document.documentElement.scrollWidth, window.innerWidth]"
BROKEN = (
    "return [...document.querySelectorAll('figure img')]"
    ".filter(image => !image.naturalWidth).map(image => image.alt)"
)
COLUMN = (
    "const table = document.querySelector(`table[aria-label='${arguments[0]}']`);"
    "return [...table.tBodies[0].rows].map(row => row.cells[arguments[1]].innerText)"
)
SORT = (
    "document.querySelectorAll(`table[aria-label='${arguments[0]}'] th button`)"
    "[arguments[1]].click()"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a browser, and a report of three runs with every kind of picture."""
    directory = tmp_path_factory.mktemp("report")
    runs = []
    for name, accuracy in (("first", 0.5), ("second", 0.25), ("third", 0.125)):
        runs.append(directory / f"{name}{',option=value' * 6}")
        runs[-1].mkdir()
        result = {"test_accuracy": accuracy, "test_loss": 9 + 1 / accuracy}
        (runs[-1] / "result.json").write_text(json.dumps(result))
        options = {f"option_{n}": "long value " * 9 for n in range(30)}
        options["epochs"] = int(1 / accuracy)
        (runs[-1] / "config.json").write_text(json.dumps(options))
    Image.new("RGB", (1500, 700), "red").save(directory / "wide.png")
    Image.new("P", (50, 50), 3).save(directory / "moving.gif")
    (directory / "slide.svg").write_text(
        slides_2d.max_pool([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 2, 1).to_svg()
    )
    pictures = [
        Picture(directory / name, f"Picture {name}", "A sentence. " * 20)
        for name in ("wide.png", "moving.gif", "slide.svg")
    ]
    sections = [
        Section(
            f"section{n}", f"Section {n}: its pictures", tuple(pictures), ("A note",)
        )
        for n in range(3)
    ]
    path = report.write_report(directory, runs, sections)
    with browser.start_browser(directory) as opened:
        yield opened, path


def open_page(page, **options):
    opened, path = page
    opened.open(path, **options)
    return opened


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width, height", SIZES)
def test_everything_decodes_and_nothing_is_asked_for(page, width, height, scheme):
    opened = open_page(page, width=width, height=height, scheme=scheme)
    scroll, window = opened.run(WIDTHS)
    assert scroll <= window == width
    assert opened.run("return document.querySelectorAll('figure img').length") == 9
    assert opened.run(BROKEN) == []
    requests = [x for x in opened.list_requests() if not x.startswith("data:")]
    assert requests == [page[1].as_uri()]
    assert opened.read_log("browser") == []


def test_dark_is_dark(page):
    colours = []
    for scheme in ("light", "dark"):
        opened = open_page(page, scheme=scheme)
        colours.append(
            opened.run("return getComputedStyle(document.body).backgroundColor")
        )
    assert colours == ["rgb(255, 255, 255)", "rgb(23, 25, 28)"]


@pytest.mark.parametrize("width, height", SIZES)
def test_contents_lead_to_every_section(page, width, height):
    opened = open_page(page, width=width, height=height)
    opened.run("document.documentElement.style.scrollBehavior = 'auto'")
    names = opened.run(
        "return [...document.querySelectorAll('nav > ul > li > a')].map(a => a.hash)"
    )
    assert names == ["#result", "#options", "#section0", "#section1", "#section2"]
    every = "return [...document.querySelectorAll('nav a')].every("
    assert opened.run(every + "a => document.getElementById(a.hash.slice(1)))")
    tops = opened.run(
        "return [...document.querySelectorAll('nav > ul > li > a')].map(a => {"
        "a.click();"
        "return document.getElementById(a.hash.slice(1)).getBoundingClientRect().top})"
    )
    assert all(0 <= top < height - 20 for top in tops), tops
    assert opened.run("return location.hash") == "#section2"


def test_tables_are_sorted_by_number(page):
    opened = open_page(page)
    read = (COLUMN, "Result", 1)
    assert opened.run(*read) == ["50.00%", "25.00%", "12.50%"]
    opened.run(SORT, "Result", 1)
    assert opened.run(*read) == ["12.50%", "25.00%", "50.00%"]
    opened.run(SORT, "Result", 1)
    assert opened.run(*read) == ["50.00%", "25.00%", "12.50%"]
    opened.run(SORT, "Result", 2)
    assert opened.run(COLUMN, "Result", 2) == ["11.0000", "13.0000", "17.0000"]


def test_pictures_can_be_enlarged(page):
    opened = open_page(page, width=360, height=740)
    shown = "return document.querySelector('dialog').open"
    assert not opened.run(shown)
    opened.run("document.querySelector('#section0-1 button').click()")
    assert opened.run(shown)
    large = opened.run("return document.querySelector('dialog img').clientWidth")
    small = opened.run("return document.querySelector('#section0-1 img').clientWidth")
    assert large == 1500 and small < 360
    opened.run("document.querySelector('dialog').click()")
    assert not opened.run(shown)


def test_print_leaves_out_contents_and_what_is_folded(page):
    opened = open_page(page)
    opened.command("Emulation.setEmulatedMedia", media="print")
    shown = "return document.querySelector(arguments[0]).checkVisibility()"
    assert opened.run(shown, "main table")
    assert not opened.run(shown, "nav") and not opened.run(shown, "details")
    opened.run("document.querySelector('details').open = true")
    assert opened.run(shown, "details")
    opened.command("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("width, height", SIZES)
def test_no_text_of_a_table_lies_over_another(page, width, height):
    """A run of a long name has its accuracy beside it, or below."""
    opened = open_page(page, width=width, height=height)
    overlaps = opened.run(
        "const box = (cell) => {"
        "  const range = document.createRange();"
        "  range.selectNodeContents(cell);"
        "  return range.getBoundingClientRect(); };"
        "const cells = [...document.querySelectorAll('table[aria-label=Result] td')];"
        "const boxes = cells.map(box).filter(one => one.width);"
        "return boxes.flatMap((a, i) => boxes.slice(i + 1).filter(b =>"
        "  a.left < b.right - 1 && b.left < a.right - 1 &&"
        "  a.top < b.bottom - 1 && b.top < a.bottom - 1)).length"
    )
    assert overlaps == 0
    first = (
        "return document.querySelector('h1 ~ *:not(h2)').getBoundingClientRect().top"
    )
    assert opened.run(first) < height / 2, "the result comes first"


def test_no_short_word_or_number_of_a_table_is_broken(tmp_path):
    """Columns are as narrow as the window makes them, and no narrower than 0.1319."""
    columns = [f"column {n}" for n in range(14)]
    table = report.tabulate(columns, [dict.fromkeys(columns, "simple_cnn")] * 2)
    path = report.write_tables(tmp_path, "A", (), {"Runs": table}, [])
    with browser.start_browser(tmp_path) as opened:
        for width, height in SIZES:
            opened.open(path, width=width, height=height)
            broken = opened.run(
                "return [...document.querySelectorAll('td')].filter(cell => {"
                "  const range = document.createRange();"
                "  range.selectNodeContents(cell);"
                "  return range.getClientRects().length > 1; }).length"
            )
            assert broken == 0
            # Before a card's value on a phone, where the head of its column stands.
            style = "getComputedStyle(document.querySelector('td'), '::before')"
            assert opened.run(f"return {style}.whiteSpace") == (
                "normal" if width < 400 else "nowrap"
            )


def test_slides_move_unless_motion_is_unwanted(page):
    """Screenshots of a slide alone, two steps apart."""
    opened, path = page
    step = path.with_name("slide.svg")
    seen = {}
    for motion in ("no-preference", "reduce"):
        opened.open(step, 600, 300)
        feature = {"name": "prefers-reduced-motion", "value": motion}
        opened.command("Emulation.setEmulatedMedia", features=[feature])
        moving = opened.run("return document.getAnimations().length")
        seen[motion] = moving
    assert seen["no-preference"] > 0 and seen["reduce"] == 0
