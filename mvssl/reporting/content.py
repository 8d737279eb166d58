"""The content of a page: sections of blocks. The template page.html.j2 has a macro for each class of block.

in   texts, numbers and pictures that the modules of `sections` computed
out  `Section`, `Absent`, and blocks that can be shown; charts are SVG already
"""

from typing import Literal, NamedTuple

from markupsafe import Markup

from mvssl.figures.charts import Chart, Plane, Style, chart_svg, plane_svg
from mvssl.text import counted


class Text(NamedTuple):
    """A paragraph, a heading or code; `style` is a tag, or classes of the style sheet for a paragraph."""

    text: str
    style: str = "note"
    strong: str = ""  # words before the text
    command: str = ""  # of a shell, after the text


class Terms(NamedTuple):
    """A text for each term, as a list or as tiles."""

    texts: dict[str, str]
    tiles: bool = False


class Item(NamedTuple):
    text: str
    notes: list[str]


class Items(NamedTuple):
    """A list; `style` is a class of the style sheet: findings or plain."""

    items: list[Item]
    style: str


class Key(NamedTuple):
    """An entry of a legend; `colour` is a number of `charts.PALETTE`."""

    label: str
    style: Style | Literal["dot"]
    colour: int


class Label(NamedTuple):
    """A name at a place of a drawing, in per cent from its left and top edge."""

    text: str
    left: float
    top: float
    colour: int


class Drawing(NamedTuple):
    """An SVG drawing and the texts around it; `description` is for readers who do not see it."""

    title: str
    unit: str
    svg: Markup
    description: str
    legend: list[Key]
    note: str = ""
    labels: list[Label] = []  # noqa: RUF012 never changed


class Drawings(NamedTuple):
    drawings: list[Drawing]
    wide: bool = False


class Picture(NamedTuple):
    """A raster picture that holds its own data; `exact` asks for square pixels. As a block it can be scrolled."""

    source: str  # data:image/...
    text: str
    width: int
    height: int
    exact: bool


class Cell(NamedTuple):
    """A picture with a caption; `kind` is the style sheet's class: query, same or other label, or none."""

    picture: Picture
    caption: str = ""
    kind: str = ""


class Grid(NamedTuple):
    """Rows of pictures, all in one list, under heads or below a title."""

    cells: list[Cell]
    columns: int
    heads: list[str] = []  # noqa: RUF012 never changed
    title: str = ""


class Figure(NamedTuple):
    title: str
    text: str
    grids: list[Grid]


class Figures(NamedTuple):
    figures: list[Figure]
    narrow: bool = False


class Table(NamedTuple):
    """Rows of cells: text, a share from 0 to 1 that is drawn as a meter, or None for an empty cell."""

    columns: list[str]
    rows: list[list[str | float | None]]


class Number(NamedTuple):
    """A measured value. Its error is separate, so that it can move below the value on a narrow screen."""

    value: str
    error: str
    best: bool


class ProbeRows(NamedTuple):
    """Rows of probes, each a name and its numbers, under the view and layer that they are of."""

    columns: list[str]
    places: list[tuple[str, list[tuple[str, list[Number | None]]]]]


class ProbeTable(NamedTuple):
    """Records that can be compared; a probe with very many rows is folded away."""

    title: str
    rows: ProbeRows | None
    folded: dict[str, ProbeRows]  # by probe
    note: str
    protocol: dict[str, dict[str, str]]  # settings by title


class Folded(NamedTuple):
    """Blocks that a reader can unfold."""

    title: str
    blocks: list["Block"]
    unfolded: bool = False


Block = Text | Terms | Items | Drawings | Picture | Figures | Table | ProbeTable | Folded


class Section(NamedTuple):
    """A part of the page; `name` is its address within the page."""

    name: str
    title: str
    blocks: list[Block]


class Absent(NamedTuple):
    """A section without data: why, and how to get it."""

    title: str
    why: str


def short(value: float) -> str:
    """Return a number for running text, with about three digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def describe_value(value: object) -> str:
    """Return a number, a list of names, or any other value of a JSON file as text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " and ".join(map(str, value)) if isinstance(value, list) else str(value)


def describe_rest(left: int, noun: str, where: str = "not drawn") -> str:
    """Return a sentence on the things beyond a limit, after a space; empty if there are none."""
    return f" {counted(left, f'more {noun}')} {where}." if left > 0 else ""


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
