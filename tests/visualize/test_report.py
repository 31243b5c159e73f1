"""The report's content; how it looks is for `test_report_in_browser.py`."""

import base64
import dataclasses
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image

from cnn.errors import UserError
from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.page import report

SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"></svg>'


class Page(HTMLParser):
    """The elements of a page, and the text of its table rows."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows, self.notes, self.links = [], [], [], []
        self._tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag):
        while self._tags and self._tags.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attributes = self._tags[-1] if self._tags else ("", {})
        if tag == "td":
            self.rows[-1].append(data)
        if tag == "a":
            self.links.append(data)
        if attributes.get("class") == "note":
            self.notes.append(data)

    def find(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a report of runs and sections and reads it."""

    def write(runs=(), sections=(), tables=None):
        path = report.write_report(tmp_path, list(runs), list(sections), tables)
        assert path == tmp_path / "report.html"
        return Page(path.read_text())

    return write


@pytest.fixture
def pictures(tmp_path):
    """Return a PNG and an SVG picture."""
    Image.new("RGB", (30, 12), "red").save(tmp_path / "a.png")
    (tmp_path / "b.svg").write_text(SVG)
    return (
        Picture(tmp_path / "a.png", "Red <b>", 'One "sentence".'),
        Picture(tmp_path / "b.svg", "Drawn", "Another."),
    )


def make_run(directory, options, result):
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(options))
    if result is not None:
        (directory / "result.json").write_text(json.dumps(result))
    return directory


def test_images_are_part_of_the_page(write, pictures):
    page = write(sections=[Section("kernels", "Kernels: what", pictures)])
    first, second, _ = page.find("img")
    assert first["alt"] == "Red <b>", "escaped, hence read back as it was"
    assert (first["width"], first["height"]) == ("30", "12")
    kind, content = first["src"].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(content) == pictures[0].path.read_bytes()
    assert (second["width"], second["height"]) == ("40", "20")
    assert base64.b64decode(second["src"].split(",")[1]).decode() == SVG
    figures = [figure["id"] for figure in page.find("figure")]
    links = [link["href"] for link in page.find("a")]
    assert figures == ["kernels-1", "kernels-2"]
    assert links == ["#kernels", "#kernels-1", "#kernels-2"]


def test_line_art_is_taken_where_it_lies_beside_the_png(write, pictures, tmp_path):
    (tmp_path / "a.svg").write_text(SVG)
    page = write(sections=[Section("kernels", "Kernels", pictures[:1])])
    assert page.find("img")[0]["src"].startswith("data:image/svg+xml;base64,")


def test_page_names_no_other_place(write, pictures, tmp_path):
    write(sections=[Section("kernels", "Kernels", pictures)])
    text = (tmp_path / "report.html").read_text()
    assert "default-src 'none'" in text
    assert not re.findall(r"(?:https?:)?//[a-z]", text)
    for word in ("src", "href"):
        for value in re.findall(rf'{word}="([^"]*)"', text):
            assert value.startswith(("#", "data:")), value


def test_notes_of_a_section_are_shown(write):
    page = write(sections=[Section("kernels", "Kernels", (), ("not <drawn>: none",))])
    assert page.notes == ["not <drawn>: none"]


def test_result_and_options_of_runs(write, tmp_path):
    result = {"test_accuracy": 0.5, "num_parameters": 12345, "best_validation": None}
    runs = [
        make_run(tmp_path / "a", {"model": "mlp", "widths": [1, 2]}, result),
        make_run(
            tmp_path / "b", {"model": "<cnn>", "widths": [1, 2]}, {"versions": {}}
        ),
    ]
    page = write(runs)
    assert ["a", "50.00%", "–", "12,345"] in page.rows
    assert ["test_accuracy", "0.5", "–"] in page.rows
    assert page.rows.count(["model", "mlp", "<cnn>"]) == 1
    assert page.rows.count(["widths", "1,2", "1,2"]) == 1
    assert [row.get("class") for row in page.find("tr")].count("differs") == 3
    values = [cell["data-value"] for cell in page.find("td")]
    assert "0.5" in values and "12345" in values


def test_tables_of_several_runs_stand_in_place_of_a_row_for_each(write, tmp_path):
    runs = [make_run(tmp_path / x, {}, {"test_accuracy": 0.5}) for x in "ab"]
    cell = report.write_interval(0.75, 0.5, 1.0)
    table = report.Table(("rate", "accuracy"), (report.Row((cell, cell)),))
    page = write(runs, tables={"Pooled over seeds": table})
    assert page.rows.count(["0.7500 [0.5000, 1.0000]"] * 2) == 1
    assert ["a", "50.00%"] not in page.rows
    headings = [heading.get("id") for heading in page.find("h2")]
    assert headings == ["pooled-over-seeds", "options"]


def test_a_scale_of_colours_is_not_turned_round_in_the_dark(write, pictures, tmp_path):
    (tmp_path / "scale.svg").write_text(SVG.replace("</svg>", "<image/></svg>"))
    scaled = Picture(tmp_path / "scale.svg", "Confusion", "A scale.")
    page = write(sections=[Section("a", "A", (pictures[1], scaled))])
    classes = [button["class"] for button in page.find("button")]
    assert classes == ["zoom drawn", "zoom"]


def test_contents_follow_the_first_table(write, tmp_path):
    """On a phone each row of the next table takes half a screen."""
    table = report.tabulate(("trial",), [{"trial": 1}])
    page = write(tables={"Settings": table, "Trials": table})
    text = (tmp_path / "report.html").read_text()
    assert text.index('id="settings"') < text.index("<nav") < text.index('id="trials"')
    assert len(page.find("nav")) == 1


def test_a_run_alone_begins_with_its_accuracy_and_what_it_is_worth(write, tmp_path):
    result = {"test_accuracy": 0.9, "test_correct": 9, "test_count": 10, "steps": 7}
    options = {"model": "mlp", "epochs": 10, "picture_channels": 3}
    write([make_run(tmp_path / "a", options, result)])
    text = (tmp_path / "report.html").read_text()
    tiles = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)
    # Wilson's interval of 9 of 10, as scipy.stats.binomtest(9, 10) gives it.
    assert tiles[0] == (
        "test accuracy",
        "90.00% <small>9 of 10 images; 95 % interval 59.58% to 98.21%</small>",
    )
    assert tiles[1] == ("steps", "7")
    assert text.index("<dl") < text.index("<nav") < text.index('id="options"')
    assert re.findall(r"<li><code>(\w+)</code>", text) == ["model"]


@pytest.mark.parametrize("classes, best_step, count", [(5, 7, 2), (6, 4, 4)])
def test_what_cannot_be_otherwise_is_no_result(
    write, tmp_path, monkeypatch, classes, best_step, count
):
    """The best of five among five classes; the best checkpoint that is the last."""
    record = {"class_names": ["a"] * classes}
    monkeypatch.setattr(report.same_data, "read_records", lambda path: [record])
    result = {"best_test_accuracy": 0.9, "test_top5": 1.0, "best_validation": 0.5}
    result |= {"steps": 7, "best_step": best_step}
    write([make_run(tmp_path / "a", {"select_by": "balanced_accuracy"}, result)])
    names = re.findall(r"<dt>(.*?)</dt>", (tmp_path / "report.html").read_text())
    assert len(names) == count
    assert "best validation balanced accuracy" in names
    assert ("test top-5" in names) == (classes > 5)


def test_contents_name_what_differs(write, pictures):
    titles = ("What excites stage1", "What excites stage2")
    one, other = (
        dataclasses.replace(x, title=t) for x, t in zip(pictures, titles, strict=True)
    )
    section = Section("patches", "Top patches: what", (one, other))
    assert [x for x in write(sections=[section]).links if "stage" in x] == [
        *("stage1", "stage2")
    ]


def test_several_runs_have_no_picture_of_each_in_the_contents(
    write, pictures, tmp_path
):
    runs = [make_run(tmp_path / x, {}, None) for x in "ab"]
    page = write(runs, [Section("kernels", "Kernels", pictures)])
    assert page.links == ["Options", "Kernels"]


def test_images_are_linked_to_their_rows(write, pictures, tmp_path):
    card = {"image": "data:,", "lines": ["a <b>", "90 %", "7.png"], "link": "rows-1"}
    cards = {"cards": [card, card | {"link": ""}]}
    (tmp_path / "a.json").write_text(json.dumps(cards))
    (tmp_path / "rows.csv").write_text("path,loss\nx/7.png,2.5\n'=1,3\n")
    rows = Picture(tmp_path / "rows.csv", "All", "Each.")
    page = write(sections=[Section("mistakes", "Mistakes", (pictures[0], rows))])
    assert [row.get("id") for row in page.find("tr")] == [None, "rows-1", "rows-2"]
    assert page.rows[1:] == [["x/7.png", "2.5"], ["'=1", "3"]]
    links = [x["href"] for x in page.find("a")]
    assert links.count("#rows-1") == 1 and "rows.csv" in links
    assert page.find("img")[0]["src"] == "data:,", "in place of the sheet"


def test_numbers_of_curves_end_no_element(write, pictures, tmp_path):
    data = {"lines": [{"group": "</script><b>", "name": "<!--"}]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    page = write(sections=[Section("curves", "Curves", pictures[:1])])
    text = (tmp_path / "report.html").read_text()
    found = re.search(r'<script type="application/json">(.*?)</script>', text)[1]
    assert "<" not in found and json.loads(found) == data
    assert len(page.find("img")) == 2, "the picture stands where there is no script"
    assert "class Chart" in text


def test_versions_are_listed_by_name(write, tmp_path):
    result = {"versions": {"jax": "1.2"}}
    page = write([make_run(tmp_path / "a", {}, result)])
    assert ["versions.jax", "1.2"] in page.rows


@pytest.mark.parametrize(
    "text, note",
    [
        (None, "does not exist: the run was not trained here to its end"),
        ("{", "is damaged"),
        ("[]", "is damaged: it holds no object"),
    ],
)
def test_what_cannot_be_read_is_noted(write, pictures, tmp_path, text, note):
    run = make_run(tmp_path / "a", {"model": "mlp"}, None)
    if text is not None:
        (run / "result.json").write_text(text)
    page = write([run], [Section("kernels", "Kernels", pictures)])
    assert any("result.json" in x and note in x for x in page.notes)
    assert ["model", "mlp"] in page.rows and len(page.find("figure")) == 2


def test_absent_jinja_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UserError, match="pip install jinja2"):
        write()
