"""Training curves: loss, rate, gradients, what an objective adds, and what the held-out data say, by step."""

from mvssl.reporting.chart import Line, line_chart
from mvssl.reporting.gather import Facts, Series
from mvssl.reporting.html import Html, el
from mvssl.reporting.sections import Absent, Section
from mvssl.text import counted

OWN_CHART = {
    "loss": ("Loss", ""),
    "lr": ("Learning rate", ""),
    "grad_norm": ("Gradient norm", ""),
    "beta": ("Beta", ""),
}
LOGARITHMIC = ("grad_norm", "beta")
ELSEWHERE = ("samples_per_second", "data_wait", "skipped", "seconds")  # charts of other sections, or a sentence
HELD_OUT = {"knn": ("kNN, held out", "share right"), "rank": ("Effective rank, held out", "directions")}
HELD_OUT |= {"spread": ("Spread, held out", "1: even, 0: all alike")}
MOST = 6  # lines in one chart


def curves(facts: Facts) -> Section | Absent:
    """Every metric that is no bound: the known ones first, then the objective's own."""
    if not facts.metrics:
        return Absent("Training curves", "metrics.jsonl has no line yet; it gets one every train.log_every steps")
    charts = [_single(facts, name) for name in OWN_CHART if name in facts.metrics]
    charts += [_family(title, unit, facts.under(f"val/{key}")) for key, (title, unit) in HELD_OUT.items()]
    charts += [_family(name, "", members, facts) for name, members in families(facts).items()]
    told = []
    if any(name.startswith("val/") for name in facts.metrics):
        said = "Dashed: held-out data. Solid: means over the steps between two lines."
        said += " Held-out losses stand where schedules end, at the last beta." if "beta" in facts.metrics else ""
        told.append(el("p", said, class_="note"))
    vetoed = sum(facts.metrics["skipped"].values) if "skipped" in facts.metrics else 0
    if vetoed:
        steps = counted(round(vetoed), "step was", "steps were")
        told.append(el("p", f"{steps} vetoed, as loss or gradient was not finite.", class_="note"))
    drawn = [chart for chart in charts if chart]
    return Section("curves", "Training curves", el("div", el("div", drawn, class_="charts"), told))


def families(facts: Facts) -> dict[str, dict[str, Series]]:
    """What objectives report besides bounds, together where only what follows the first slash differs."""
    labels = {name.partition("/")[0] for name in facts.metrics if name.endswith("/loss")} - {"val"}
    found: dict[str, dict[str, Series]] = {}
    for name, series in facts.metrics.items():
        parts = name.split("/")
        if name in OWN_CHART or name in ELSEWHERE or parts[0] == "val" or {"bound", "ceiling"} & set(parts):
            continue
        cut = 2 if parts[0] in labels else 1
        found.setdefault("/".join(parts[:cut]), {})["/".join(parts[cut:]) or name] = series
    return found


def _single(facts: Facts, name: str) -> Html:
    title, unit = OWN_CHART[name]
    lines = [Line("training", points(facts.metrics[name]))]
    if f"val/{name}" in facts.metrics:
        lines.append(Line("held out", points(facts.metrics[f"val/{name}"]), "dashed", 1))
    return line_chart(title, lines, y=unit, log=name in LOGARITHMIC)


def _family(title: str, unit: str, members: dict[str, Series], facts: Facts | None = None) -> Html | None:
    if not members:
        return None
    lines = []
    for number, (name, series) in enumerate(list(members.items())[:MOST]):
        lines.append(Line(name, points(series), "solid" if facts else "dashed", number))
        held = facts.metrics.get(f"val/{title}/{name}") if facts else None
        if held:
            lines.append(Line(f"{name}, held out", points(held), "dashed", number))
    left = len(members) - MOST
    return line_chart(title + (f" ({left} more not drawn)" if left > 0 else ""), lines, y=unit)


def points(series: Series) -> list[tuple[float, float]]:
    """A series as points of a line."""
    return list(zip(map(float, series.steps), series.values, strict=True))
