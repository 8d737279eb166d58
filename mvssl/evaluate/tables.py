"""Records as tables: rows are what was measured, columns the encoders; records of different protocols never share one.

in   records, of one subject or several
out  rich tables, the later ones saying in what their protocol differs from the first
"""

from typing import Any

from rich import box
from rich.table import Table

from mvssl.evaluate.records import Record, differences

ENCODERS = ("pixels", "untrained", "trained")  # the order of a table's columns
PIXELS = "pixels"  # the baseline whose layer is no choice


def tables(records: list[Record]) -> list[Table]:
    """As few tables as protocols allow. Values ± standard error in per cent where they are shares; the best bold."""
    return [_draw(group, apart) for group, apart in grouped(records)]


def grouped(records: list[Record]) -> list[tuple[list[Record], str]]:
    """The records of each table, and in what its protocol differs from the first one's, in words."""
    groups: list[list[Record]] = []
    for record in records:
        group = next((group for group in groups if _fits(record, group)), None)
        if group is None:
            groups.append(group := [])
        group.append(record)
    return [(group, _difference(groups[0], group)) for group in groups]


def row_name(record: Record) -> str:
    """`knn`, `10 labels/class`, `retrieval rgb to depth`, ..."""
    what = record.get("what")
    return what if record["probe"] == "fewlabel" and what else f"{record['probe']} {what or ''}".strip()


def full_name(record: Record) -> str:
    """The same where no title says the protocol: `linear, protocol amdim`."""
    preset = record["protocol"].get("preset")
    return row_name(record) + (f", protocol {preset['name']}" if preset else "")


def shown(value: float, error: float | None, unit: str, sign: str = "") -> str:
    """A number as tables write it: 61.2 ± 0.4 in per cent, 3.18 ± 0.02 in any other unit."""
    scale, digits = (100, 1) if unit == "%" else (1, 2)
    text = f"{scale * value:{sign}.{digits}f}"
    return text if error is None else f"{text} ± {scale * error:.{digits}f}"


def _row(record: Record) -> tuple[Any, ...]:
    return record["view"], row_name(record), record["metric"]


def _fits(record: Record, group: list[Record]) -> bool:
    """Whether a record may stand in a table: its setting is the table's, and in its row all protocols are one."""
    if _setting(record) != _setting(group[0]):
        return False
    row = [r for r in group if _row(r) == _row(record) and _same_layer(r, record)]
    return all(not any(differences(r, record)) and _column(r) != _column(record) for r in row)


def _same_layer(one: Record, other: Record) -> bool:
    return one.get("layer") == other.get("layer") or PIXELS in (one["encoder"], other["encoder"])


def _setting(record: Record) -> list[Any]:
    """What all rows of a table share."""
    return [record["protocol"].get(key) for key in ("data", "label", "seed", "mode", "preset")]


def _column(record: Record) -> tuple[str, str]:
    name = "" if record["encoder"] == PIXELS else record.get("subject", {}).get("name", "")
    return record["encoder"], name


def _difference(first: list[Record], group: list[Record]) -> str:
    """What a later table has other than the first, in words."""
    if first is group:
        return ""
    other = {_row(r): r for r in first}
    pairs = [(other[_row(r)], r) for r in group if _row(r) in other] or [(first[0], group[0])]
    told = dict.fromkeys(
        f"{name.removeprefix('protocol.')}: {a} -> {b}"
        for one, two in pairs
        for name, a, b in differences(one, two)
        if name not in ("probe", "what", "metric")
    )
    return "; ".join(list(told)[:6])


def _draw(records: list[Record], apart: str) -> Table:
    columns = columns_of(records)
    several = len({name for _, name in columns if name}) > 1
    layers = [layer for layer in dict.fromkeys(r["layer"] for r in records) if layer != PIXELS]
    metrics = list(dict.fromkeys(r["metric"] for r in records))
    title = title_of(records, metrics, apart)
    made = Table(title=title, caption=_caption(records), box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    for name in ("view", *["layer"] * (len(layers) > 1), "probe", *["metric"] * (len(metrics) > 1)):
        # where the screen is narrow names take several lines, and numbers stay whole
        made.add_column(name, overflow="fold", min_width=6)
    gains = any("untrained" in r.get("gain", {}) for r in records) and not several
    for encoder, name in columns:
        made.add_column(f"{name} {encoder}" if several and name else encoder, justify="right", no_wrap=True)
    if gains:
        made.add_column("gain", justify="right", no_wrap=True)
    rows = rows_of(records)
    for number, row in enumerate(rows):
        layer, view, probe, metric = row
        found = [cell_at(records, row, column) for column in columns]
        ends = number + 1 == len(rows) or rows[number + 1][1] != view
        heads = [view, *[_layer(records, layer)] * (len(layers) > 1), probe, *[_words(metric)] * (len(metrics) > 1)]
        gained = [_gained(found[-1])] if gains else []
        made.add_row(*heads, *_cells(found), *gained, end_section=ends)
    return made


def columns_of(records: list[Record]) -> list[tuple[str, str]]:
    """The columns of a table: encoder and whose it is, pixels first."""
    return sorted(dict.fromkeys(map(_column, records)), key=lambda c: (*ENCODERS, c[0]).index(c[0]))


def rows_of(records: list[Record]) -> list[tuple[Any, ...]]:
    """The rows of a table: layer, view, row_name, metric. Pixels have no layer and stand in the rows of all layers."""
    layered = any(r["layer"] != PIXELS for r in records)
    return list(dict.fromkeys((r["layer"], *_row(r)) for r in records if r["layer"] != PIXELS or not layered))


def cell_at(records: list[Record], row: tuple[Any, ...], column: tuple[str, str]) -> Record | None:
    """The record in a row and a column of a table."""
    layer, *rest = row
    fitting = (r for r in records if _column(r) == column and _row(r) == tuple(rest))
    return next((r for r in fitting if r["layer"] in (layer, PIXELS)), None)


def _cells(found: list[Record | None]) -> list[str]:
    values = [r["value"] for r in found if r]
    best = (max if next(r for r in found if r)["higher_is_better"] else min)(values)
    texts = ["" if r is None else shown(r["value"], r["standard_error"], r["unit"]) for r in found]
    return [f"[bold]{text}[/bold]" if r and r["value"] == best else text for r, text in zip(found, texts, strict=True)]


def _gained(record: Record | None) -> str:
    found = (record or {}).get("gain", {}).get("untrained")
    return shown(found["difference"], found["standard_error"], record["unit"], "+") if found and record else ""


def _layer(records: list[Record], layer: str) -> str:
    """A layer by its name, and what the paper calls it where a protocol asked for it."""
    called = next((r["layer_called"] for r in records if r["layer"] == layer and "layer_called" in r), None)
    return f"{called} ({layer})" if called else layer


def _words(metric: str) -> str:
    return metric.replace("_", " ")


def title_of(records: list[Record], metrics: list[str], apart: str) -> str:
    """What a table is of: metric and unit, samples, chance, and in what its protocol is another than the first's."""
    first = records[0]
    units = sorted({r["unit"] for r in records})
    said = f"{_words(metrics[0])} in {units[0] or '1'}" if len(metrics) == 1 else f"in {', '.join(filter(None, units))}"
    counts = f"{first['n_test']} test samples, {first['n_train']} for fitting"
    chances = {r["chance"] for r in records if r.get("chance") is not None}
    chance = f"; chance {chances.pop():.1%}" if len(chances) == 1 and units == ["%"] else ""
    preset = first["protocol"].get("preset")
    whose = f"protocol {preset['name']}: " if preset else ""
    return f"{whose}{said}, {counts}{chance}" + (f"\nanother protocol: {apart}" if apart else "")


def _caption(records: list[Record]) -> str:
    gains = any("untrained" in r.get("gain", {}) for r in records)
    return "± standard error; best of a row bold" + "; gain: trained - untrained, paired" * gains
