"""Compare runs. Runs that differ only by seed become one column, with their mean and standard deviation.

in   run folders that were evaluated, or files of records
out  records whose value is a mean over runs, for `tables`; a description of how the recipes of the columns differ
"""

import os
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple, cast

from rich.console import Console

from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.results.records import (
    PIXELS,
    ROW,
    Gain,
    Record,
    group_by,
    identity,
    protocol_differences,
    read,
    save,
    subject_of,
)
from mvssl.evaluation.results.tables import print_tables
from mvssl.files import RECORDS, check_output
from mvssl.recipe import load_recipe
from mvssl.recipe.messages import table_differences
from mvssl.runs.folder import FREE

COMPARED = ("optim", "train.epochs", "train.steps", "data.train", "data.val")  # keys of FREE that change the training
IGNORED = ("train.seed", *(name for name in FREE if name not in COMPARED))  # keys that change only random choices
OF_ONE_RUN = ("draws", "interval_95", "chosen", "also")  # keys that the mean of several runs does not have
MOST_CHANGES = 6  # of recipes, in a line


class RunRecords(NamedTuple):
    """The records of a run, or of an encoder that has neither recipe nor seed."""

    name: str
    recipe: dict[str, Any]  # without the keys IGNORED
    seed: int | None
    records: list[Record]  # of its newest measured step


class RunGroup(NamedTuple):
    """Runs of one recipe, of any seeds."""

    name: str
    runs: list[RunRecords]


def show(places: list[Path], json_file: Path | None = None) -> None:
    """Print the tables of `places` and a description of each column, and write the records to `json_file`."""
    columns = read_columns(places)
    records = merge_columns(columns)
    if json_file:
        check_output(json_file, RECORDS)
        save(json_file, records)
    print_tables(records)
    Console().print(*describe_columns(columns), sep="\n", highlight=False, markup=False)


def read_columns(places: list[Path]) -> list[RunGroup]:
    """Return the runs in `places`, grouped by recipe. Raise `DataError` if a place holds no records."""
    by_name: dict[str, dict[Any, Record]] = {}
    for place in places:
        for record in _read_place(place):
            by_name.setdefault(subject_of(record)[0], {})[identity(record)] = record
    runs = [_build_run(name, list(records.values())) for name, records in by_name.items()]
    groups = group_by(runs, lambda run, group: bool(run.recipe) and run.recipe == group[0].recipe)
    names = [_common_name([run.name for run in group]) for group in groups]
    return [
        RunGroup(name if names.count(name) == 1 else group[0].name, group)
        for name, group in zip(names, groups, strict=True)
    ]


def _read_place(place: Path) -> list[Record]:
    """Return the records of a run folder under its present name, or the records of a file under their own names."""
    file = place / "evaluation.json" if place.is_dir() else place
    records = [r for r in read(file) if subject_of(r)[0]]
    if not records:
        what = "holds no records" if file.exists() else "does not exist"
        raise DataError(f"{file} {what}; `mvssl evaluate` writes records to a run folder, or to --json FILE")
    if place.is_dir():
        return [cast(Record, {**r, "subject": {**r.get("subject", {}), "name": str(place)}}) for r in records]
    return records


def _build_run(name: str, records: list[Record]) -> RunRecords:
    last = max(subject_of(r)[1] for r in records)
    newest = [r for r in records if subject_of(r)[1] == last]
    try:
        recipe = load_recipe(Path(name) / "recipe.yaml")
    except RecipeError:
        return RunRecords(name, {}, None, newest)
    tables = recipe.model_dump(mode="json")
    tables["objective"] = dict(enumerate(tables["objective"]))
    for path in IGNORED:
        table, _, key = path.rpartition(".")
        (tables[table] if table else tables).pop(key)
    return RunRecords(name, tables, recipe.train.seed, newest)


def _common_name(names: list[str]) -> str:
    """Return the common start of the names of runs: `cmc` for runs/cmc_0 and runs/cmc_1."""
    short = [Path(name).name for name in names]
    return os.path.commonprefix(short).rstrip("_-.=") if len(short) > 1 else short[0]  # noqa: RUF071 of letters


def merge_columns(columns: list[RunGroup]) -> list[Record]:
    """Return a record for each column and row: the mean over runs, their standard deviation, and each value.

    If every column is one run, the records do not change. Several columns show trained encoders only. Raw pixels do not
    depend on the seed, so they are shown once.
    """
    single_runs = all(len(column.runs) == 1 for column in columns)
    merged: list[Record] = []
    for column in columns:
        records = [r for run in column.runs for r in run.records]
        trained = any(r["encoder"] == "trained" for r in records)
        for group in group_by(records, _is_row_of_another_run):
            encoder = group[0]["encoder"]
            if encoder == "untrained" and trained and len(columns) > 1:
                continue
            record: Any = (
                {**group[0], "subject": {"name": column.name}} if single_runs else _average(group, column.name)
            )
            if encoder != PIXELS or not any(_is_same_row(record, other) for other in merged):
                merged.append(record)
    return merged


def _is_row_of_another_run(record: Record, group: list[Record]) -> bool:
    """Return whether a record has the row and the protocol of the group, and its run has no record in the group."""
    return _is_same_row(record, group[0]) and subject_of(record)[0] not in [subject_of(r)[0] for r in group]


def _is_same_row(one: Record, other: Record) -> bool:
    keys = (*ROW, "encoder")
    return [one.get(k) for k in keys] == [other.get(k) for k in keys] and not any(protocol_differences(one, other))


def _average(records: list[Record], name: str) -> Record:
    """Return the mean record of a row over runs. A single run and raw pixels have no standard deviation."""
    first = records[0]
    gains: dict[str, Gain] = {}
    for other in first.get("gain", {}):
        own = [gain[other]["difference"] for r in records if other in (gain := r.get("gain", {}))]
        gains[other] = {"difference": fmean(own), "standard_error": None, "standard_deviation": _deviation(own)}
    values = [r["value"] for r in records]
    merged: Any = {key: value for key, value in first.items() if key not in OF_ONE_RUN}
    return merged | {
        "subject": {"name": name},
        "value": fmean(values),
        "standard_error": None,
        "gain": gains,
        "standard_deviation": None if first["encoder"] == PIXELS else _deviation(values),
        "runs": {subject_of(r)[0]: r["value"] for r in records},
    }


def _deviation(values: list[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def describe_columns(columns: list[RunGroup]) -> list[str]:
    """Return a line for each column: its seeds, and how its recipe differs from that of the first column."""
    lines = []
    for name, runs in columns:
        seeds = [str(run.seed) for run in runs if run.seed is not None]
        parts = []
        if seeds:
            parts.append(f"{len(seeds)} runs, seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}")
            differences = table_differences("", columns[0].runs[0].recipe, runs[0].recipe)
            changes = [_describe_change(*difference) for difference in differences]
            parts += changes[:MOST_CHANGES]
            parts += [f"and {len(changes) - MOST_CHANGES} more"] * (len(changes) > MOST_CHANGES)
        lines.append(f"{name}: {'; '.join(parts) or 'not a run'}")
    return lines


def _describe_change(place: str, before: Any, now: Any) -> str:
    """Return a difference of two recipes in words: `optim.lr: 0.001 -> 0.0005`, or `with TABLE`, `without TABLE`."""
    if isinstance(now, dict) and before is None:
        return f"with {place}"
    if isinstance(before, dict) and now is None:
        return f"without {place}"
    return f"{place}: {'default' if before is None else before} -> {'default' if now is None else now}"
