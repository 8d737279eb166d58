"""Records as tables: a row for each measurement, a column for each encoder.

in   records, of one subject or several
out  rich tables. A table has one protocol; the title of a later table says how its protocol differs
"""

import textwrap
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mvssl.evaluation.results.records import PIXELS, Gain, Record, group_by, protocol_differences, subject_of

ENCODERS = ("pixels", "untrained", "trained")  # the order of the columns
NARROWEST, NUMBER, GAP = 6, 11, 2  # characters of a narrow column of names, of a number, and between columns
SHARED = ("data", "label", "seed", "mode", "preset")  # parts of the protocol that all rows of a table share
MOST_DIFFERENCES = 6  # of two protocols, in the title of a table


class Row(NamedTuple):
    """The key of a row. Raw pixels have no layer, so they are in the rows of every layer."""

    layer: str
    view: str
    probe: str
    metric: str


Column = tuple[str, str]  # encoder, and the name of its subject; raw pixels have none


def tables(records: list[Record], width: int = 80) -> list[Table]:
    """Return tables for a screen of `width` characters, as few as the protocols allow.

    Cells show value ± standard error, in per cent for shares. The best value of a row is bold.
    """
    return [_draw(group, difference, width) for group, difference in group_records(records)]


def group_records(records: list[Record]) -> list[tuple[list[Record], str]]:
    """Return the records of each table, and in words how its protocol differs from the first table's."""
    groups = group_by(records, _fits)
    return [(group, _describe_difference(groups[0], group)) for group in groups]


def row_name(record: Record) -> str:
    """Return the name of a row: `knn`, `10 labels/class`, `retrieval rgb to depth`, ..."""
    what = record.get("what")
    return what if record["probe"] == "fewlabel" and what else f"{record['probe']} {what or ''}".strip()


def full_name(record: Record) -> str:
    """Return the name of a row with its protocol: `linear, protocol amdim, 10 of 120 epochs, seed 1`."""
    protocol, parts = record["protocol"], [row_name(record)]
    preset, epochs, papers, seed = (
        protocol.get("preset"), protocol.get("epochs"), protocol.get("paper_epochs"), protocol.get("seed"),
    )  # fmt: skip
    if preset:
        parts.append(f"protocol {preset['name']}")
        parts += [f"{epochs} of {papers} epochs"] if papers and epochs != papers else []
    return ", ".join([*parts, *([f"seed {seed}"] if seed else [])])


def warn_chosen_on_test(records: list[Record]) -> str:
    """Return a warning if the checkpoint was chosen on data that may be the test set; else an empty text."""
    chosen = {subject["chosen"] for r in records if "chosen" in (subject := r.get("subject", {}))}
    return f"the checkpoint was chosen {' or '.join(sorted(chosen))}, by default the test set" if chosen else ""


def note_wilson(records: list[Record]) -> str:
    """Return a note on the error of a share of 0 or 1 (see `metrics.wilson_error_at_0_or_1`), or an empty text."""
    at_edge = any(r["value"] in (0, 1) and r["unit"] == "%" and r.get("standard_error") for r in records)
    return "at 0 and 100 % how far Wilson's interval reaches" if at_edge else ""


def format_value(value: float, error: float | None, unit: str, sign: str = "") -> str:
    """Return a number as tables show it: 61.2 ± 0.4 in per cent, 3.18 ± 0.02 in any other unit."""
    scale, digits = (100, 1) if unit == "%" else (1, 2)
    text = f"{scale * value:{sign}.{digits}f}"
    return text if error is None else f"{text} ± {scale * error:.{digits}f}"


def columns_of(records: list[Record]) -> list[Column]:
    """Return the columns of a table, raw pixels first."""
    return sorted(dict.fromkeys(map(_column, records)), key=lambda c: (*ENCODERS, c[0]).index(c[0]))


def table_rows(records: list[Record]) -> list[Row]:
    """Return the rows of a table."""
    layered = any(r["layer"] != PIXELS for r in records)
    return list(dict.fromkeys(_row(r) for r in records if r["layer"] != PIXELS or not layered))


def cell_at(records: list[Record], row: Row, column: Column) -> Record | None:
    """Return the record in a row and a column of a table."""
    fitting = (r for r in records if _column(r) == column and _row(r)[1:] == row[1:])
    return next((r for r in fitting if r["layer"] in (row.layer, PIXELS)), None)


def title_of(records: list[Record], metrics: list[str], difference: str) -> str:
    """Return the title of a table: metric, unit, samples, chance, and how its protocol differs from the first."""
    first = records[0]
    units = sorted({r["unit"] for r in records})
    named, listed = metrics[0].replace("_", " ") if len(metrics) == 1 else "", ", ".join(filter(None, units))
    metric = " in ".join(filter(None, [named, listed])) if named else f"in {listed}" * bool(listed)
    counts = f"{first['n_test']} test samples, {first['n_train']} for fitting"
    chances = {chance for r in records if (chance := r.get("chance")) is not None}
    chance = f"; chance {chances.pop():.1%}" if len(chances) == 1 and units == ["%"] else ""
    preset = first["protocol"].get("preset")
    paper = f"protocol {preset['name']}: " if preset else ""
    about = ", ".join(filter(None, [metric, counts]))
    return f"{paper}{about}{chance}" + (f"\nanother protocol: {difference}" if difference else "")


def print_tables(records: list[Record]) -> None:
    """Print each table between its title and its caption. Inside the table, rich would fold them to its width."""
    console = Console()
    for table in tables(records, console.width):
        above, below = f"[italic]{table.title}[/italic]", f"[dim italic]{table.caption}[/dim italic]"
        table.title = table.caption = None
        console.print(above, table, below, "", sep="\n", highlight=False)


def _row(record: Record) -> Row:
    return Row(record["layer"], record["view"], row_name(record), record["metric"])


def _column(record: Record) -> Column:
    return record["encoder"], "" if record["encoder"] == PIXELS else subject_of(record)[0]


def _fits(record: Record, group: list[Record]) -> bool:
    """Return whether a record fits a table: the setting is equal, and all protocols of its row are equal."""
    if any(record["protocol"].get(key) != group[0]["protocol"].get(key) for key in SHARED):
        return False
    for other in group:
        same_layer = other["layer"] == record["layer"] or PIXELS in (other["encoder"], record["encoder"])
        same_row = same_layer and _row(other)[1:] == _row(record)[1:]
        if same_row and (_column(other) == _column(record) or any(protocol_differences(other, record))):
            return False
    return True


def _describe_difference(first: list[Record], group: list[Record]) -> str:
    """Return in words how the protocol of a later table differs from the first."""
    if first is group:
        return ""
    rows = {_row(r)[1:]: r for r in first}
    pairs = [(rows[_row(r)[1:]], r) for r in group if _row(r)[1:] in rows] or [(first[0], group[0])]
    lines = dict.fromkeys(
        f"{name.removeprefix('protocol.')}: {a} -> {b}"
        for one, other in pairs
        for name, a, b in protocol_differences(one, other)
        if name not in ("probe", "what", "metric")
    )
    return "; ".join(list(lines)[:MOST_DIFFERENCES])


def _draw(records: list[Record], difference: str, width: int) -> Table:
    columns, rows, gains = columns_of(records), table_rows(records), _has_gains(records)
    metrics = list(dict.fromkeys(r["metric"] for r in records))
    several_layers, several_metrics = len({r["layer"] for r in records} - {PIXELS}) > 1, len(metrics) > 1
    papers = {r["layer"]: f"{r['layer_called']} ({r['layer']})" for r in records if "layer_called" in r}
    heads = ["view", *["layer"] * several_layers, "probe", *["metric"] * several_metrics]
    numbers, lines = _number_heads(columns) + ["gain"] * gains, []
    for row in rows:
        cells = [cell_at(records, row, column) for column in columns]
        layer = [papers.get(row.layer, row.layer)] * several_layers
        metric = [row.metric.replace("_", " ")] * several_metrics
        lines.append([row.view, *layer, row.probe, *metric, *_format_cells(cells, gains)])
    spread = "standard deviation over runs" if any("runs" in r for r in records) else "standard error"
    notes = [f"± {spread}", note_wilson(records), "best of a row bold", "gain: trained - untrained, paired" * gains]
    caption = "; ".join(filter(None, [*notes, warn_chosen_on_test(records)]))
    table = Table(
        title=title_of(records, metrics, difference), caption=caption,
        box=box.SIMPLE, show_edge=False, padding=(0, 1, 0, 0),
    )  # fmt: skip
    widths = _fit_widths(heads, [list(column) for column in zip([*heads, *numbers], *lines, strict=True)], width)
    for name in heads:
        table.add_column(name, overflow="fold", width=widths[name])
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for number, line in enumerate(lines):
        table.add_row(*line, end_section=number + 1 == len(rows) or rows[number + 1].view != rows[number].view)
    return table


def _number_heads(columns: list[Column]) -> list[str]:
    """Return the heads of the columns: encoders, or with several subjects their names, wrapped to a number's width."""
    encoders, subjects = {encoder for encoder, name in columns if name}, {name for _, name in columns if name}
    if len(subjects) < 2:
        return [encoder for encoder, _ in columns]
    full = [name if name and len(encoders) == 1 else f"{name} {encoder}".strip() for encoder, name in columns]
    return ["\n".join(textwrap.wrap(name, NUMBER)) for name in full]


def _fit_widths(heads: list[str], columns: list[list[str]], width: int) -> dict[str, int]:
    """Return the widths of the first columns, which hold names, on a screen of `width` characters.

    Numbers are never wrapped. Names are wrapped between words first, then inside words: first views, probes last.
    """
    full = [
        max(len(line) for cell in column for line in Text.from_markup(cell).plain.splitlines() or [""])
        for column in columns
    ]
    words = [max(len(word) for cell in column for word in cell.split()) for column in columns[: len(heads)]]
    widths, excess = dict(zip(heads, full, strict=False)), sum(full) + GAP * len(full) - width
    floors = [*zip(heads, words, strict=True), *((head, NARROWEST) for head in ("view", "layer", "metric", "probe"))]
    for head, floor in floors:
        cut = max(0, min(excess, widths.get(head, 0) - floor))
        excess -= cut
        widths |= {head: widths.get(head, 0) - cut}
    return widths


def _format_cells(cells: list[Record | None], gains: bool) -> list[str]:
    """Return the numbers of a row as text, the best one bold, and with `gains` that of the last cell."""
    records = [r for r in cells if r]
    best = (max if records[0]["higher_is_better"] else min)(r["value"] for r in records)
    texts = ["" if r is None else format_value(r["value"], _error(r), r["unit"]) for r in cells]
    texts = [f"[bold]{text}[/bold]" if r and r["value"] == best else text for r, text in zip(cells, texts, strict=True)]
    last = cells[-1]
    gain = last.get("gain", {}).get("untrained") if last else None
    gained = format_value(gain["difference"], _error(gain), last["unit"], "+") if gain and last else ""
    return [*texts, gained] if gains else texts


def _has_gains(records: list[Record]) -> bool:
    """Return whether there is a column of gains. There is no room for it beside several subjects."""
    several = len({name for _, name in columns_of(records) if name}) > 1
    return any("untrained" in r.get("gain", {}) for r in records) and not several


def _error(number: Record | Gain) -> float | None:
    """Return the number after ±: the standard deviation for a mean over runs, else the standard error."""
    return number["standard_deviation"] if "standard_deviation" in number else number.get("standard_error")
