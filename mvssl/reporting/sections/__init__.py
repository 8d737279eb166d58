"""The parts of a report: each a function that returns a `Section`, or `Absent` with the way to get it."""

from typing import NamedTuple

from mvssl.reporting.html import Html


class Section(NamedTuple):
    """A part of the page: `name` is its address within the page."""

    name: str
    title: str
    body: Html


class Absent(NamedTuple):
    """A part whose data are not there, why, and how they come about."""

    title: str
    why: str
