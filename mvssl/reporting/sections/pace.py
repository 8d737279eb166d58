"""Throughput: samples per second and the share of time that the loop waited for data."""

from statistics import median

from mvssl.reporting.chart import Line, line_chart
from mvssl.reporting.gather import Facts
from mvssl.reporting.html import el
from mvssl.reporting.sections import Absent, Section
from mvssl.reporting.sections.curves import points


def pace(facts: Facts) -> Section | Absent:
    """Charts of both, and their medians in a sentence."""
    speed, wait = facts.metrics.get("samples_per_second"), facts.metrics.get("data_wait")
    if speed is None:
        return Absent("Throughput", "metrics.jsonl has no line with samples_per_second yet")
    charts = [line_chart("Throughput", [Line("samples/s", points(speed))], y="samples/s", least=0.0)]
    said = f"Medians over intervals: {median(speed.values):,.0f} samples/s"
    if wait is not None:
        charts.append(
            line_chart("Waiting for data", [Line("share of time", points(wait))], y="share of time", least=0.0)
        )
        said += f", {median(wait.values):.1%} of the time spent waiting for data"
    return Section(
        "pace", "Throughput", el("div", el("p", f"{said}.", class_="note"), el("div", charts, class_="charts"))
    )
