"""The page around the sections: head, contents, and what is not there.

One file that fetches nothing: its policy forbids every request and every script, so text from a run cannot act either.
"""

from collections.abc import Sequence
from importlib import resources

from mvssl.reporting.chart import plot_area
from mvssl.reporting.html import Html, el, join
from mvssl.reporting.sections import Absent, Section

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def page(title: str, lead: str, sections: Sequence[Section], absent: Sequence[Absent], foot: str) -> str:
    """A whole HTML document."""
    parts = [*sections, *([_left_out(absent)] if absent else [])]
    contents = el(
        "nav", el("ul", [el("li", el("a", s.title, href=f"#{s.name}")) for s in parts]), aria_label="contents"
    )
    style = resources.files("mvssl.reporting").joinpath("style.css").read_text()
    written = [el("section", el("h2", s.title), s.body, id=s.name) for s in parts]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", f"{title} - mvssl report"),
        el("style", Html(style)),
    )
    top = el("header", el("h1", title), el("p", lead, class_="lead"))
    body = el("body", plot_area(), top, contents, el("main", written), el("footer", el("p", foot, class_="note")))
    return "<!DOCTYPE html>\n" + el("html", join([head, body], "\n"), lang="en") + "\n"


def _left_out(absent: Sequence[Absent]) -> Section:
    """The parts that are missing; those that lack the same thing share a line."""
    by_reason: dict[str, list[str]] = {}
    for part in absent:
        by_reason.setdefault(part.why, []).append(part.title)
    rows = [el("div", el("dt", ", ".join(titles)), el("dd", why)) for why, titles in by_reason.items()]
    return Section("absent", "Not in this report", el("dl", rows, class_="facts"))
