"""The lecture's page: its order, its lines of Python, its numbers beside numpy's."""

import contextlib
import io
import re
import zlib

import jax
import lecture_page
import numpy as np
import pytest

from cnn.visualize.lecture import lines, slides

ORDER = [name for _, names in slides.PARTS.values() for name in names]


def test_every_slide_has_its_place_its_lines_and_its_number():
    drawn = {*slides.SLIDES, *slides._PHOTOGRAPHS}
    assert len(ORDER) == len(set(ORDER))
    assert set(ORDER) == drawn == set(lines.LINES) == set(lecture_page.NUMBERS)


@pytest.mark.parametrize("name", ORDER)
def test_its_lines_print_its_number(name):
    """As typed: in a session of its own, on the reader's settings of JAX."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), jax.numpy_rank_promotion("allow"):
        exec(lines.write(name), {})
        print(np.squeeze(lines.compute_number(name)))
    text = printed.getvalue()
    assert text[: len(text) // 2] == text[len(text) // 2 :] != ""


@pytest.mark.parametrize("name", ORDER)
def test_its_numbers_are_those_of_numpy(name):
    ours, numpys = lecture_page.compare(name)
    assert lecture_page.are_equal(ours, numpys) == numpys.size > 0


def test_a_wrong_number_is_not_equal():
    assert lecture_page.are_equal(np.array([1, 2.001]), np.array([1, 2])) == 1
    assert lecture_page.are_equal(np.ones((2, 1)), np.ones((1, 2))) == 0


def test_the_table_is_that_of_the_page():
    page = lecture_page.TABLE.read_text()
    table = page.partition(lecture_page.BEGIN)[2].partition(lecture_page.END)[0]
    assert table == lecture_page.format_table(), (
        "tests/visualize/lecture_page.py --write"
    )


def test_the_page_of_the_docs_is_what_is_drawn(tmp_path):
    """All of it but the photographs' pixels, which depend on matplotlib."""
    kept, drawn = lecture_page.PAGE.read_text(), lecture_page.draw_page(tmp_path)
    size = len(zlib.compress(kept.encode(), 9))  # what git keeps of it
    assert size < 200_000, "the repository is to stay small"
    kept, drawn = map(lecture_page.leave_out_photographs, (kept, drawn))
    assert kept == drawn, "python tests/visualize/lecture_page.py --write"
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", drawn)
    assert drawn.count("<pre") == len(ORDER)
