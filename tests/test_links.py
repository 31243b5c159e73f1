"""Every link between the pages leads to a file, and to a heading that is there.

Checked are README, CONTRIBUTING and CHANGELOG, `docs/`, `docs/notes/` and the pages of
`tests/`: relative links with their anchors as GitHub makes them, and the names of pages
in backquotes, `data.md` or `docs/data.md`.
"""

import re

import pytest
from fixtures_runs import ROOT

PAGES = sorted(
    path
    for folder in (ROOT, ROOT / "docs", ROOT / "docs/notes", ROOT / "tests")
    for path in folder.glob("*.md")
)


def drop_code(text):
    """Drop the fenced blocks of a page: what looks like a link there is none."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def list_anchors(text):
    """List the anchors of a page's headings: lower case, hyphens, no punctuation."""
    anchors = []
    for heading in re.findall(r"^#+ (.*)$", drop_code(text), re.MULTILINE):
        name = re.sub(r"\]\([^)]*\)", "", heading)
        name = re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-")
        repeated = sum(
            re.fullmatch(rf"{name}(-\d+)?", known) is not None for known in anchors
        )
        anchors.append(f"{name}-{repeated}" if repeated else name)
    return anchors


def find_broken(path, text):
    """List the links of a page that lead nowhere, as they are written."""
    broken, text = [], drop_code(text)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        if name and not target.exists():
            broken.append(link)
        elif anchor:
            page = text if target == path else target.read_text(encoding="utf-8")
            if anchor not in list_anchors(page):
                broken.append(link)
    for name in re.findall(r"`((?:[\w.]+/)*\w+\.md)`", text):
        if not any((folder / name).exists() for folder in (ROOT, path.parent)):
            broken.append(name)
    return broken


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    assert find_broken(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](none.md)", ["none.md"]),
        ("[a](data.md#none)", ["data.md#none"]),
        ("see `none.md`, `docs/none.md`", ["none.md", "docs/none.md"]),
        ("![a](none.png)", ["none.png"]),
        ("# One `two`, three\n[a](#one-two-three) [b](#one)", ["#one"]),
        ("# One\n# One\n[a](#one-1) [b](#one-2)", ["#one-2"]),
        ("```\n# One\n[a](none.md)\n```\n[b](#one)", ["#one"]),
        ("[a](data.md), [b](https://none.org/none.md#none), `docs/data.md`", []),
    ],
)
def test_a_broken_link_is_found(text, broken):
    assert find_broken(ROOT / "docs" / "page.md", text) == broken


def test_every_note_is_listed():
    folder = ROOT / "docs/notes"
    listed = re.findall(r"^\| \[(\w+\.md)\]", (folder / "README.md").read_text(), re.M)
    assert sorted(listed) == sorted(
        {p.name for p in folder.glob("*.md")} - {"README.md"}
    )


def test_every_file_of_tests_is_listed_once():
    rows = (ROOT / "tests/README.md").read_text(encoding="utf-8").splitlines()
    first = "".join(row.split("|")[1] for row in rows if row.startswith("| "))
    listed = re.findall(r"`(test_\w+\.py)`", first)
    assert sorted(listed) == sorted(p.name for p in (ROOT / "tests").glob("test_*.py"))
