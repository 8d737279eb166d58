"""Mutual information in nats: the bounds of each pair of views with their ceilings, and the information plane."""

from mvssl.errors import DataError
from mvssl.figures.charts import Chart, Line
from mvssl.figures.curves import Bound, find_bounds, find_planes
from mvssl.reporting.content import Block, Drawings, Table, Text, describe_rest, draw_lines, draw_path
from mvssl.reporting.inputs import Inputs
from mvssl.runs.metric_series import Series

MAX_CHARTS = 24  # of bounds, while the table has all
BOUNDS_NOTE = (
    "Lower bounds on mutual information in nats (1 nat = 1.44 bits). The ceiling is the log of the number of "
    "candidates, and no bound exceeds it. If a bound is near its ceiling, the information may be larger, and more "
    "candidates would show it."
)
PLANE_NOTE = (
    "x is what the code z keeps of its own view, y what it keeps of the label. A bottleneck should move to the left "
    "without falling. The filled point is the last one."
)


def show_bounds(inputs: Inputs) -> list[Block]:
    """Return a chart for each pair of views, and a table of the last values."""
    bounds = find_bounds(inputs.facts.metrics)
    if not bounds:
        raise DataError("no objective of this run reports a bound in nats, or there is no line yet")
    note = BOUNDS_NOTE + describe_rest(len(bounds) - MAX_CHARTS, "pair", "in the table only")
    return [Text(note), Drawings([draw_lines(bound.chart()) for bound in bounds[:MAX_CHARTS]]), _tabulate(bounds)]


def _tabulate(bounds: list[Bound]) -> Table:
    """Return the last values; a column that no bound has is left out."""

    def last(series: Series | None) -> str | None:
        return f"{series.last:,.2f}" if series else None

    columns: dict[str, list[str | float | None]] = {
        "pair": [bound.subject for bound in bounds],
        "training": [last(bound.training) for bound in bounds],
        "held out": [last(bound.held_out) for bound in bounds],
        "ceiling": [last(bound.held_out_ceiling or bound.ceiling) for bound in bounds],
        "share of ceiling": [bound.share for bound in bounds],
    }
    columns = {name: cells for name, cells in columns.items() if any(cell is not None for cell in cells)}
    return Table(list(columns), [list(row) for row in zip(*columns.values(), strict=True)])


def show_plane(inputs: Inputs) -> list[Block]:
    """Return the information plane of each bottleneck: what a code keeps of its view, and what of the label."""
    drawings = []
    for plane in find_planes(inputs.facts.metrics):
        lower, upper, label = (Series(plane.steps, values) for values in (plane.lower, plane.upper, plane.label))
        lines = [Line("I(x; z) at least", lower), Line("I(z; y)", label, "dashed", 1)]
        lines[1:1] = [Line("I(x; z) at most", upper, "dotted", 9)] * (upper != lower)
        drawings += [draw_path(plane), draw_lines(Chart("I(x; z) and I(z; y)", lines, "nats"))]
    if not drawings:
        raise DataError("it is measured for objective mib with labels, in the checks on data.val")
    return [Text(PLANE_NOTE), Drawings(drawings)]
