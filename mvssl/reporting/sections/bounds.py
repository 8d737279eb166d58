"""Bounds on mutual information for each pair of views beside their ceilings, and the information plane."""

from typing import NamedTuple

from mvssl.reporting.chart import Line, line_chart, path_chart
from mvssl.reporting.gather import Facts, Series
from mvssl.reporting.html import Html, el
from mvssl.reporting.sections import Absent, Section
from mvssl.reporting.sections.curves import points

XZ = "plane/xz"  # the metric's name, an objective's label and val/ before it
MOST = 24  # charts; the table has all


class Bound(NamedTuple):
    """One bound: which pair it is of, in training, held out, and at most (all in nats)."""

    pair: str
    trained: Series | None
    held_out: Series | None
    ceiling: Series | None
    held_out_ceiling: Series | None  # lower where the held-out samples are fewer than a batch


def bounds(facts: Facts) -> Section | Absent:
    """A chart per pair and a table of where each stands."""
    found = find(facts)
    if not found:
        return Absent(
            "Bounds per pair of views", "no objective of this run reports a bound in nats, or no line is there yet"
        )
    charts = el("div", [_chart(one) for one in found[:MOST]], class_="charts")
    note = (
        "Lower bounds on mutual information in nats (1 nat = 1.44 bits). A bound cannot pass its ceiling, the log of "
        "the number of candidates; one that reaches it says “at least this much”, and more candidates would tell."
    )
    more = f" {len(found) - MOST} more stand in the table alone." if len(found) > MOST else ""
    return Section(
        "bounds", "Bounds per pair of views", el("div", el("p", note + more, class_="note"), charts, _table(found))
    )


def find(facts: Facts) -> list[Bound]:
    """The bounds of a run, by the names of its metrics: [OBJECTIVE/]bound/PAIR, and val/ before held-out ones."""
    pairs: dict[str, dict[str, Series]] = {}
    for name, series in facts.metrics.items():
        held, parts = name.startswith("val/"), name.removeprefix("val/").split("/")
        for kind in {"bound", "ceiling"} & set(parts[:2]):
            at = parts.index(kind)
            pair = "/".join([*parts[:at], *parts[at + 1 :]]) or "all views"
            pairs.setdefault(pair, {})["held_out_" * held + kind] = series
    return [
        Bound(pair, of.get("bound"), of.get("held_out_bound"), of.get("ceiling"), of.get("held_out_ceiling"))
        for pair, of in pairs.items()
        if "bound" in of or "held_out_bound" in of
    ]


def _chart(bound: Bound) -> Html:
    lines = []
    if bound.trained:
        lines.append(Line("training", points(bound.trained)))
    if bound.held_out:
        lines.append(Line("held out", points(bound.held_out), "dashed", 1))
    if top := bound.ceiling or bound.held_out_ceiling:
        lines.append(Line("ceiling", points(top), "dotted", 9))
    return line_chart(bound.pair, lines, y="nats")


def _table(found: list[Bound]) -> Html:
    """Where each bound stands; a column that no bound has is left out."""
    columns = {"training": [b.trained for b in found], "held out": [b.held_out for b in found]}
    columns |= {"ceiling": [b.held_out_ceiling or b.ceiling for b in found]}  # of the bound whose share is shown
    columns = {name: series for name, series in columns.items() if any(series)}
    shares = [share(b) for b in found]
    names = ["pair", *columns, *["share of ceiling"] * any(s is not None for s in shares)]
    rows = []
    for number, bound in enumerate(found):
        told = [el("td", bound.pair, data_label="pair")]
        told += [el("td", _last(s[number]), data_label=n) for n, s in columns.items()]
        told += [el("td", _meter(shares[number]), data_label="share of ceiling")] * (len(names) > len(columns) + 1)
        rows.append(el("tr", told))
    return el("table", el("thead", el("tr", [el("th", name) for name in names])), el("tbody", rows), class_="stack")


def _last(series: Series | None) -> str:
    return f"{series.last:,.2f}" if series else ""


def share(bound: Bound) -> float | None:
    """How much of its ceiling a bound has reached; of the held-out one where there is one."""
    now, top = (bound.held_out, bound.held_out_ceiling) if bound.held_out else (bound.trained, bound.ceiling)
    return min(max(now.last / top.last, 0.0), 1.0) if now and top and top.last > 0 else None


def _meter(share: float | None) -> Html | None:
    if share is None:
        return None
    bars = (
        el("rect", width=100, height=10, class_="trough"),
        el("rect", width=f"{100 * share:.0f}", height=10, class_="c0"),
    )
    drawn = el("svg", bars, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true", class_="meter")
    return el("span", drawn, f" {share:.0%}", class_="metered")


def plane(facts: Facts) -> Section | Absent:
    """The information plane of the bottleneck: what the code keeps of its view against what it tells of the other."""
    label = next((name[: -len(XZ)] for name in facts.metrics if name.startswith("val/") and name.endswith(XZ)), "val/")
    found = facts.under(f"{label}plane")
    if not {"xz", "zy"} <= found.keys():
        return Absent("Information plane", "it is measured for objective mib with labels, in the checks on data.val")
    across, up = dict(points(found["xz"])), dict(points(found["zy"]))
    steps = sorted(across.keys() & up.keys())
    beta = dict(points(facts.metrics["beta"])) if "beta" in facts.metrics else {}
    names = [f"step {step:,.0f}" + (f", beta {beta[step]:.3g}" if step in beta else "") for step in steps]
    if not steps:
        return Absent("Information plane", "no step has both of its coordinates yet")
    way = path_chart(
        "Information plane", [(across[s], up[s]) for s in steps], names, x="I(x; z), nats", y="I(z; y), nats"
    )
    kept = [Line("at least", points(found["xz"]))]
    kept += [Line("at most", points(found["xz_upper"]), "dotted", 9)] if "xz_upper" in found else []
    kept += [Line("I(z; y)", points(found["zy"]), "dashed", 1)]
    note = (
        "x is what the code z keeps of its own view, y what it tells of the label or the other view. A bottleneck "
        "moves to the left without falling. The filled point is the last."
    )
    charts = el("div", way, line_chart("I(x; z) and I(z; y)", kept, y="nats"), class_="charts")
    return Section("plane", "Information plane", el("div", el("p", note, class_="note"), charts))
