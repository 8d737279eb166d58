"""What a run's metrics show: its bounds beside their ceilings, and the information plane.

in   the metrics of a run, finished or still in training
out  `BoundSeries` and `Plane` for each pair of views and objective; curves.png and plane.png
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from mvssl.figures.charts import Chart, Line, Plane, draw_chart, draw_plane
from mvssl.files import write_picture
from mvssl.objectives.metric_names import MetricName, find_terms
from mvssl.runs.metric_series import Metrics, Series, read_metrics

WIDTH, HEIGHT = 3.4, 2.6  # inches of one chart
COLUMNS = 4


class BoundSeries(NamedTuple):
    """A lower bound on mutual information in nats and its ceiling, the log of the number of candidates."""

    subject: str  # a pair of views and perhaps a scale, after the objective's label if there are several
    training: Series | None
    held_out: Series | None
    ceiling: Series | None
    held_out_ceiling: Series | None  # lower if the held-out samples are fewer than a batch

    @property
    def share(self) -> float | None:
        """How much of its ceiling the bound has reached, 0 to 1; of the held-out one if there is one."""
        bound, ceiling = (self.held_out, self.held_out_ceiling) if self.held_out else (self.training, self.ceiling)
        if not (bound and ceiling and ceiling.last > 0):
            return None
        return min(max(bound.last / ceiling.last, 0.0), 1.0)

    def chart(self) -> Chart:
        lines = [Line("training", self.training)] if self.training else []
        lines += [Line("held out", self.held_out, "dashed", 1)] if self.held_out else []
        ceiling = self.ceiling or self.held_out_ceiling
        lines += [Line("ceiling", ceiling, "dotted", 9)] if ceiling else []
        return Chart(self.subject, lines, "nats")


def parse_names(metrics: Metrics) -> dict[MetricName, Series]:
    """Return the series by parsed key; labels of objectives are recognised where there are several."""
    terms = find_terms(metrics)
    return {MetricName.parse(key, terms): series for key, series in metrics.items()}


def find_bound_series(metrics: Metrics) -> list[BoundSeries]:
    """Return the bounds of a run in the order of metrics.jsonl."""
    subjects: dict[str, dict[tuple[str, bool], Series]] = {}
    for name, series in parse_names(metrics).items():
        if name.quantity in ("bound", "ceiling"):
            subjects.setdefault(name.subject or "all views", {})[name.quantity, name.held_out] = series
    return [
        BoundSeries(
            subject,
            *(of.get(kind) for kind in (("bound", False), ("bound", True), ("ceiling", False), ("ceiling", True))),
        )
        for subject, of in subjects.items()
        if ("bound", False) in of or ("bound", True) in of
    ]


def find_planes(metrics: Metrics) -> Iterator[Plane]:
    """Yield the information plane of each objective that has one, over all its views."""
    named = parse_names(metrics)
    for term in dict.fromkeys(name.term for name in named):
        held_out = {of: named.get(MetricName("plane", (of,), term, True)) for of in ("xz", "xz_upper", "zy")}
        if not (held_out["xz"] and held_out["zy"]):
            continue
        lower, upper, label = (series.by_step() if series else {} for series in held_out.values())
        steps = sorted(lower.keys() & label.keys())
        beta = named.get(MetricName("beta", (), term))
        if steps:
            yield Plane(
                term,
                steps,
                [lower[step] for step in steps],
                [max(upper.get(step, lower[step]), lower[step]) for step in steps],
                [label[step] for step in steps],
                beta.by_step() if beta else {},
            )


def draw_curves(metrics: Metrics) -> Figure | None:
    """Draw the loss and each bound in nats: training, held out, and its ceiling. None without any of them."""
    loss = [("training", "loss"), ("held out", "val/loss")]
    lines = [Line(label, metrics[key], "solid", k) for k, (label, key) in enumerate(loss) if key in metrics]
    charts = [Chart("loss", lines)] * bool(lines) + [bound.chart() for bound in find_bound_series(metrics)]
    if not charts:
        return None
    columns, rows = min(COLUMNS, len(charts)), math.ceil(len(charts) / COLUMNS)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained", dpi=110)
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, chart in zip(every, charts, strict=False):
        draw_chart(axes, chart)
        axes.set_title(chart.title, fontsize=9, parse_math=False)
        axes.set_ylabel(chart.unit, fontsize=9)
        axes.legend(fontsize=8, frameon=False)
    for axes in every[len(charts) :]:
        axes.set_visible(False)
    return figure


def draw_planes(metrics: Metrics) -> Figure | None:
    """Draw the information planes side by side. None without any."""
    planes = list(find_planes(metrics))
    if not planes:
        return None
    figure = Figure(figsize=(4.6 * len(planes), 3.6), layout="constrained", dpi=110)
    for axes, plane in zip(figure.subplots(1, len(planes), squeeze=False).ravel(), planes, strict=True):
        draw_plane(axes, plane)
        axes.set_title(plane.term, fontsize=9, parse_math=False)
    return figure


def save_curves(run: str | Path) -> list[Path]:
    """Write curves.png and plane.png into the run folder, if there is something to draw. Raises `OutputError`."""
    folder = Path(run)
    metrics = read_metrics(folder, [])
    drawn = {"curves.png": draw_curves(metrics), "plane.png": draw_planes(metrics)}
    return [write_picture(figure, folder / name) for name, figure in drawn.items() if figure is not None]
