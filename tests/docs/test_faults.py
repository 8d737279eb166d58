"""The page of faults: each has its row, and each test that it names is there."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs/background/faults.md").read_text().partition("## The faults")[2]
ROWS = [re.split(r"\s*\|\s*", line)[1:-1] for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]


def test_every_fault_has_one_row_with_five_columns():
    assert sorted(int(row[0]) for row in ROWS) == list(range(1, 49))
    assert {len(row) for row in ROWS} == {5}


def test_every_test_that_a_row_names_is_there():
    for row in ROWS:
        file = ""
        for name in re.findall(r"`([^`]+)`", row[4]):
            before, _, test = name.partition("::")
            file = before or file
            text = (TESTS / file).read_text()
            assert f"def {test}(" in text or not test, name
