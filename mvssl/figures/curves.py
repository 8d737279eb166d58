"""Figures of a run from its metrics.jsonl: bounds beside their ceilings, and the information plane.

in   a run folder, finished or still in training
out  matplotlib figures, or PNG files beside the metrics
"""

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mvssl.files import write_picture
from mvssl.reporting.gather import Facts, Series, gather
from mvssl.reporting.sections.bounds import find

WIDE, HIGH = 3.4, 2.6  # inches of one chart
ACROSS = 4


def curves(run: str | Path) -> Figure | None:
    """Loss, and each bound in nats: in training, held out, and its ceiling. None where no line is there yet."""
    facts = gather(Path(run))
    bounds = find(facts)
    charts = [("loss", "", facts.metrics.get("loss"), facts.metrics.get("val/loss"), None)]
    charts += [(bound.pair, "nats", bound.trained, bound.held_out, bound.ceiling) for bound in bounds]
    charts = [chart for chart in charts if chart[2] or chart[3]]
    if not charts:
        return None
    rows = math.ceil(len(charts) / ACROSS)
    columns = min(ACROSS, len(charts))
    figure = Figure(figsize=(WIDE * columns, HIGH * rows), layout="constrained", dpi=110)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, chart in zip(axes, charts, strict=False):
        _chart(axis, *chart)
    for axis in axes[len(charts) :]:
        axis.set_visible(False)
    return figure


def plane(run: str | Path) -> Figure | None:
    """The information plane of objective mib: a point per check, coloured by step. None where it was not measured."""
    facts = gather(Path(run))
    # an objective's label stands before `plane` where there are several objectives
    places = [
        name.removesuffix("/xz") for name in facts.metrics if name.startswith("val/") and name.endswith("plane/xz")
    ]
    found = facts.under(places[0]) if places else {}
    if not {"xz", "zy"} <= found.keys():
        return None
    figure = Figure(figsize=(4.6, 3.6), layout="constrained", dpi=110)
    axis = figure.subplots()
    up, upper = _by_step(found["zy"]), _by_step(found["xz_upper"]) if "xz_upper" in found else {}
    steps = [step for step in found["xz"].steps if step in up]
    left = [_by_step(found["xz"])[step] for step in steps]
    right = [max(upper.get(step, x), x) for step, x in zip(steps, left, strict=True)]
    y = [up[step] for step in steps]
    axis.hlines(y, left, right, color="0.8", linewidth=1, zorder=0)
    axis.plot(left, y, color="0.6", linewidth=0.8, zorder=1)
    points = axis.scatter(left, y, c=steps, cmap="viridis", s=22, zorder=2)
    figure.colorbar(points, label="step")
    if max(right) > 5 * max(max(left), 1e-9):  # the upper bound is far off: it would press the points together
        axis.set_xlim(right=1.6 * max(left))
    axis.margins(x=0.12)  # room for what is written below
    for step, (side, place) in {steps[0]: ("left", (4, 5)), steps[-1]: ("right", (15, -13))}.items():
        axis.annotate(_named(facts, places[0], step), (left[steps.index(step)], up[step]), fontsize=7, ha=side,
                      xytext=place, textcoords="offset points")  # fmt: skip
    axis.set(xlabel="I(x; z), nats: at least (point), at most (line)", ylabel="I(z; y), nats, at least")
    axis.tick_params(labelsize=8)
    return figure


def save(run: str | Path) -> list[Path]:
    """Write curves.png and plane.png into the run folder, where there is something to draw. Raises `OutputError`."""
    written = []
    for name, figure in (("curves.png", curves(run)), ("plane.png", plane(run))):
        if figure is not None:
            written.append(write_picture(figure, Path(run) / name))
    return written


def _chart(axis: Axes, title: str, unit: str, trained: Series | None, held: Series | None, top: Series | None) -> None:
    if trained:
        axis.plot(trained.steps, trained.values, color="C0", linewidth=1.2, label="training")
    if held:
        axis.plot(held.steps, held.values, color="C1", linewidth=1.2, marker="o", markersize=3, label="held out")
    if top:
        axis.plot(top.steps, top.values, color="0.3", linewidth=1, linestyle=":", label="ceiling")
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("step", fontsize=8)
    axis.set_ylabel(unit, fontsize=8)
    axis.tick_params(labelsize=7)
    axis.legend(fontsize=7, frameon=False)


def _by_step(series: Series) -> dict[int, float]:
    return dict(zip(series.steps, series.values, strict=True))


def _named(facts: Facts, place: str, step: int) -> str:
    schedule = facts.metrics.get(place.removeprefix("val/").removesuffix("plane") + "beta")
    beta = _by_step(schedule).get(step) if schedule else None
    return f"step {step:,}" + (f", beta {beta:.3g}" if beta is not None else "")
