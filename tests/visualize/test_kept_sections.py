"""Sections of a report stay when others are drawn, as long as they are of its runs."""

import dataclasses
import json
import re

import pytest
from fixtures_runs import run_main

from cnn.visualize.draw.picture import Picture, Section
from cnn.visualize.page import kept

ORDER = ["curves", "mistakes", "kernels"]
ORIGIN = kept.Origin((".",), (60,), "latest", "test")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


def make_section(folder, name, title="Title", notes=()):
    path = folder / f"{name}.png"
    path.write_bytes(b"")
    return Section(name, title, (Picture(path, name, "Caption.", "lines"),), notes)


def test_sections_are_added_and_renewed_in_the_order_of_the_report(folder):
    kernels, curves = (make_section(folder, x) for x in ("kernels", "curves"))
    assert kept.renew(folder, ORIGIN, [kernels], ORDER) == [kernels]
    assert kept.renew(folder, ORIGIN, [curves], ORDER) == [curves, kernels]
    again = make_section(folder, "kernels", "Another", ("a note",))
    assert kept.renew(folder, ORIGIN, [again], ORDER) == [curves, again]
    assert kept.renew(folder, ORIGIN, [], ORDER) == [curves, again]


def test_what_cannot_be_drawn_now_keeps_its_pictures(folder):
    kernels = make_section(folder, "kernels", notes=("old",))
    kept.renew(folder, ORIGIN, [kernels], ORDER)
    failed = Section("kernels", "Title", (), ("not drawn: none",))
    (found,) = kept.renew(folder, ORIGIN, [failed], ORDER)
    assert found.pictures == kernels.pictures and found.notes == failed.notes
    failed = Section("curves", "Title", (), ("no metrics",))
    assert kept.renew(folder, ORIGIN, [failed], ORDER)[0] == failed


@pytest.mark.parametrize(
    "change, said",
    [
        ({"steps": (90,)}, "drawn before, of step 60; --pictures=kernels renews it"),
        ({"split": "train"}, "drawn before, with --split=test; --pictures=kernels"),
        ({"checkpoint": "best"}, "drawn before, with --checkpoint=latest; --pictures"),
    ],
)
def test_what_was_drawn_of_something_else_says_so(folder, change, said):
    kept.renew(folder, ORIGIN, [make_section(folder, "kernels")], ORDER)
    now = dataclasses.replace(ORIGIN, **change)
    for _ in range(2):  # the note is not kept with the section
        (found,) = kept.renew(folder, now, [], ORDER)
        (note,) = found.notes
        assert note.startswith(said)


def test_sections_of_other_runs_are_left_out(folder):
    of_two = dataclasses.replace(ORIGIN, runs=("../a", "../b"))
    kept.renew(folder, of_two, [make_section(folder, "kernels")], ORDER)
    curves = make_section(folder, "curves")
    assert kept.renew(folder, ORIGIN, [curves], ORDER) == [curves]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '[{"name": 1}]', '[["name"]]'])
def test_a_damaged_list_costs_no_more_than_what_it_kept(folder, text):
    (folder / kept.FILE).write_text(text)
    curves = make_section(folder, "curves")
    assert kept.renew(folder, ORIGIN, [curves], ORDER) == [curves]


def test_pictures_that_are_gone_or_elsewhere_are_left_out(folder, tmp_path):
    kernels, curves = (make_section(folder, x) for x in ("kernels", "curves"))
    kept.renew(folder, ORIGIN, [kernels, curves], ORDER)
    kernels.pictures[0].path.unlink()
    listed = (folder / kept.FILE).read_text()
    (tmp_path.parent / "secret.png").write_bytes(b"")
    for place in ("../secret.png", str(tmp_path.parent / "secret.png")):
        changed = listed.replace("pictures/curves.png", place)
        (folder / kept.FILE).write_text(changed)
        assert json.loads(changed)[0]["pictures"][0]["path"] == place
        found = kept.renew(folder, ORIGIN, [], ORDER)
        assert [x.pictures for x in found] == [(), ()]


def test_a_run_that_was_moved_keeps_its_sections(trained, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    how = "latest", "test"
    old, new = (
        kept.find_origin(tmp_path / x, [tmp_path / x], *how) for x in ("old", "new")
    )
    assert old == new == kept.Origin((".",), (-1,), *how)
    assert kept.find_origin(tmp_path, [trained], *how).steps[0] > 0


def test_pictures_drawn_one_after_the_other_are_all_in_the_report(trained, tmp_path):
    flags = (f"--workdir={trained}", f"--output={tmp_path}", "--mode=visualize")
    for name in ("architecture", "curves"):
        assert run_main(*flags, f"--pictures={name}") == 0
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r'<h2 id="(curves|architecture)"', text) == [
        *("curves", "architecture")
    ]
    assert text.count("<figure") == 2
