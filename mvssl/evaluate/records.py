"""Results as JSON records, and records as a table.

A record is one number with all that is needed to read it: `probe`, `view`, `layer`, `encoder`, `metric`, `accuracy`,
`standard_error`, `interval_95`, `n_train`, `n_test`, `chance`, `protocol`. Few-label records hold `draws`, the score
of each draw; records of the trained encoder hold `gain`, the paired differences to the baselines.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from mvssl.errors import OutputError, RecipeError
from mvssl.evaluate.metrics import DRAWS, Difference, Result, interval, paired

ENCODERS = ("pixels", "untrained", "trained")  # the order of a table's columns
Record = dict[str, Any]


def record(result: Result, **facts: Any) -> Record:
    """A result as a JSON object; `facts` are the keys that say what was measured."""
    made = {
        **facts,
        "accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "interval_95": list(interval(result)),
        "protocol": {**facts.get("protocol", {}), **result.protocol},
    }
    if result.paired_over == DRAWS:
        made["draws"] = result.parts.tolist()
    return made


def identity(record: Record) -> tuple[Any, ...]:
    """What was measured: two records of one identity are the same number, measured twice."""
    what = [record.get(key) for key in ("probe", "shots", "view", "layer", "encoder")]
    protocol = record["protocol"]
    data = protocol.get("data", {})
    return *what, protocol.get("step"), *(data.get(split, {}).get("fingerprint") for split in ("train", "test"))


def read(file: Path) -> list[Record]:
    """The records in a file that hold a score; none where there is no such file."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return []
    wanted = {"probe", "accuracy", "standard_error", "protocol"}
    return [r for r in found if isinstance(r, dict) and wanted <= r.keys()] if isinstance(found, list) else []


def updated(file: Path, records: list[Record]) -> list[Record]:
    """The records of `file` with `records` in place of those of the same identity, and the new ones after them."""
    whole = {identity(r): r for r in (*read(file), *records)}
    return list(whole.values())


def save(file: Path, records: list[Record]) -> None:
    """Write `file`, whole or not at all. Raises `OutputError`."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_name(f".{file.name}.{os.getpid()}")
        aside.write_text(json.dumps(records, indent=1) + "\n")
        os.replace(aside, file)
    except OSError as error:
        raise OutputError(f"{file} cannot be written: {error.strerror}; choose another with --json FILE") from None


def gain(ahead: Result, behind: Result) -> dict[str, Any]:
    """The paired difference as a JSON object, with `ahead_by` in standard errors (null where the error is 0)."""
    difference, error, over = paired(ahead, behind)
    ahead_by = difference / error if error else None
    return {"difference": difference, "standard_error": error, "ahead_by": ahead_by, "paired_over": over}


def compare(ahead: Record, behind: Record) -> Difference:
    """Difference of two records, of this run or another's.

    Paired over draws where both hold them; otherwise the two standard errors are added in squares, which is larger
    than the paired error in `gain`. Raises `RecipeError` where the protocols differ.
    """
    for name, a, b in _protocol_of(ahead, behind):
        if a != b:
            raise RecipeError(f"these records cannot be compared: {name} is {a} and {b}")
    if "draws" in ahead:
        pairs = [a - b for a, b in zip(ahead["draws"], behind["draws"], strict=True)]
        mean, n = sum(pairs) / len(pairs), len(pairs)
        spread = math.sqrt(sum((pair - mean) ** 2 for pair in pairs) / max(n - 1, 1))
        return Difference(mean, spread / math.sqrt(n), DRAWS)
    error = math.hypot(ahead["standard_error"], behind["standard_error"])
    return Difference(ahead["accuracy"] - behind["accuracy"], error, "nothing")


def _protocol_of(*records: Record) -> list[tuple[Any, ...]]:
    keys = ["probe", "shots", "metric", "n_train", "n_test"]
    named = [(key, *(r.get(key) for r in records)) for key in keys]
    inner = ["seed", "label", "data"]
    return named + [(f"protocol.{key}", *(r["protocol"].get(key) for r in records)) for key in inner]


def row_name(record: Record) -> str:
    """`knn`, `linear`, `1 label/class`, ..."""
    shots = record.get("shots")
    return record["probe"] if shots is None else f"{shots} label{'s' if shots > 1 else ''}/class"


def table(records: list[Record]) -> Table:
    """Rows: probes, by view. Columns: encoders, and what training gained. Per cent ± standard error; the best bold."""
    encoders = [name for name in ENCODERS if any(r["encoder"] == name for r in records)]
    rows = list(dict.fromkeys((r["view"], row_name(r)) for r in records))
    cells = {(r["view"], row_name(r), r["encoder"]): r for r in records}
    note = "± standard error; best of a row bold; gain: trained - untrained, paired"
    drawn = Table(title=_title(records[0]), caption=note, box=box.SIMPLE)
    for name in ("view", "probe"):
        drawn.add_column(name, no_wrap=True)
    for name in (*encoders, "gain"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for number, (view, row) in enumerate(rows):
        found = [cells.get((view, row, encoder)) for encoder in encoders]
        best = max(r["accuracy"] for r in found if r)
        ends = number + 1 == len(rows) or rows[number + 1][0] != view
        drawn.add_row(view, row, *(_cell(r, best) for r in found), _gained(found[-1]), end_section=ends)
    return drawn


def _title(first: Record) -> str:
    metric = first["metric"].replace("_", " ")
    return (
        f"{metric} in %, {first['n_test']} test samples, {first['n_train']} for fitting; chance {first['chance']:.1%}"
    )


def _cell(record: Record | None, best: float) -> str:
    if record is None:
        return ""
    text = f"{100 * record['accuracy']:.1f} ± {100 * record['standard_error']:.1f}"
    return f"[bold]{text}[/bold]" if record["accuracy"] == best else text


def _gained(record: Record | None) -> str:
    found = (record or {}).get("gain", {}).get("untrained")
    return f"{100 * found['difference']:+.1f} ± {100 * found['standard_error']:.1f}" if found else ""
