"""The table of docs/reliability.md is that of the suite; protections can be removed."""

import pytest
import table
from fixtures_runs import ROOT

FAULTS = [
    pytest.param(fault, id=f"{file}-{name}")
    for file, tests in table.collect().items()
    for name, fault in tests.items()
]


def test_the_page_has_the_table():
    assert table.format_table() in table.PAGE.read_text(), (
        "run: python tests/faults/table.py --write"
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_its_protection_is_there_once_and_can_be_taken_away(fault):
    assert fault.without
    for file, text, instead in fault.without:
        assert (ROOT / file).read_text().count(text) == 1, text
        assert text != instead
