"""The player of drawings in headless Chromium: it plays, steps, and computes."""

import time

import browser
import numpy as np
import pytest
from redrawn import NUMBERED, list_all_texts, redraw

from cnn.visualize.draw.picture import Section
from cnn.visualize.lecture import slides
from cnn.visualize.lecture.slide import Slide
from cnn.visualize.lecture.svg import format_number
from cnn.visualize.page import report

pytestmark = pytest.mark.skipif(
    not (browser.DRIVER and browser.BINARY), reason="chromium and its driver are absent"
)
NAMES = NUMBERED
# What a script below finds: the player of a slide, by its place.
PLAYER = "const player = document.querySelectorAll('.player')[arguments[0]];"
TEXTS = PLAYER + "return [...player.querySelectorAll('text')].map(x => x.textContent)"
SEEN = PLAYER + (
    "return [...player.querySelectorAll('text')].filter(x => x.textContent && "
    "getComputedStyle(x).visibility === 'visible').map(x => x.textContent)"
)
LINE = PLAYER + "return player.querySelector('.line').textContent"
STEP = PLAYER + "return player.querySelector('[type=range]').value"
BUTTON = PLAYER + "return player.querySelector('.play').innerText"
CLICK = PLAYER + "player.querySelector(arguments[1]).click()"
FOCUS = PLAYER + "player.querySelector(arguments[1]).focus({preventScroll: true})"
FILL = PLAYER + (
    "const fields = player.querySelectorAll('form input');"
    "arguments[1].forEach((value, i) => { fields[i].value = value });"
    "for (const kind of ['input', 'change'])"
    "  fields[0].dispatchEvent(new Event(kind, {bubbles: true}));"
    "return fields.length"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return a browser, and a page with all slides."""
    directory = tmp_path_factory.mktemp("player")
    pictures = []
    for name in NAMES:
        make, caption = slides.SLIDES[name]
        drawing = make()
        path = directory / f"{name}.svg"
        pictures.append(Slide(path, drawing.title, caption, drawing=drawing))
    sections = [Section("lecture", "The lecture: slides", tuple(pictures))]
    path = report.write_report(directory, [], sections)
    with browser.start_browser(directory) as opened:
        yield opened, path


def open_page(page, motion="reduce", **options):
    """Open the page, on which nothing plays by itself unless motion is wanted."""
    opened, path = page
    opened.open(path, motion=motion, **options)
    return opened


def wait_for(opened, expected, script, *arguments):
    """Wait until a script returns what is expected, which nothing else brings about."""
    for _ in range(200):
        if opened.run(script, *arguments) == expected:
            return
        time.sleep(0.05)
    raise AssertionError(opened.run(script, *arguments))


def list_given(drawing):
    return [n.value for table in drawing.tables for n in table.numbers.flat]


@pytest.fixture(scope="module")
def at_rest(page):
    """Return the page once it is open, for tests that fill each form but once."""
    return open_page(page)


@pytest.mark.parametrize("name", NAMES)
def test_the_script_writes_what_the_operators_give(page, at_rest, name):
    """First for the slide's own numbers, then for others, and for its own again."""
    place = NAMES.index(name)
    own, other = slides.SLIDES[name][0](), redraw(name)
    for drawing in (own, other):
        given = list_given(drawing)
        assert at_rest.run(FILL, place, given) == len(given)
        assert at_rest.run(TEXTS, place) == list_all_texts(drawing)
    at_rest.run(CLICK, place, "[type=reset]")
    wait_for(at_rest, list_all_texts(own), TEXTS, place)


def test_own_numbers_are_those_of_numpy(page):
    opened, place = open_page(page), NAMES.index("convolution_same")
    random = np.random.default_rng(1)
    x, kernel = random.normal(0, 99, 7).round(3), random.normal(0, 99, 3).round(3)
    opened.run(FILL, place, [*x, *kernel])
    cells = opened.run(
        PLAYER + "return [...player.querySelectorAll('.output + text')]"
        ".map(x => [x.textContent, x.getComputedTextLength()])",
        place,
    )
    expected = np.correlate(x, kernel, "same")
    assert [text for text, _ in cells] == [format_number(y) for y in expected]
    assert max(len(text) for text, _ in cells) >= 8
    assert all(length <= 43 for _, length in cells), "they fit their cells of 46 pixels"


def test_the_script_rounds_as_python_does(page):
    """A maximum shows the numbers themselves: ties, halves, signs, large numbers."""
    opened, place = open_page(page), NAMES.index("max_pooling")
    values = [0.125, 0.375, -0.125, -0.375, 0.005, 0.015, 2.675, -0.001, -0.004]
    values += [1e6, -999_999.125, 12.5, 100, 0, 1 / 3, 1.005, 0.995, -0.995, 8.875]
    values += [0.625, 1234.565]
    for start in range(0, len(values), 7):
        chosen = values[start : start + 7]
        opened.run(FILL, place, chosen)
        texts = opened.run(TEXTS, place)
        assert texts[3:10] == [format_number(value) for value in chosen]


@pytest.mark.parametrize(
    "image, place",
    [
        ([1, 2, 3, 4, 5], 1),
        ([5, 4, 3, 2, 1], 0),
        ([0] * 5, 0),
        ([-1, -2, -1, -2, -1], 1),
    ],
)
def test_the_best_match_is_the_first_of_the_largest(page, at_rest, image, place):
    """The weights are of one tap; of two places of an image of 5, one is marked."""
    weights = [0, 1, 0, 0]
    at_rest.run(FILL, NAMES.index("alignment"), [*image, *weights])
    texts = at_rest.run(TEXTS, NAMES.index("alignment"))
    marks = [text for text in texts if "match" in text or not text][-2:]
    assert [bool(mark) for mark in marks] == [place == 0, place == 1]


@pytest.mark.parametrize("name", ["convolution_same", "pixel_shuffle"])
def test_each_step_shows_what_the_drawing_shows(page, name):
    opened, place = open_page(page), NAMES.index(name)
    drawing = slides.SLIDES[name][0]()
    last = drawing.steps - 1
    assert opened.run(SEEN, place) == drawing.list_texts(last), "it rests on its last"
    opened.run(CLICK, place, ".next")
    for step in range(drawing.steps):
        assert opened.run(SEEN, place) == drawing.list_texts(step)
        opened.run(CLICK, place, ".next")
    assert opened.run(SEEN, place) == drawing.list_texts(0), "after the last the first"
    opened.run(CLICK, place, ".previous")
    assert opened.run(SEEN, place) == drawing.list_texts(last)


def test_a_step_is_said_in_words(page):
    opened, place = open_page(page), NAMES.index("convolution_valid")
    said = PLAYER + (
        "return player.querySelector('[type=range]').getAttribute('aria-valuetext')"
    )
    opened.run(CLICK, place, ".next")
    formula = "1·(−1) + 4·3 + 7·(−1) = 4"
    assert opened.run(LINE, place) == f"Step 1 of 5: {formula}"
    assert opened.run(said, place) == f"1 of 5: {formula}"
    best = "Step 2 of 2: 0.7·0.8 + 0.3·0.8 + 1·0.2 = 1; ← the best match"
    assert opened.run(LINE, NAMES.index("alignment")) == best
    place = NAMES.index("pixel_shuffle")
    opened.run(CLICK, place, ".next")
    assert opened.run(said, place) == "1 of 4: 5, −1, −3, 4", "the numbers that come up"


def test_the_keyboard_suffices(page):
    """From the button to the slider and on to the fields, in the order of the page."""
    opened, place = open_page(page, height=1600), NAMES.index("convolution_valid")
    active = "const x = document.activeElement; return x.ariaLabel || x.className"
    opened.run(FOCUS, place, ".next")
    for key, expected in [("Enter", "1"), (" ", "2")]:
        opened.press(key)
        assert opened.run(STEP, place) == expected
    opened.press("Tab")
    slides = [("ArrowRight", "3"), ("End", "5"), ("ArrowLeft", "4"), ("Home", "1")]
    for key, expected in slides:
        opened.press(key)
        assert opened.run(STEP, place) == expected
    opened.press("Tab")
    opened.press("Tab")
    opened.press("Enter")  # unfolds the form
    opened.press("Tab")
    assert opened.run(active) == "x, place 0"
    opened.run("document.activeElement.select()")
    opened.type_text("10")
    assert opened.run(LINE, place) == "Step 1 of 5: 10·(−1) + 4·3 + 7·(−1) = −5"
    opened.run(FOCUS, place, ".play")
    opened.press(" ")
    wait_for(opened, ["Pause", "2"], _join(BUTTON, STEP), place)
    opened.press(" ")
    assert opened.run(BUTTON, place) == "Play"


def test_it_plays_once_in_sight_and_is_quiet(page):
    opened, place = open_page(page, motion="no-preference"), 0
    live = PLAYER + "return player.querySelector('.line').ariaLive"
    far = NAMES.index("pixel_shuffle")
    assert opened.run(BUTTON, far) == "Play", "out of sight"
    wait_for(opened, ["Pause", "1", "off"], _join(BUTTON, STEP, live), place)
    wait_for(opened, ["Play", "2", "off"], _join(BUTTON, STEP, live), place)
    opened.run(CLICK, place, ".next")
    assert opened.run(live, place) == "polite"


def _join(*scripts):
    """Return a script that returns what each of several returns."""
    parts = [script.removeprefix(PLAYER).removeprefix("return ") for script in scripts]
    return PLAYER + f"return [{', '.join(parts)}]"


def test_it_rests_where_motion_is_not_wanted(page):
    opened = open_page(page)
    playing = (
        "return [...document.querySelectorAll('.play')].map(x => x.textContent)"
        ".filter(text => text !== 'Play').length"
    )
    drawn = "return new Promise(x => requestAnimationFrame(() => setTimeout(x, 200)))"
    opened.run(drawn)
    assert opened.run(playing) == 0
    last = slides.SLIDES["alignment"][0]().list_texts(1)
    assert opened.run(SEEN, 0) == last


def test_print_shows_the_last_step_alone(page):
    opened, place = open_page(page), NAMES.index("convolution_valid")
    opened.run(CLICK, place, ".next")
    drawing = slides.SLIDES["convolution_valid"][0]()
    assert opened.run(SEEN, place) == drawing.list_texts(0)
    opened.command("Emulation.setEmulatedMedia", media="print")
    assert opened.run(SEEN, place) == drawing.list_texts(4)
    shown = PLAYER + (
        "return [...player.querySelectorAll('button, input, .line')]"
        ".filter(x => x.checkVisibility()).length"
    )
    assert opened.run(shown, place) == 0
    opened.command("Emulation.setEmulatedMedia", media="")


def test_without_the_script_the_last_step_is_seen_and_no_button(page):
    opened, path = page
    text = path.read_text().replace("new Player(root, place)", "0")
    (path.parent / "plain.html").write_text(text)
    opened.open(path.parent / "plain.html")
    place = NAMES.index("convolution_valid")
    drawing = slides.SLIDES["convolution_valid"][0]()
    assert opened.run(SEEN, place) == drawing.list_texts(4)
    shown = "return [...document.querySelectorAll('.player :is(button, input, p)')]"
    assert opened.run(shown + ".filter(x => x.checkVisibility()).length") == 0


def test_nonsense_is_refused_and_reset_brings_the_slide_back(page):
    opened, place = open_page(page), NAMES.index("convolution_valid")
    own = slides.SLIDES["convolution_valid"][0]()
    message = PLAYER + "return player.querySelector('.message').innerText"
    bad = PLAYER + (
        "return [...player.querySelectorAll('[aria-invalid=true]')].map(x => "
        "[x.ariaLabel, document.getElementById(x.getAttribute('aria-describedby'))"
        " === player.querySelector('.message')])"
    )
    opened.run(PLAYER + "player.querySelector('details').open = true", place)
    for nonsense in ("", "abc", "1e999", "1000000.5"):
        opened.run(FILL, place, [1, nonsense])
        assert opened.run(message, place).startswith("x, place 1: a number is needed")
        assert opened.run(bad, place) == [["x, place 1", True]]
        assert opened.run(TEXTS, place) == list_all_texts(own), "it waits"
    opened.run(FILL, place, [1, 5])
    assert opened.run(message, place) == "" and opened.run(bad, place) == []
    assert opened.run(TEXTS, place) != list_all_texts(own)
    opened.run(CLICK, place, "[type=reset]")
    wait_for(opened, list_all_texts(own), TEXTS, place)


def test_everything_that_can_be_used_has_a_name(page):
    opened = open_page(page)
    opened.run("document.querySelectorAll('details').forEach(x => { x.open = true })")
    nodes = opened.command("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "combobox", "spinbutton", "image")
    names = {role: [] for role in roles}
    groups = []
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in (*roles, "group"):
            names.get(role, groups).append(node["name"]["value"])
    fields = sum(len(list_given(slides.SLIDES[name][0]())) for name in NAMES)
    assert len(names["spinbutton"]) == fields and len(names["slider"]) == len(NAMES)
    assert all(all(found) for found in names.values()), names
    for make in (slides.SLIDES[name][0] for name in NAMES):
        assert make().title in names["image"]
        assert make().title in groups
    assert groups.count("Drawing") == len(NAMES)


@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_a_window_and_asks_for_nothing(page, width):
    for log in ("browser", "performance"):
        page[0].read_log(log)
    opened = open_page(page, width=width)
    opened.run("document.querySelectorAll('details').forEach(x => { x.open = true })")
    scroll = opened.run("return document.documentElement.scrollWidth")
    assert scroll <= width
    requests = [x for x in opened.list_requests() if not x.startswith("data:")]
    assert requests == [page[1].as_uri()]
    assert opened.read_log("browser") == []
