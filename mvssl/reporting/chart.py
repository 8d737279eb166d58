"""Charts as inline SVG: a few kilobytes each, in the page's own colours and fonts, light and dark, sharp in print.

in   lines of points
out  a `figure` with its caption, a legend and a text for those who do not see it
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mvssl.reporting import scale
from mvssl.reporting.html import Html, el, join
from mvssl.reporting.scale import Axis, Points

WIDE, HIGH = 340, 200  # user units: about pixels on a phone, where a chart is as wide as the screen
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 8, 34


@dataclass(frozen=True)
class Line:
    """A curve: `kind` says how it is drawn, so that colour is not all that tells lines apart."""

    label: str
    points: Points
    kind: Literal["solid", "dashed", "dotted"] = "solid"
    colour: int = 0


def line_chart(
    title: str, lines: Sequence[Line], *, y: str = "", x: str = "step", log: bool = False, least: float | None = None
) -> Html:
    """Lines over steps. `y` is the unit of the values; values far from most are cut off, and the chart says so.

    `least`: where the axis begins, whatever the values.
    """
    lines = [Line(line.label, scale.thin(line.points), line.kind, line.colour) for line in lines if line.points]
    across = scale.linear(0.0, max(px for line in lines for px, _ in line.points), LEFT, WIDE - RIGHT)
    values = [py for line in lines for _, py in line.points]
    log = log and min(values) > 0 and max(values) > 30 * min(values)
    low, high = _extent(values) if log else scale.bounds(values)
    low = low if least is None else min(least, low)
    up = (scale.logarithmic if log else scale.linear)(low, high, HIGH - BOTTOM, TOP)
    drawn = [_path(line, across, up) for line in lines]
    beyond = sum(not low <= value <= high for value in values)
    notes = [f"{beyond} of {len(values)} points lie outside."] if beyond else []
    said = "; ".join(f"{line.label} {scale.short(line.points[-1][1])}" for line in lines)
    alt = f"{title}{f' in {y}' if y else ''} over {x}; at the end: {said}"
    legend = [el("li", _sample(line), line.label) for line in lines] if len(lines) > 1 else []
    return el(
        "figure",
        el("figcaption", el("b", title), f" {y}" if y else None, " (log scale)" if log else None),
        svg(alt, _axes(across, up, x), el("g", drawn, clip_path="url(#plot)"), wide=WIDE, high=HIGH),
        el("ul", legend, class_="legend") if legend else None,
        el("p", notes, class_="note") if notes else None,
        class_="chart",
    )


def path_chart(title: str, points: Points, names: Sequence[str], *, x: str, y: str) -> Html:
    """A way through a plane, a point for each of `names`; the last is filled."""
    across = scale.linear(*_extent([px for px, _ in points]), LEFT, WIDE - RIGHT)
    up = scale.linear(*_extent([py for _, py in points]), HIGH - BOTTOM, TOP)
    places = [(across.place(px), up.place(py)) for px, py in points]
    dots = [
        el("circle", el("title", name), cx=f"{px:.1f}", cy=f"{py:.1f}", r=3.5, class_="dot last" if last else "dot")
        for (px, py), name, last in zip(places, names, _is_last(places), strict=True)
    ]
    way = el("path", d=_d(places), class_="line c0")
    alt = f"{title}: {x} against {y}, {len(points)} points from {names[0]} to {names[-1]}"
    return el(
        "figure",
        el("figcaption", el("b", title), f" {y}"),
        svg(alt, _axes(across, up, x), way, dots, wide=WIDE, high=HIGH),
        class_="chart",
    )


def svg(alt: str, *content: object, wide: float, high: float) -> Html:
    """A picture that scales with the page; `alt` is read out in its place."""
    return el("svg", *content, viewBox=f"0 0 {wide:g} {high:g}", role="img", aria_label=alt)


def plot_area() -> Html:
    """The clipping rectangle that all charts of a page share; it stands in the page once."""
    area = el("rect", x=LEFT, y=TOP - 3, width=WIDE - LEFT - RIGHT + 3, height=HIGH - TOP - BOTTOM + 6)
    return el("svg", el("clipPath", area, id="plot"), width=0, height=0, aria_hidden="true", class_="defs")


def _axes(across: Axis, up: Axis, x: str) -> Html:
    floor = HIGH - BOTTOM
    rows = [(up.place(value), text) for value, text in up.ticks]
    columns = [(across.place(value), text) for value, text in across.ticks]
    lines = "".join(f"M{LEFT} {py:.1f}H{WIDE - RIGHT}" for py, _ in rows)
    texts = [el("text", text, x=LEFT - 5, y=f"{py + 3.5:.1f}", class_="end") for py, text in rows]
    texts += [el("text", text, x=f"{min(px, WIDE - 14):.1f}", y=floor + 14, class_="mid") for px, text in columns]
    texts.append(el("text", x, x=(LEFT + WIDE - RIGHT) / 2, y=HIGH - 5, class_="mid axis"))
    return join(
        [el("path", d=lines, class_="grid"), el("path", d=f"M{LEFT} {floor}H{WIDE - RIGHT}", class_="base"), *texts]
    )


def _path(line: Line, across: Axis, up: Axis) -> Html:
    places = [(across.place(px), up.place(py)) for px, py in line.points]
    told = el("title", f"{line.label}: {scale.short(line.points[-1][1])} at the end")
    path = el("path", told, d=_d(places), class_=f"line {line.kind} c{line.colour}")
    few = len(places) <= 24 and line.kind != "dotted"
    dots = "".join(f"M{px:.1f} {py:.1f}h0" for px, py in places) if few else ""
    return join([path, el("path", d=dots, class_=f"marks c{line.colour}") if dots else None])


def _d(places: Points) -> str:
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in places)


def _sample(line: Line) -> Html:
    stroke = el("path", d="M1 5H23", class_=f"line {line.kind} c{line.colour}")
    return el("svg", stroke, viewBox="0 0 24 10", aria_hidden="true", class_="key")


def _extent(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _is_last(items: Sequence[object]) -> list[bool]:
    return [number == len(items) - 1 for number in range(len(items))]
