"""Probe tables: a row per view and probe, a column per encoder; another protocol is another table."""

from collections import Counter
from itertools import groupby
from typing import Any

from mvssl.evaluation.results.records import Record, protocol_differences
from mvssl.evaluation.results.tables import (
    Row,
    caveat,
    cell_at,
    columns_of,
    edges,
    format_value,
    full_name,
    group_records,
    row_name,
    rows_of,
    title_of,
)
from mvssl.reporting.gather import Facts
from mvssl.reporting.html import Html, el
from mvssl.reporting.sections import Absent, Section
from mvssl.text import counted
from mvssl.training.next_commands import typed

MANY = 16  # rows of one probe that are shown unfolded
BEST = ("linear", "mlp", "knn", "fewlabel")  # whose score the summary quotes, the first there is


def probes(facts: Facts) -> Section | Absent:
    """Every record of evaluation.json, the newest weights first, with its protocol to unfold."""
    records = facts.records
    if not records:
        why = (
            f"no evaluation of this version; `mvssl evaluate {typed(facts.folder)}` makes one, where shards have labels"
        )
        return Absent("Probes", why)
    whose = sorted({_whose(r) for r in records}, key=lambda w: (w[0] != str(facts.folder), -w[1]))
    parts = [_of_weights(*one, [r for r in records if _whose(r) == one]) for one in whose]
    return Section("probes", "Probes", el("div", parts))


def highlight(records: list[Record]) -> str | None:
    """The one line of the summary: the strongest probe of the newest weights, beside the untrained encoder."""
    trained = [r for r in records if r["encoder"] == "trained"]
    newest = max((_whose(r)[1] for r in trained), default=0)
    for name in BEST:
        found = [r for r in trained if _whose(r)[1] == newest and r["probe"] == name]
        if found:
            best = max(found, key=lambda r: r["value"] if r["higher_is_better"] else -r["value"])
            same = [
                r
                for r in records
                if r["encoder"] == "untrained" and _place(r) == _place(best) and not any(protocol_differences(r, best))
            ]
            told = [f"{best['metric'].replace('_', ' ')} {_said(best)} by {full_name(best)} on {_view(best)}"]
            told += [f"untrained {_said(same[0])}"] if same else []
            chance, unit = best.get("chance"), best["unit"]
            told += [] if chance is None else [f"chance {format_value(chance, None, unit)} {unit}".strip()]
            return "; ".join([*told, f"weights of step {newest:,}"])
    return None


def _whose(record: Record) -> tuple[str, int]:
    """Whose number it is: subject and step."""
    subject = record.get("subject", {})
    return subject.get("name", ""), subject.get("step") or 0


def _place(record: Record) -> tuple[Any, ...]:
    return _whose(record), record["view"], record["layer"], full_name(record), record["metric"]


def _of_weights(name: str, step: int, records: list[Record]) -> Html:
    """The tables about one state of the weights."""
    tables = [_table(group, apart) for group, apart in group_records(records)]
    return el("div", el("h3", f"Weights of step {step:,}"), tables)


def _table(records: list[Record], apart: str) -> Html:
    """A group of records that may stand in one table; a probe of very many numbers is folded away."""
    probe = {(r["layer"], r["view"], row_name(r), r["metric"]): str(r["probe"]) for r in records}
    rows = sorted(rows_of(records), key=lambda row: _order(records, row))
    counts = Counter(probe[row] for row in rows)
    few = [row for row in rows if counts[probe[row]] <= MANY]
    parts: list[Html | None] = [_drawn(records, few) if few else None]
    for name in [name for name, count in counts.items() if count > MANY]:
        whole = _drawn(records, [row for row in rows if probe[row] == name])
        parts.append(el("details", el("summary", f"{name}: {counted(counts[name], 'row')}"), whole))
    gains = any("untrained" in r.get("gain", {}) for r in records)
    whole = f", {told}" if (told := edges(records)) else ""
    note = f"± one standard error{whole}; bold: the best of a row." + " Gain: trained minus untrained, paired." * gains
    note += f" {told[0].upper()}{told[1:]}." if (told := caveat(records)) else ""
    title = title_of(records, list(dict.fromkeys(r["metric"] for r in records)), apart)
    told = el("p", title[:1].upper() + title[1:]), *parts, el("p", note, class_="note"), _details(records)
    return el("div", *told, class_="probe")


def _drawn(records: list[Record], rows: list[Row]) -> Html:
    """Rows under the view and layer that they are of, columns of encoders, and what training gained."""
    columns = columns_of(records)
    gains = any("untrained" in r.get("gain", {}) for r in records)
    metrics = len({row[3] for row in rows}) > 1
    units = len({r["unit"] for r in records}) > 1
    names = ["probe", *(encoder for encoder, _ in columns), *["gain"] * gains]
    bodies = [
        el("tbody", el("tr", el("th", _where(*place), colspan=len(names), scope="colgroup"), class_="of"),
           [_row(records, row, columns, (metrics, units), gains) for row in inside])
        for place, inside in groupby(rows, lambda row: (row[1], row[0]))
    ]  # fmt: skip
    return el("table", el("thead", el("tr", [el("th", name) for name in names])), bodies, class_="numbers")


def _order(records: list[Record], row: Row) -> tuple[int, int]:
    """Views and layers in the order in which they were measured."""
    views = list(dict.fromkeys(r["view"] for r in records))
    layers = list(dict.fromkeys(r["layer"] for r in records))
    return views.index(row[1]), layers.index(row[0])


def _row(records: list[Record], row: Row, columns: list[tuple[str, str]], told: tuple[bool, bool], gains: bool) -> Html:
    """One row; `told` says whether its head names metric and unit, as those of other rows differ."""
    found = [cell_at(records, row, column) for column in columns]
    there = [r for r in found if r]
    best = (max if there[0]["higher_is_better"] else min)(r["value"] for r in there)
    unit = there[0]["unit"]
    head = row[2] + f", {row[3].replace('_', ' ')}" * told[0] + f" ({unit})" * (told[1] and bool(unit))
    cells = [_cell(r, r is not None and r["value"] == best) for r in found]
    gain = next((r.get("gain", {}).get("untrained") for r in there if r["encoder"] == "trained"), None)
    if gains:
        cells.append(
            _number(format_value(gain["difference"], gain.get("standard_error"), unit, "+")) if gain else el("td")
        )
    return el("tr", el("th", head, scope="row"), cells)


def _cell(record: Record | None, best: bool) -> Html:
    return el("td") if record is None else _number(_text(record), best)


def _number(text: str, best: bool = False) -> Html:
    """`61.2 ± 0.4` with the error apart, so that it can go below on a narrow screen."""
    value, sign, error = text.partition(" ± ")
    return el("td", el("b", value) if best else value, el("small", f" {sign.strip()} {error}") if sign else None)


def _text(record: Record) -> str:
    return format_value(record["value"], record.get("standard_error"), record["unit"])


def _said(record: Record) -> str:
    return f"{_text(record)} {record['unit']}".strip()


def _where(view: str, layer: str) -> str:
    return f"{'all views' if view == 'all' else view}{f', layer {layer}' if layer not in ('pixels', 'vector') else ''}"


def _view(record: Record) -> str:
    return _where(record["view"], record["layer"])


def _details(records: list[Record]) -> Html:
    """The whole protocol: what all rows share, then what each probe adds, then what was chosen for each encoder."""
    protocols = [r["protocol"] for r in records]
    shared = {key: value for key, value in protocols[0].items() if all(p.get(key) == value for p in protocols)}
    parts = [
        _lines(
            "Shared by all rows",
            shared | {k: v for k, v in records[0].items() if k in ("shards", "versions", "device")},
        )
    ]
    own = {row_name(r): {k: v for k, v in r["protocol"].items() if k not in shared} for r in records}
    parts += [_lines(name, told) for name, told in own.items()]
    made = {f"{_view(r)}, {r['encoder']}": r.get("subject", {}).get("features") for r in records}
    parts.append(_lines("Features", {name: said for name, said in made.items() if said}))
    chosen = {f"{row_name(r)} on {_view(r)}, {r['encoder']}": chosen for r in records if (chosen := r.get("chosen"))}
    return el("details", el("summary", "The protocol"), parts, _lines("Chosen by the data", chosen))


def _lines(title: str, told: dict[str, Any]) -> Html | None:
    if not told:
        return None
    rows = [el("div", el("dt", key.replace("_", " ")), el("dd", _plain(value))) for key, value in told.items()]
    return el("section", el("h4", title), el("dl", rows, class_="facts small"))


def _plain(value: Any) -> str:
    """Nested protocol entries as text: braces and quotes left out."""
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')}: {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
