"""The table of docs/reliability.md: `python tests/faults/table.py --write`."""

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- faults -->\n", "<!-- end of faults -->\n"


def collect():
    """Return the faults of each file of tests, in order."""
    found = {}
    for path in sorted(HERE.glob("test_faults_of_*.py")):
        module = importlib.import_module(path.stem)
        tests = {n: x.fault for n, x in vars(module).items() if hasattr(x, "fault")}
        if tests:
            found[path.stem] = tests
    return found


def format_table():
    """Write the table: a row a fault."""
    rows = [
        "| | fault | how it is injected | what holds | n |",
        "|---|---|---|---|---|",
    ]
    number = 0
    for tests in collect().values():
        for name, fault in tests.items():
            number += 1
            title = name.removeprefix("test_").replace("_", " ")
            rows.append(
                f"| {number} | {title} | {fault.injected} | {fault.holds} | {fault.n} |"
            )
    return "\n".join(rows) + "\n"


def main():
    """Print the table, or put it into the page."""
    if sys.argv[1:] != ["--write"]:
        print(format_table(), end="")
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + BEGIN + format_table() + END + after)


if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]
    main()
