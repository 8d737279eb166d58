"""Charts from metrics.jsonl: training curves, bounds with their ceilings, the information plane, throughput."""

from dataclasses import dataclass
from statistics import median

from mvssl.figures.charts import Chart, Line
from mvssl.figures.curves import Bound, find_bounds, find_planes, parse_names
from mvssl.objectives.metric_names import MetricName
from mvssl.reporting.content import Absent, Drawing, Section, Table, draw_lines, draw_path
from mvssl.reporting.facts import Facts
from mvssl.runs.metric_series import Metrics, Series
from mvssl.text import counted

TITLES = {"loss": "Loss", "lr": "Learning rate", "grad_norm": "Gradient norm", "beta": "Beta"}
LOGARITHMIC = ("grad_norm", "beta")
HELD_OUT = {"knn": ("kNN, held out", "share right"), "rank": ("Effective rank, held out", "directions")}
HELD_OUT |= {"spread": ("Spread, held out", "1: even, 0: all alike")}
ELSEWHERE = ("bound", "ceiling", "samples_per_second", "data_wait", "skipped", "seconds")  # shown in other places
MAX_LINES, MAX_BOUNDS = 6, 24  # lines of a chart; charts of bounds, while the table has all


@dataclass(frozen=True)
class Curves(Section):
    name, title = "curves", "Training curves"
    charts: list[Drawing]
    notes: list[str]


@dataclass(frozen=True)
class Bounds(Section):
    name, title = "bounds", "Bounds per pair of views"
    note: str
    charts: list[Drawing]
    table: Table


@dataclass(frozen=True)
class InformationPlane(Section):
    name, title = "plane", "Information plane"
    charts: list[Drawing]


@dataclass(frozen=True)
class Pace(Section):
    name, title = "pace", "Throughput"
    note: str
    charts: list[Drawing]


def show_curves(facts: Facts) -> Curves | Absent:
    """Return a chart for every metric without a section of its own, the known ones first."""
    if not facts.metrics:
        return Absent(Curves.title, "metrics.jsonl has no line yet; it gets one every train.log_every steps")
    named = parse_names(facts.metrics)
    notes = []
    if any(name.held_out for name in named):
        notes.append("Dashed: held-out data. Solid: means over the steps between two lines.")
    if any(name.quantity == "beta" for name in named):
        notes[:1] = [f"{note} Held-out losses use the last beta of the schedule." for note in notes[:1]]
    vetoed = round(sum(facts.metrics["skipped"].values)) if "skipped" in facts.metrics else 0
    if vetoed:
        notes.append(f"{counted(vetoed, 'step was', 'steps were')} skipped: loss or gradient was not finite.")
    return Curves([_draw_some(chart) for chart in build_charts(facts.metrics)], notes)


def build_charts(metrics: Metrics) -> list[Chart]:
    """Return a chart for each quantity of each objective, and for the held-out values of the features."""
    named = parse_names(metrics)
    own: dict[tuple[str, str], list[MetricName]] = {}
    held_out: dict[str, list[MetricName]] = {}
    for name in named:
        if name.held_out:
            held_out.setdefault(name.quantity, []).append(name)
        elif name.quantity not in ELSEWHERE:
            own.setdefault((name.term, name.quantity), []).append(name)
    known = [group for quantity in TITLES if (group := ("", quantity)) in own]
    charts = [_build_chart(own[group], named) for group in dict.fromkeys([*known, *own])]
    for quantity, (title, unit) in HELD_OUT.items():
        lines = [Line(name.subject, named[name], "dashed", k) for k, name in enumerate(held_out.get(quantity, []))]
        charts += [Chart(title, lines, unit)] * bool(lines)
    return charts


def _build_chart(names: list[MetricName], named: dict[MetricName, Series]) -> Chart:
    """Return the chart of one quantity of one objective; a colour for each pair of views, held-out values dashed."""
    quantity, _, term, _ = names[0]
    title = TITLES.get(quantity, quantity) if not term else f"{term}/{quantity}"
    lines = []
    for number, name in enumerate(names):
        alone = not name.of
        of = "/".join(name.of)
        lines.append(Line("training" if alone else of, named[name], "solid", number))
        held_out = named.get(name._replace(held_out=True))
        if held_out:
            lines.append(Line("held out" if alone else f"{of}, held out", held_out, "dashed", number + alone))
    return Chart(title, lines, log=quantity in LOGARITHMIC)


def _draw_some(chart: Chart) -> Drawing:
    """Draw the first lines of a chart and say how many are left."""
    colours = list(dict.fromkeys(line.colour for line in chart.lines))[:MAX_LINES]
    lines = [line for line in chart.lines if line.colour in colours]
    left = len(chart.lines) - len(lines)
    return draw_lines(chart._replace(lines=lines), f"{counted(left, 'more line')} not drawn." if left else "")


def show_bounds(facts: Facts) -> Bounds | Absent:
    """Return a chart for each pair of views, and a table of the last values."""
    bounds = find_bounds(facts.metrics)
    if not bounds:
        return Absent(Bounds.title, "no objective of this run reports a bound in nats, or there is no line yet")
    note = (
        "Lower bounds on mutual information in nats (1 nat = 1.44 bits). The ceiling is the log of the number of "
        "candidates. A bound near its ceiling says “at least this much”; more candidates would raise both."
    )
    left = len(bounds) - MAX_BOUNDS
    note += f" {counted(left, 'more pair')} in the table only." if left > 0 else ""
    return Bounds(note, [draw_lines(bound.chart()) for bound in bounds[:MAX_BOUNDS]], _tabulate(bounds))


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


def show_plane(facts: Facts) -> InformationPlane | Absent:
    """Return the information plane of each bottleneck: what a code keeps of its view, and what of the label."""
    charts = []
    for plane in find_planes(facts.metrics):
        lower, upper, label = (Series(plane.steps, values) for values in (plane.lower, plane.upper, plane.label))
        lines = [Line("I(x; z) at least", lower), Line("I(z; y)", label, "dashed", 1)]
        lines[1:1] = [Line("I(x; z) at most", upper, "dotted", 9)] * (upper != lower)
        charts += [draw_path(plane), draw_lines(Chart("I(x; z) and I(z; y)", lines, "nats"))]
    if charts:
        return InformationPlane(charts)
    return Absent(InformationPlane.title, "it is measured for objective mib with labels, in the checks on data.val")


def show_pace(facts: Facts) -> Pace | Absent:
    """Return samples per second and the share of time that the loop waited for data, with their medians."""
    speed, wait = facts.metrics.get("samples_per_second"), facts.metrics.get("data_wait")
    if speed is None:
        return Absent(Pace.title, "metrics.jsonl has no line with samples_per_second yet")
    charts = [draw_lines(Chart("Throughput", [Line("samples/s", speed)], "samples/s", floor=0.0))]
    note = f"Medians over intervals: {median(speed.values):,.0f} samples/s"
    if wait is not None:
        charts.append(draw_lines(Chart("Waiting for data", [Line("share", wait)], "share of time", floor=0.0)))
        note += f", {median(wait.values):.1%} of the time spent waiting for data"
    return Pace(f"{note}.", charts)
