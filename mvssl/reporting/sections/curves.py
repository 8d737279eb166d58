"""Charts over steps from metrics.jsonl: training curves and throughput."""

from collections.abc import Iterator
from statistics import median

from mvssl.errors import DataError
from mvssl.figures.charts import Chart, Line
from mvssl.figures.curves import parse_names
from mvssl.objectives.metric_names import MetricName
from mvssl.reporting.content import Block, Drawing, Drawings, Text, describe_rest, draw_lines
from mvssl.reporting.inputs import Inputs
from mvssl.runs.metric_series import Metrics, Series
from mvssl.text import counted

TITLES = {"loss": "Loss", "lr": "Learning rate", "grad_norm": "Gradient norm", "beta": "Beta"}
LOGARITHMIC = ("grad_norm", "beta")
HELD_OUT = {"knn": ("kNN, held out", "accuracy"), "rank": ("Effective rank, held out", "directions")}
HELD_OUT |= {"spread": ("Spread, held out", "1: even, 0: all equal")}
ELSEWHERE = ("bound", "ceiling", "samples_per_second", "data_wait", "skipped", "seconds")  # shown in other places
MAX_LINES = 6  # of a chart


def show_curves(inputs: Inputs) -> list[Block]:
    """Return a chart for every metric without a section of its own, the known ones first."""
    metrics = inputs.facts.metrics
    if not metrics:
        raise DataError("metrics.jsonl has no line yet; it gets one every train.log_every steps")
    named, notes = parse_names(metrics), []
    if any(name.held_out for name in named):
        scheduled = any(name.quantity == "beta" for name in named)
        notes.append("Dashed: held-out data. Solid: means over the steps between two lines."
                     + " Held-out losses use the last beta of the schedule." * scheduled)  # fmt: skip
    skipped = round(sum(metrics["skipped"].values)) if "skipped" in metrics else 0
    if skipped:
        notes.append(f"{counted(skipped, 'step was', 'steps were')} skipped: loss or gradient was not finite.")
    return [Drawings([draw_first_lines(chart) for chart in build_charts(metrics)]), *map(Text, notes)]


def build_charts(metrics: Metrics) -> Iterator[Chart]:
    """Yield a chart for each quantity of each objective, and for the held-out values of the features."""
    named = parse_names(metrics)
    own: dict[tuple[str, str], list[MetricName]] = {("", quantity): [] for quantity in TITLES}
    held_out: dict[str, list[MetricName]] = {}
    for name in named:
        if name.held_out:
            held_out.setdefault(name.quantity, []).append(name)
        elif name.quantity not in ELSEWHERE:
            own.setdefault((name.term, name.quantity), []).append(name)
    for (term, quantity), names in own.items():
        if names:
            title = f"{term}/{quantity}" if term else TITLES.get(quantity, quantity)
            yield Chart(title, list(_build_lines(names, named)), log=quantity in LOGARITHMIC)
    for quantity, (title, unit) in HELD_OUT.items():
        if quantity in held_out:
            lines = [Line(name.subject, named[name], "dashed", k) for k, name in enumerate(held_out[quantity])]
            yield Chart(title, lines, unit)


def _build_lines(names: list[MetricName], named: dict[MetricName, Series]) -> Iterator[Line]:
    """Yield the lines of one quantity of one objective; a colour for each pair of views, held-out values dashed."""
    for number, name in enumerate(names):
        of = "/".join(name.of)
        yield Line(of or "training", named[name], "solid", number)
        held_out = named.get(name._replace(held_out=True))
        if held_out:
            yield Line(f"{of}, held out" if of else "held out", held_out, "dashed", number if of else number + 1)


def draw_first_lines(chart: Chart) -> Drawing:
    """Draw the first lines of a chart and say how many are left."""
    colours = list(dict.fromkeys(line.colour for line in chart.lines))[:MAX_LINES]
    lines = [line for line in chart.lines if line.colour in colours]
    return draw_lines(chart._replace(lines=lines), describe_rest(len(chart.lines) - len(lines), "line"))


def show_pace(inputs: Inputs) -> list[Block]:
    """Return samples per second and the share of time that the loop waited for data, with their medians."""
    metrics = inputs.facts.metrics
    if "samples_per_second" not in metrics:
        raise DataError("metrics.jsonl has no line with samples_per_second yet")
    speed = metrics["samples_per_second"]
    charts = [Chart("Throughput", [Line("samples/s", speed)], "samples/s", floor=0.0)]
    note = f"Medians over intervals: {median(speed.values):,.0f} samples/s"
    if "data_wait" in metrics:
        wait = metrics["data_wait"]
        charts.append(Chart("Waiting for data", [Line("share", wait)], "share of time", floor=0.0))
        note += f", {median(wait.values):.1%} of the time spent waiting for data"
    return [Text(f"{note}."), Drawings(list(map(draw_lines, charts)))]
