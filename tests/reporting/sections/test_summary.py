"""Texts of the summary."""

from mvssl.reporting.sections.summary import describe_duration


def test_durations_have_two_units():
    assert [describe_duration(s) for s in (0.4, 59, 61, 3600 * 3 + 300, 86400 * 2 + 7200)] == [
        "0 s", "59 s", "1 min 1 s", "3 h 5 min", "2 days 2 h"
    ]  # fmt: skip
