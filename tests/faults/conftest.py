"""The fixture of the faults, and the flag that takes each one's protection away."""

import pytest
from faulty import Room, copy_without

FLAG = "--without-protection"


def pytest_addoption(parser):
    """Add the flag, which pytest knows where this folder is named."""
    text = "take each fault's protection out of a copy of the program: it must fail"
    parser.addoption(FLAG, action="store_true", help=text)


@pytest.fixture
def room(request, tmp_path):
    """Return where a fault is injected: an empty directory and the program."""
    fault = request.function.fault
    is_protected = not request.config.getoption(FLAG, False)
    work = tmp_path / "work"
    work.mkdir()
    if is_protected:
        return Room(work)
    return Room(work, copy_without(fault.without, tmp_path / "program"), False)
