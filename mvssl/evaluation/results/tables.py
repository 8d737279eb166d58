"""Records as tables: rows are what was measured, columns the encoders; records of different protocols never share one.

in   records, of one subject or several
out  rich tables, the later ones saying in what their protocol differs from the first
"""

import textwrap
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from mvssl.evaluation.results.records import Record, differences

ENCODERS = ("pixels", "untrained", "trained")  # the order of a table's columns
LEAST, NUMBER, GAP = 6, 11, 2  # characters of a narrow column of names, of one of numbers, and between columns
PIXELS = "pixels"  # the baseline whose layer is no choice


def tables(records: list[Record], width: int = 80) -> list[Table]:
    """As few tables as protocols allow. Values ± standard error in per cent where they are shares; the best bold.

    On a screen of `width` characters.
    """
    return [_draw(group, apart, width) for group, apart in grouped(records)]


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
    """The same where no title says the protocol: `linear, protocol amdim, 10 of 120 epochs, seed 1`."""
    protocol = record["protocol"]
    preset, epochs, papers = protocol.get("preset"), protocol.get("epochs"), protocol.get("paper_epochs")
    told = [row_name(record)]
    if preset:
        told += [
            f"protocol {preset['name']}",
            *([f"{epochs} of {papers} epochs"] if papers and epochs != papers else []),
        ]
    return ", ".join([*told, *([f"seed {protocol['seed']}"] if protocol.get("seed") else [])])


def caveat(records: list[Record]) -> str:
    """What the reader must know of the weights: which step they are of was chosen on data that may be those of test."""
    subjects = [subject for r in records if isinstance(subject := r.get("subject"), dict)]
    chosen = {subject["chosen"] for subject in subjects if "chosen" in subject}
    return f"the checkpoint was chosen {' or '.join(sorted(chosen))}, by default the test set" if chosen else ""


def edges(records: list[Record]) -> str:
    """What the error of a whole share is, where there is one: see `metrics.at_the_edge`; older records say 0 there."""
    whole = any(r["value"] in (0, 1) and r["unit"] == "%" and r.get("standard_error") for r in records)
    return "at 0 and 100 % how far Wilson's interval reaches" if whole else ""


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


def _draw(records: list[Record], apart: str, width: int) -> Table:
    columns = columns_of(records)
    layers = [layer for layer in dict.fromkeys(r["layer"] for r in records) if layer != PIXELS]
    metrics = list(dict.fromkeys(r["metric"] for r in records))
    gains = _has_gains(records)
    heads = ["view", *["layer"] * (len(layers) > 1), "probe", *["metric"] * (len(metrics) > 1)]
    numbers = _number_heads(columns) + ["gain"] * gains
    rows, lines = rows_of(records), []
    for layer, view, probe, metric in rows:
        found = [cell_at(records, (layer, view, probe, metric), column) for column in columns]
        said = [view, *[_layer(records, layer)] * (len(layers) > 1), probe, *[_words(metric)] * (len(metrics) > 1)]
        lines.append([*said, *_cells(found), *([_gained(found[-1])] if gains else [])])
    title, caption = title_of(records, metrics, apart), _caption(records)
    made = Table(title=title, caption=caption, box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0))
    widths = _widths(heads, [list(column) for column in zip([*heads, *numbers], *lines, strict=True)], width)
    for name in heads:
        made.add_column(name, overflow="fold", width=widths[name])
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    for number, line in enumerate(lines):
        made.add_row(*line, end_section=number + 1 == len(rows) or rows[number + 1][1] != rows[number][1])
    return made


def _number_heads(columns: list[tuple[str, str]]) -> list[str]:
    """The encoders; of several subjects these, broken to the width of a number, and the encoders if not one."""
    encoders, subjects = {encoder for encoder, name in columns if name}, {name for _, name in columns if name}
    if len(subjects) < 2:
        return [encoder for encoder, _ in columns]
    full = [name if name and len(encoders) == 1 else f"{name} {encoder}".strip() for encoder, name in columns]
    return ["\n".join(textwrap.wrap(name, NUMBER)) for name in full]


def with_lines(table: Table) -> Group:
    """A table below its title and above its caption; inside it rich folds them to the table's width."""
    above, below = f"[italic]{table.title}[/italic]", f"[dim italic]{table.caption}[/dim italic]"
    table.title = table.caption = None
    return Group(above, table, below)


def _widths(heads: list[str], columns: list[list[str]], width: int) -> dict[str, int]:
    """How wide the columns of names, which are the first, may be on a screen of `width`: numbers stay whole.

    Where they must be narrow, names are broken between words first, then those of the user's, then those of probes.
    """
    whole = [
        max(len(line) for cell in column for line in Text.from_markup(cell).plain.splitlines() or [""])
        for column in columns
    ]
    words = [max(len(word) for cell in column for word in cell.split()) for column in columns[: len(heads)]]
    widths, excess = dict(zip(heads, whole, strict=False)), sum(whole) + GAP * len(whole) - width
    floors = [*zip(heads, words, strict=True), *((head, LEAST) for head in ("view", "layer", "metric", "probe"))]
    for head, floor in floors:
        cut = max(0, min(excess, widths.get(head, 0) - floor))
        excess -= cut
        widths |= {head: widths.get(head, 0) - cut}
    return widths


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
    texts = ["" if r is None else shown(r["value"], _spread(r), r["unit"]) for r in found]
    return [f"[bold]{text}[/bold]" if r and r["value"] == best else text for r, text in zip(found, texts, strict=True)]


def _has_gains(records: list[Record]) -> bool:
    """Whether there is a column of gains: of one subject, beside several there is no place."""
    several = len({name for _, name in columns_of(records) if name}) > 1
    return any("untrained" in r.get("gain", {}) for r in records) and not several


def _spread(found: dict[str, Any]) -> float | None:
    """What stands behind the ±: of a mean over runs their standard deviation, else the standard error."""
    return found.get("standard_deviation", found.get("standard_error"))


def _gained(record: Record | None) -> str:
    found = (record or {}).get("gain", {}).get("untrained")
    return shown(found["difference"], _spread(found), record["unit"], "+") if found and record else ""


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
    named, told = _words(metrics[0]) if len(metrics) == 1 else "", ", ".join(filter(None, units))
    said = " in ".join(filter(None, [named, told])) if named else f"in {told}" * bool(told)
    counts = f"{first['n_test']} test samples, {first['n_train']} for fitting"
    chances = {r["chance"] for r in records if r.get("chance") is not None}
    chance = f"; chance {chances.pop():.1%}" if len(chances) == 1 and units == ["%"] else ""
    preset = first["protocol"].get("preset")
    whose = f"protocol {preset['name']}: " if preset else ""
    about = ", ".join(filter(None, [said, counts]))
    return f"{whose}{about}{chance}" + (f"\nanother protocol: {apart}" if apart else "")


def _caption(records: list[Record]) -> str:
    gains = _has_gains(records)
    spread = "standard deviation over runs" if any("runs" in r for r in records) else "standard error"
    told = [
        f"± {spread}",
        edges(records),
        "best of a row bold",
        *["gain: trained - untrained, paired"] * gains,
        caveat(records),
    ]
    return "; ".join(filter(None, told))
