"""CSV files that are written row by row."""

import csv

import pytest

from cnn.checkpoints import rows
from cnn.errors import UserError


def read(path):
    with open(path, newline="", errors="surrogateescape") as file:
        return list(csv.reader(file))


def test_rows_of_any_order_are_sorted(tmp_path):
    path = tmp_path / "x.csv"
    with rows.open_rows(path, ["n", "text"]) as write:
        write([(3, ["3", "three\nlines\r"]), (0, ["0", 'a "b", c'])])
        assert not path.exists() and len(read(rows.name_partial(path))) == 3
        write([])
        write([(1, ["1", "\udce9"])])
    expected = [["n", "text"], ["0", 'a "b", c'], ["1", "\udce9"]]
    assert read(path) == [*expected, ["3", "three\nlines\r"]]
    assert [x.name for x in tmp_path.iterdir()] == ["x.csv"]


def test_what_was_written_stays_after_an_error(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("of before")
    with pytest.raises(RuntimeError), rows.open_rows(path, ["n"]) as write:
        write([(1, ["1"])])
        raise RuntimeError
    assert read(rows.name_partial(path)) == [["n"], ["1"]]
    assert path.read_text() == "of before"
    with pytest.raises(RuntimeError), rows.open_rows(path, ["n"]):
        raise RuntimeError
    assert not rows.name_partial(path).exists()


def test_two_do_not_write_one_file(tmp_path):
    path = tmp_path / "x.csv"
    with rows.open_rows(path, ["n"]) as write:
        with (
            pytest.raises(UserError, match="is being written by another"),
            rows.open_rows(path, ["n"]),
        ):
            pass
        write([(0, ["0"])])
    assert read(path) == [["n"], ["0"]]


def test_a_directory_that_is_not_there_is_told(tmp_path):
    with (
        pytest.raises(UserError, match="cannot be written"),
        rows.open_rows(tmp_path / "no" / "x.csv", ["n"]),
    ):
        pass


@pytest.mark.parametrize(
    "text", ["=1+1", "@SUM(A1)", "\tx", "\rx", "+1-2", "-2+3", "+a|b!c", "--x=(1)"]
)
def test_formulas_are_neutralised(text):
    assert rows.escape_text(text) == f"'{text}"
    assert rows.escape_path(text) == f"./{text}"


@pytest.mark.parametrize(
    "text", ["", "+1", "-1", "-1e-3", "--help", "-", "~", "a=b", "cat", "/a/=b", "'x"]
)
def test_other_texts_are_as_they_are(text):
    assert rows.escape_text(text) == rows.escape_path(text) == text
