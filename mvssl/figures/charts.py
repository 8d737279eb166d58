"""Charts of metrics over steps and of the information plane, for PNG files and as SVG for a page.

in   series of metrics
out  drawn matplotlib axes, or SVG text in the colours of the page's style sheet
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import EngFormatter, MaxNLocator

from mvssl.runs.metric_series import Series

# Okabe and Ito (2008), which colour-blind readers can tell apart, and four more colours for classes
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#c2619b", "#c98500", "#3a9fe0", "#332288", "#882255", "#7d7d1f", "#6b7480")
SOFT, RULE, REST = "#55606c", "#d9dfe5", "#55606d"  # texts and axes; grid; points without a class
PAGE_COLOURS = {colour: f"var(--k{number})" for number, colour in enumerate(PALETTE)}
PAGE_COLOURS |= {SOFT: "var(--soft)", RULE: "var(--rule)", REST: "var(--soft)"}
MAX_POINTS = 240  # of a line: a small chart has no more pixels
ROUNDING = 1e-6  # relative difference of values that count as equal
MAX_MARKED = 24  # points of a line that get a marker
LOG_RANGE = 30  # ratio of the extreme values from which a logarithmic axis helps
ROUND = [1, 2, 5, 10]  # steps between ticks, times a power of ten
WIDTH, HEIGHT, SQUARE = 340, 200, 360  # points of 1/72 inch; on a phone about a pixel each
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))

Style = Literal["solid", "dashed", "dotted"]


class Line(NamedTuple):
    """A series as a line; style and colour (a number of PALETTE) both tell lines apart."""

    label: str
    series: Series
    style: Style = "solid"
    colour: int = 0


class Chart(NamedTuple):
    """Lines over steps. `unit` is that of the values; with `floor` the axis of values starts there or lower."""

    title: str
    lines: list[Line]
    unit: str = ""
    log: bool = False
    floor: float | None = None

    @property
    def values(self) -> list[float]:
        """The values of all lines, as they are drawn."""
        return [float(value) for line in self.lines for value in _thin(line.series)[1]]

    @property
    def is_log(self) -> bool:
        """Whether the axis of values is logarithmic."""
        return self.log and min(self.values) > 0 and max(self.values) > LOG_RANGE * min(self.values)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest value that is shown."""
        return (min(self.values), max(self.values)) if self.is_log else robust_limits(self.values)


class Plane(NamedTuple):
    """The information plane of an objective: by step, in nats, the bounds on I(x; z) and I(z; y), and beta."""

    term: str  # label of the objective among several, else empty
    steps: list[int]
    lower: list[float]
    upper: list[float]  # of I(x; z); equal to `lower` where it was not measured
    label: list[float]  # I(z; y)
    beta: dict[int, float]

    def describe(self, step: int) -> str:
        return f"step {step:,}" + (f", beta {self.beta[step]:.3g}" if step in self.beta else "")


def robust_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of `values`; a value further from the middle nine tenths than these are wide is outside."""
    ordered = np.sort(values)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    width = high - low if high - low > ROUNDING * max(abs(low), abs(high)) else np.inf
    return float(max(ordered[0], low - width)), float(min(ordered[-1], high + width))


def draw_chart(axes: Axes, chart: Chart) -> None:
    """Draw the lines of a chart; values outside its limits are cut off."""
    for line in chart.lines:
        steps, values = _thin(line.series)
        marker = "o" if len(steps) <= MAX_MARKED and line.style != "dotted" else None
        style = {"solid": "-", "dashed": (0, (4, 2.5)), "dotted": (0, (1, 2))}[line.style]
        axes.plot(steps, values, linestyle=style, color=PALETTE[line.colour], linewidth=1.8, marker=marker,
                  markersize=3.5, label=line.label, solid_joinstyle="round")  # fmt: skip
    if chart.is_log:
        axes.set_yscale("log")
    low, high = chart.limits
    if high - low <= ROUNDING * max(abs(low), abs(high)):
        axes.set_ylim(low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    elif min(chart.values) < low or max(chart.values) > high:
        axes.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    if chart.floor is not None:
        axes.set_ylim(bottom=min(chart.floor, low))
    last = max(line.series.steps[-1] for line in chart.lines)
    if last:
        axes.set_xlim(-0.02 * last, 1.02 * last)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    _frame(axes, "step", "", log=chart.is_log)


def draw_plane(axes: Axes, plane: Plane) -> None:
    """Draw the way through the plane: a point a check, the last one filled, and a line up to each upper bound."""
    axes.hlines(plane.label, plane.lower, plane.upper, color=RULE, linewidth=1.5, zorder=0)
    axes.plot(plane.lower, plane.label, color=PALETTE[0], linewidth=0.8, zorder=1)
    filled = ["none"] * (len(plane.steps) - 1) + [PALETTE[0]]
    axes.scatter(plane.lower, plane.label, s=24, facecolors=filled, edgecolors=PALETTE[0], zorder=2)
    if max(plane.upper) > 5 * max(max(plane.lower), 1e-9):  # a loose upper bound would press the points together
        axes.set_xlim(right=1.6 * max(plane.lower))
    axes.margins(x=0.15, y=0.15)
    ends = {0: ("left", (4, 6)), len(plane.steps) - 1: ("right", (14, -14))}
    for number, (side, offset) in ends.items():
        axes.annotate(plane.describe(plane.steps[number]), (plane.lower[number], plane.label[number]), ha=side,
                      color=SOFT, fontsize=9, xytext=offset, textcoords="offset points")  # fmt: skip
    _frame(axes, "I(x; z), nats", "I(z; y), nats")


def chart_svg(chart: Chart) -> str:
    """Return a chart as SVG; title and legend are left to the page."""
    return _svg(lambda axes: draw_chart(axes, chart), (WIDTH, HEIGHT), repr(chart))


def plane_svg(plane: Plane) -> str:
    """Return the information plane as SVG."""
    return _svg(lambda axes: draw_plane(axes, plane), (WIDTH, HEIGHT), repr(plane))


def points_svg(groups: Sequence[tuple[np.ndarray, int | None]]) -> str:
    """Return points in the unit square as SVG, by group: places [n, 2] and a colour of PALETTE, or None for gray."""

    def draw(axes: Axes) -> None:
        axes.set_position((0, 0, 1, 1))
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        axes.axis("off")
        for places, colour in groups:
            # a path of one dot a point takes a third of the bytes of markers
            path = Path(np.repeat(places, 2, axis=0), [Path.MOVETO, Path.LINETO] * len(places))
            path.should_simplify = False
            edge, alpha = (REST, 0.3) if colour is None else (PALETTE[colour], 0.75)
            axes.add_patch(PathPatch(path, fill=False, edgecolor=edge, alpha=alpha, linewidth=4.4, capstyle="round"))

    return _svg(draw, (SQUARE, SQUARE), "")


def _svg(draw: Callable[[Axes], None], size: tuple[int, int], salt: str) -> str:
    """Return what `draw` draws as SVG in the page's fonts and colours, equal for equal input.

    `salt` makes the identifiers of clipping rectangles differ within a page.
    """
    figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
    draw(figure.subplots())
    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    body = file.getvalue().partition("<svg")[2].partition(">")[2]
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the page
    body = re.sub(r' id="[A-Za-z][\w.]*_\d+"| font-family: [^;]*;| transform="rotate\(-0 [^"]*"', "", body)
    body = re.sub(r'"[^"]*"', lambda value: re.sub(r"(\d\.\d\d)\d+", r"\1", value[0]), body)
    body = re.sub(r"#[0-9a-f]{6}", lambda colour: PAGE_COLOURS.get(colour[0], colour[0]), body)
    return f'<svg viewBox="0 0 {size[0]} {size[1]}" aria-hidden="true">{body.strip()}'


def _thin(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of at most MAX_POINTS points, each the mean of some neighbours."""
    steps, values = np.asarray(series.steps, float), np.asarray(series.values, float)
    if len(steps) <= MAX_POINTS:
        return steps, values
    ends = np.linspace(0, len(steps), MAX_POINTS + 1).astype(int)[:-1]
    sizes = np.diff([*ends, len(steps)])
    return np.add.reduceat(steps, ends) / sizes, np.add.reduceat(values, ends) / sizes


def _frame(axes: Axes, x: str, y: str, log: bool = False) -> None:
    """Leave a line below, a soft grid, and a few round ticks."""
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    if not log:
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.spines["bottom"].set_color(SOFT)
    axes.grid(axis="y", color=RULE, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", left=False, bottom=False, labelsize=10, labelcolor=SOFT)
    axes.yaxis.get_offset_text().set(color=SOFT, fontsize=9)
    axes.set_xlabel(x, fontsize=10, color=SOFT)
    axes.set_ylabel(y, fontsize=10, color=SOFT)
