"""What sections of a page consist of; the template page.html.j2 says how each of these is shown."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from markupsafe import Markup

from mvssl.figures.charts import Chart, Plane, Style, chart_svg, plane_svg


class Absent(NamedTuple):
    """A section without data: why, and how to get it."""

    title: str
    why: str


@dataclass(frozen=True)
class Section:
    """A part of the page; `name` is its address within the page and the macro of the template that shows it."""

    name: ClassVar[str]
    title: ClassVar[str]


class Key(NamedTuple):
    """An entry of a legend; `colour` is a number of `charts.PALETTE`."""

    label: str
    style: Style | Literal["dot"]
    colour: int


class Drawing(NamedTuple):
    """An SVG drawing and the texts around it; `description` is for readers who do not see it."""

    title: str
    unit: str
    svg: Markup
    description: str
    legend: list[Key]
    note: str = ""


class Picture(NamedTuple):
    """A raster picture that holds its own data; `exact` asks for square pixels."""

    source: str  # data:image/...
    text: str
    width: int
    height: int
    exact: bool


class Table(NamedTuple):
    """Rows of cells: text, a share from 0 to 1 that is drawn as a meter, or None for an empty cell."""

    columns: list[str]
    rows: list[list[str | float | None]]


def short(value: float) -> str:
    """Return a number for running text, with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def describe_value(value: object) -> str:
    """Return a number, a list of names, or any other value of a JSON file as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def draw_lines(chart: Chart, note: str = "") -> Drawing:
    """Return a chart over steps; the legend has the last values, and the note counts the points outside."""
    (low, high), values = chart.limits, chart.values
    outside = sum(not low <= value <= high for value in values)
    cut = f"{outside} of {len(values)} points lie outside." if outside else ""
    last = [f"{line.label} {short(line.series.last)}" for line in chart.lines]
    unit = chart.unit + " (log scale)" * chart.is_log
    description = f"{chart.title}{f' in {chart.unit}' if chart.unit else ''} over step; at the end: {'; '.join(last)}"
    legend = [Key(text, line.style, line.colour) for text, line in zip(last, chart.lines, strict=True)]
    return Drawing(chart.title, unit, Markup(chart_svg(chart)), description, legend, f"{note} {cut}".strip())


def draw_path(plane: Plane) -> Drawing:
    """Return the path of an objective through the information plane."""
    title = f"Information plane{f' of {plane.term}' if plane.term else ''}"
    first, last = (plane.describe(step) for step in (plane.steps[0], plane.steps[-1]))
    description = f"{title}: I(x; z) against I(z; y), {len(plane.steps)} points from {first} to {last}"
    return Drawing(title, "", Markup(plane_svg(plane)), description, [])
