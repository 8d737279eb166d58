"""Compare runs. Runs that differ only by seed become one column, with their mean and standard deviation.

in   run folders that were evaluated, or files of records
out  records whose value is a mean over runs, for `tables`; a description of how the recipes of the columns differ
"""

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

from rich.console import Console

from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.results.records import (
    PIXELS,
    ROW,
    Gain,
    Record,
    identity,
    protocol_differences,
    read,
    save,
    table_differences,
)
from mvssl.evaluation.results.tables import tables, with_lines
from mvssl.files import RECORDS, check_output
from mvssl.recipe import load_recipe
from mvssl.runs.folder import FREE

COMPARED = ("optim", "train.epochs", "train.steps", "data.train", "data.val")  # keys of FREE that change the training
IGNORED = ("train.seed", *(name for name in FREE if name not in COMPARED))  # keys that change only random choices
OF_ONE_RUN = ("draws", "interval_95", "chosen", "also")  # keys that the mean of several runs does not have
MOST_CHANGES = 6  # of recipes, in a line


@dataclass(frozen=True)
class Run:
    """The records of a run, or of an encoder that has neither recipe nor seed."""

    name: str
    recipe: dict[str, Any]  # without the keys IGNORED
    seed: int | None
    records: list[Record]  # of its newest measured step


@dataclass(frozen=True)
class Column:
    """Runs of one recipe, of any seeds."""

    name: str
    runs: list[Run]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.runs[0].recipe


def show(places: list[Path], json_file: Path | None = None) -> None:
    """Print the tables of `places` and a description of each column, and write the records to `json_file`."""
    columns = read_columns(places)
    records = merge_columns(columns)
    if json_file:
        check_output(json_file, RECORDS)
        save(json_file, records)
    console = Console()
    for table in tables(records, console.width):
        console.print(with_lines(table), "", sep="\n", highlight=False)
    console.print(*describe_columns(columns), sep="\n", highlight=False, markup=False)


def read_columns(places: list[Path]) -> list[Column]:
    """Return the runs in `places`, grouped by recipe. Raise `DataError` if a place holds no records."""
    by_name: dict[str, dict[Any, Record]] = {}
    for place in places:
        for record in _read_place(place):
            by_name.setdefault(_name(record), {})[identity(record)] = record
    groups: list[list[Run]] = []
    for run in (_build_run(name, list(records.values())) for name, records in by_name.items()):
        group = next((group for group in groups if run.recipe and group[0].recipe == run.recipe), None)
        if group is None:
            groups.append(group := [])
        group.append(run)
    names = [_common_name([run.name for run in group]) for group in groups]
    return [
        Column(name if names.count(name) == 1 else group[0].name, group)
        for name, group in zip(names, groups, strict=True)
    ]


def merge_columns(columns: list[Column]) -> list[Record]:
    """Return a record for each column and row: the mean over runs, their standard deviation, and each value.

    If every column is one run, the records do not change. Several columns show trained encoders only. Raw pixels do not
    depend on the seed, so they are shown once.
    """
    single_runs = all(len(column.runs) == 1 for column in columns)
    merged: list[Record] = []
    for column in columns:
        records = [r for run in column.runs for r in run.records]
        trained = any(r["encoder"] == "trained" for r in records)
        for group in _group_runs(records):
            encoder = group[0]["encoder"]
            if encoder == "untrained" and trained and len(columns) > 1:
                continue
            record = _rename(group[0], column.name) if single_runs else _mean(group, column.name)
            if encoder != PIXELS or not any(_same_row(record, other) for other in merged):
                merged.append(record)
    return merged


def describe_columns(columns: list[Column]) -> list[str]:
    """Return a line for each column: its seeds, and how its recipe differs from that of the first column."""
    return [f"{column.name}: {'; '.join(_describe(column, columns[0])) or 'not a run'}" for column in columns]


def _describe(column: Column, first: Column) -> list[str]:
    seeds = [str(run.seed) for run in column.runs if run.seed is not None]
    if not seeds:
        return []
    changes = [_change(*change) for change in table_differences("", first.recipe, column.recipe)]
    runs = f"{len(seeds)} runs, seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
    more = [f"and {len(changes) - MOST_CHANGES} more"] if len(changes) > MOST_CHANGES else []
    return [runs, *changes[:MOST_CHANGES], *more]


def _change(place: str, before: Any, now: Any) -> str:
    """Return a difference of two recipes in words: `optim.lr: 0.001 -> 0.0005`, or `with TABLE`, `without TABLE`."""
    if isinstance(now, dict) and before is None:
        return f"with {place}"
    if isinstance(before, dict) and now is None:
        return f"without {place}"
    return f"{place}: {'default' if before is None else before} -> {'default' if now is None else now}"


def _read_place(place: Path) -> list[Record]:
    """Return the records of a run folder under its present name, or the records of a file under their own names."""
    file = place / "evaluation.json" if place.is_dir() else place
    records = [r for r in read(file) if r.get("subject", {}).get("name")]
    if place.is_dir():
        records = [_rename(r, str(place), keep=True) for r in records]
    if not records:
        what = "holds no records" if file.exists() else "does not exist"
        raise DataError(f"{file} {what}; `mvssl evaluate` writes records to a run folder, or to --json FILE")
    return records


def _build_run(name: str, records: list[Record]) -> Run:
    last = max(map(_step, records))
    newest = [r for r in records if _step(r) == last]
    try:
        recipe = load_recipe(Path(name) / "recipe.yaml")
    except RecipeError:
        return Run(name, {}, None, newest)
    tables = recipe.model_dump(mode="json")
    tables["objective"] = dict(enumerate(tables["objective"]))
    for path in IGNORED:
        table, _, key = path.rpartition(".")
        (tables[table] if table else tables).pop(key)
    return Run(name, tables, recipe.train.seed, newest)


def _step(record: Record) -> int:
    return record.get("subject", {}).get("step") or 0


def _name(record: Record) -> str:
    return record.get("subject", {}).get("name", "")


def _rename(record: Record, name: str, keep: bool = False) -> Record:
    """Return the record under another name; `keep` keeps the other keys of its subject."""
    subject = {**record.get("subject", {}), "name": name} if keep else {"name": name}
    return cast(Record, {**record, "subject": subject})


def _common_name(names: list[str]) -> str:
    """Return the common start of the names of runs: `cmc` for runs/cmc_0 and runs/cmc_1."""
    short = [Path(name).name for name in names]
    return os.path.commonprefix(short).rstrip("_-.=") if len(short) > 1 else short[0]  # noqa: RUF071 of letters


def _group_runs(records: list[Record]) -> list[list[Record]]:
    """Group records of one row and one protocol; a group has at most one record of each run."""
    groups: list[list[Record]] = []
    for record in records:
        group = next((g for g in groups if _same_row(g[0], record) and _name(record) not in map(_name, g)), None)
        if group is None:
            groups.append(group := [])
        group.append(record)
    return groups


def _same_row(one: Record, other: Record) -> bool:
    keys = (*ROW, "encoder")
    return [one.get(k) for k in keys] == [other.get(k) for k in keys] and not any(protocol_differences(one, other))


def _mean(records: list[Record], name: str) -> Record:
    """Return the mean record of a row over runs. A single run and raw pixels have no standard deviation."""
    first = records[0]
    mean, deviation = _moments([r["value"] for r in records])
    gains: dict[str, Gain] = {}
    for other in first.get("gain", {}):
        own = [gain[other]["difference"] for r in records if other in (gain := r.get("gain", {}))]
        difference, of_gains = _moments(own)
        gains[other] = {"difference": difference, "standard_error": None, "standard_deviation": of_gains}
    merged: dict[str, Any] = {key: value for key, value in first.items() if key not in OF_ONE_RUN}
    merged |= {"subject": {"name": name}, "value": mean, "standard_error": None, "gain": gains}
    merged["standard_deviation"] = None if first["encoder"] == PIXELS else deviation
    merged["runs"] = {_name(r): r["value"] for r in records}
    return cast(Record, merged)


def _moments(values: list[float]) -> tuple[float, float | None]:
    """Return mean and standard deviation; the deviation of one value is None."""
    return fmean(values), stdev(values) if len(values) > 1 else None
