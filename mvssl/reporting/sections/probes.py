"""Tables of the records in evaluation.json: a row for each view and probe, a column for each encoder."""

from collections import Counter
from itertools import groupby
from typing import Any

from mvssl.errors import DataError
from mvssl.evaluation.results import tables
from mvssl.evaluation.results.records import Record, protocol_differences, subject_of
from mvssl.evaluation.results.tables import format_value, full_name, row_name
from mvssl.reporting.content import Block, Paragraph, ProbeNumber, ProbeRows, ProbeTable
from mvssl.reporting.inputs import Inputs
from mvssl.text import shell_word

MAX_ROWS = 16  # of one probe that are shown unfolded
BEST = ("linear", "mlp", "knn", "fewlabel")  # probes whose score the summary quotes, the first that there is


def show_probes(inputs: Inputs) -> list[Block]:
    """Return all records, the newest weights first; those of another protocol are in another table."""
    folder, records = inputs.facts.folder, inputs.facts.records
    if not records:
        command = f"`mvssl evaluate {shell_word(folder)}`"
        raise DataError(f"no evaluation of this version; {command} makes one, if shards have labels")
    weights: dict[str, list[ProbeTable]] = {}
    for subject in sorted(set(map(subject_of, records)), key=lambda one: (one[0] != str(folder), -one[1])):
        groups = tables.group_records([record for record in records if subject_of(record) == subject])
        weights.setdefault(f"Weights of step {subject[1]:,}", []).extend(_build_table(*group) for group in groups)
    return [block for title, built in weights.items() for block in (Paragraph(title, "h3"), *built)]


def describe_best(records: list[Record]) -> str | None:
    """Return the best probe of the newest weights beside the untrained encoder and chance; None without any."""
    trained = [r for r in records if r["encoder"] == "trained"]
    newest = max((subject_of(r)[1] for r in trained), default=0)
    candidates = [r for r in trained if subject_of(r)[1] == newest and r["probe"] in BEST]
    if not candidates:
        return None
    first = min(BEST.index(r["probe"]) for r in candidates)
    candidates = [r for r in candidates if r["probe"] == BEST[first]]
    best = max(candidates, key=lambda r: r["value"] if r["higher_is_better"] else -r["value"])
    untrained = [r for r in records if r["encoder"] == "untrained" and _is_comparable(r, best)]
    metric, place = best["metric"].replace("_", " "), _describe_place(best["view"], best["layer"])
    parts = [f"{metric} {_with_unit(best)} by {full_name(best)} on {place}"]
    parts += [f"untrained {_with_unit(r)}" for r in untrained[:1]]
    chance, unit = best.get("chance"), best["unit"]
    parts += [] if chance is None else [f"chance {format_value(chance, None, unit)} {unit}".strip()]
    return "; ".join([*parts, f"weights of step {newest:,}"])


def _is_comparable(one: Record, other: Record) -> bool:
    def key(record: Record) -> tuple[Any, ...]:
        return subject_of(record), record["view"], record["layer"], full_name(record), record["metric"]

    return key(one) == key(other) and not any(protocol_differences(one, other))


def _build_table(records: list[Record], difference: str) -> ProbeTable:
    """Build the table of records that can be compared; `difference` is that of its protocol to the first table's."""
    probe = {(r["layer"], r["view"], row_name(r), r["metric"]): str(r["probe"]) for r in records}
    views, layers = (list(dict.fromkeys(r[key] for r in records)) for key in ("view", "layer"))  # as measured
    rows = sorted(tables.table_rows(records), key=lambda row: (views.index(row.view), layers.index(row.layer)))
    counts = Counter(probe[row] for row in rows)
    few = [row for row in rows if counts[probe[row]] <= MAX_ROWS]
    folded = {
        f"{name}: {count} rows": _build_rows(records, [row for row in rows if probe[row] == name])
        for name, count in counts.items()
        if count > MAX_ROWS
    }
    edge, caveat = tables.note_wilson(records), tables.warn_chosen_on_test(records)
    note = f"± one standard error{f', {edge}' if edge else ''}; bold: the best of a row."
    note += " Gain: trained minus untrained, paired." if _has_gains(records) else ""
    note += f" {_capitalize(caveat)}." if caveat else ""
    title = tables.title_of(records, list(dict.fromkeys(r["metric"] for r in records)), difference)
    built = _build_rows(records, few) if few else None
    return ProbeTable(_capitalize(title), built, folded, note, _describe_protocol(records))


def _build_rows(records: list[Record], rows: list[tables.Row]) -> ProbeRows:
    columns, gains = tables.columns_of(records), _has_gains(records)
    several_metrics = len({row.metric for row in rows}) > 1
    several_units = len({r["unit"] for r in records}) > 1

    def build_row(row: tables.Row) -> tuple[str, list[ProbeNumber | None]]:
        cells = [tables.cell_at(records, row, column) for column in columns]
        present = [record for record in cells if record]
        best = (max if present[0]["higher_is_better"] else min)(record["value"] for record in present)
        unit = present[0]["unit"]
        head = row.probe + f", {row.metric.replace('_', ' ')}" * several_metrics
        head += f" ({unit})" * (several_units and bool(unit))
        numbers = [_number(_text(r), r["value"] == best) if r else None for r in cells]
        gain = next((r.get("gain", {}).get("untrained") for r in present if r["encoder"] == "trained"), None)
        if gain:
            numbers.append(_number(format_value(gain["difference"], gain.get("standard_error"), unit, "+"), False))
        return head, numbers if gain or not gains else [*numbers, None]

    names = ["probe", *(encoder for encoder, _ in columns), *["gain"] * gains]
    places = groupby(rows, lambda row: (row.view, row.layer))
    return ProbeRows(names, [(_describe_place(*place), list(map(build_row, of))) for place, of in places])


def _has_gains(records: list[Record]) -> bool:
    return any("untrained" in r.get("gain", {}) for r in records)


def _number(text: str, best: bool) -> ProbeNumber:
    value, _, error = text.partition(" ± ")
    return ProbeNumber(value, error, best)


def _text(record: Record) -> str:
    return format_value(record["value"], record.get("standard_error"), record["unit"])


def _with_unit(record: Record) -> str:
    return f"{_text(record)} {record['unit']}".strip()


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]


def _describe_place(view: str, layer: str) -> str:
    return f"{'all views' if view == 'all' else view}{f', layer {layer}' if layer not in ('pixels', 'vector') else ''}"


def _describe_protocol(records: list[Record]) -> dict[str, dict[str, str]]:
    """Return the settings that all rows share, those that each probe adds, and what was chosen for each encoder."""
    protocols = [r["protocol"] for r in records]
    shared = {key: value for key, value in protocols[0].items() if all(p.get(key) == value for p in protocols)}
    common = shared | {key: value for key, value in records[0].items() if key in ("shards", "versions", "device")}
    groups: dict[str, dict[str, Any]] = {"Shared by all rows": common}
    groups |= {row_name(r): {k: v for k, v in r["protocol"].items() if k not in shared} for r in records}
    groups |= {"Features": {}, "Chosen by the data": {}}
    for r in records:
        encoder = f"{_describe_place(r['view'], r['layer'])}, {r['encoder']}"
        if features := r.get("subject", {}).get("features"):
            groups["Features"][encoder] = features
        if chosen := r.get("chosen"):
            groups["Chosen by the data"][f"{row_name(r)} on {encoder}"] = chosen
    return {
        title: {key.replace("_", " "): _describe_setting(value) for key, value in settings.items()}
        for title, settings in groups.items()
        if settings
    }


def _describe_setting(value: Any) -> str:
    """Return a nested setting as text without braces and quotes."""
    if isinstance(value, dict):
        return "; ".join(f"{key.replace('_', ' ')}: {_describe_setting(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(_describe_setting, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
