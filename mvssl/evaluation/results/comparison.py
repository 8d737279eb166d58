"""Several runs side by side: those that differ by seed alone become one column, with their mean and spread.

in   run folders that were evaluated, or files of records
out  records whose value is a mean over runs, for `tables`; and in what the columns' recipes differ, in words
"""

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from rich.console import Console

from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.results.records import WHAT, Record, apart, differences, identity, read, save
from mvssl.evaluation.results.tables import PIXELS, tables, with_lines
from mvssl.files import RECORDS, check_output
from mvssl.recipe import load_recipe
from mvssl.runs.folder import FREE

TELLING = ("optim", "train.epochs", "train.steps", "data.train", "data.val")  # of what a run may change on its way
SILENT = ("train.seed", *(name for name in FREE if name not in TELLING))  # no other training, but for its luck
OF_ONE = ("draws", "interval_95", "chosen", "also")  # of a record, what a mean over runs does not have
MOST_TOLD = 6  # differences in a line


@dataclass(frozen=True)
class Run:
    """What was measured of a run, or of what is no run and has neither recipe nor seed."""

    name: str
    recipe: dict[str, Any]  # without what makes no other training
    seed: int | None
    records: list[Record]  # of the newest step that was measured


@dataclass(frozen=True)
class Column:
    """Runs of one recipe, whatever their seeds."""

    name: str
    runs: list[Run]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.runs[0].recipe


def show(places: list[Path], json_file: Path | None = None) -> None:
    """Print the tables of `places` and what each column is; `json_file` gets the records. Raises `DataError`."""
    found = columns(places)
    records = merged(found)
    if json_file:
        check_output(json_file, RECORDS)
        save(json_file, records)
    console = Console()
    for table in tables(records, console.width):
        console.print(with_lines(table), "", sep="\n", highlight=False)
    console.print(*legend(found), sep="\n", highlight=False, markup=False)


def columns(places: list[Path]) -> list[Column]:
    """The runs whose records `places` hold, those of one recipe together. Raises `DataError` where there are none."""
    found: dict[str, dict[Any, Record]] = {}
    for place in places:
        for record in _records(place):
            found.setdefault(_name(record), {})[identity(record)] = record
    groups: list[list[Run]] = []
    for run in (_run(name, list(records.values())) for name, records in found.items()):
        group = next((group for group in groups if run.recipe and group[0].recipe == run.recipe), None)
        if group is None:
            groups.append(group := [])
        group.append(run)
    names = [_common([run.name for run in group]) for group in groups]
    return [
        Column(name if names.count(name) == 1 else group[0].name, group)
        for name, group in zip(names, groups, strict=True)
    ]


def merged(columns: list[Column]) -> list[Record]:
    """A record per column and row: `value` the mean over runs, `standard_deviation` theirs, `runs` each.

    Where no column has several runs the records stay as they are. With several columns the trained encoders
    stand without the untrained; raw pixels, which no seed changes, stand once.
    """
    alone = all(len(column.runs) == 1 for column in columns)
    made: list[Record] = []
    for column in columns:
        records = [r for run in column.runs for r in run.records]
        trained = any(r["encoder"] == "trained" for r in records)
        for bundle in _bundles(records):
            encoder = bundle[0]["encoder"]
            if encoder == "untrained" and trained and len(columns) > 1:
                continue
            one = _mean(bundle, column.name) if not alone else {**bundle[0], "subject": {"name": column.name}}
            if encoder != PIXELS or not any(_same(one, other) for other in made):
                made.append(one)
    return made


def legend(columns: list[Column]) -> list[str]:
    """A line per column: its runs' seeds, and where its recipe is another than the first column's."""
    return [f"{column.name}: {'; '.join(_told(column, columns[0])) or 'not a run'}" for column in columns]


def _told(column: Column, first: Column) -> list[str]:
    seeds = [str(run.seed) for run in column.runs if run.seed is not None]
    if not seeds:
        return []
    others = [_change(*change) for change in apart("", first.recipe, column.recipe)]
    runs = f"{len(seeds)} runs, seeds {', '.join(seeds)}" if len(seeds) > 1 else f"seed {seeds[0]}"
    return [runs, *others[:MOST_TOLD], *([f"and {len(others) - MOST_TOLD} more"] if len(others) > MOST_TOLD else [])]


def _change(place: str, before: Any, now: Any) -> str:
    """A difference of two recipes, `optim.lr: 0.001 -> 0.0005`; of a table that only one has, its name."""
    if isinstance(now, dict) and before is None:
        return f"with {place}"
    if isinstance(before, dict) and now is None:
        return f"without {place}"
    return f"{place}: {'default' if before is None else before} -> {'default' if now is None else now}"


def _records(place: Path) -> list[Record]:
    """What is kept in a run's folder, under the name that the folder has now, or in a file under the names there."""
    file = place / "evaluation.json" if place.is_dir() else place
    found = [r for r in read(file) if r.get("subject", {}).get("name")]
    if place.is_dir():
        found = [{**r, "subject": {**r["subject"], "name": str(place)}} for r in found]
    if not found:
        what = "holds no records" if file.exists() else "is not there"
        raise DataError(f"{file} {what}; `mvssl evaluate` writes them to a run's folder, or with --json")
    return found


def _run(name: str, records: list[Record]) -> Run:
    last = max(_step(r) for r in records)
    newest = [r for r in records if _step(r) == last]
    try:
        recipe = load_recipe(Path(name) / "recipe.yaml")
    except RecipeError:
        return Run(name, {}, None, newest)
    whole = recipe.model_dump(mode="json")
    whole["objective"] = dict(enumerate(whole["objective"]))
    for path in SILENT:
        table, _, key = path.rpartition(".")
        (whole[table] if table else whole).pop(key)
    return Run(name, whole, recipe.train.seed, newest)


def _step(record: Record) -> int:
    return record["subject"].get("step") or 0


def _common(names: list[str]) -> str:
    """What the names of runs have in common: `cmc` of runs/cmc_0, runs/cmc_1, runs/cmc_2."""
    short = [Path(name).name for name in names]
    return os.path.commonprefix(short).rstrip("_-.=") if len(short) > 1 else short[0]  # noqa: RUF071 of letters


def _bundles(records: list[Record]) -> list[list[Record]]:
    """Records of one row and one protocol, a run giving one to each."""
    bundles: list[list[Record]] = []
    for record in records:
        bundle = next((b for b in bundles if _same(b[0], record) and _name(record) not in map(_name, b)), None)
        if bundle is None:
            bundles.append(bundle := [])
        bundle.append(record)
    return bundles


def _name(record: Record) -> str:
    return record["subject"]["name"]


def _same(one: Record, other: Record) -> bool:
    what = (*WHAT, "encoder")
    return [one.get(k) for k in what] == [other.get(k) for k in what] and not any(differences(one, other))


def _mean(records: list[Record], name: str) -> Record:
    """The records of a row over runs as one; a single run has no spread."""
    mean, spread = _moments([r["value"] for r in records])
    spread = None if records[0]["encoder"] == PIXELS else spread
    made = {key: value for key, value in records[0].items() if key not in OF_ONE}
    made |= {"subject": {"name": name}, "value": mean, "standard_error": None, "gain": {}}
    made["standard_deviation"] = spread
    made["runs"] = {_name(r): r["value"] for r in records}
    for other in records[0].get("gain", {}):
        mean, spread = _moments([r["gain"][other]["difference"] for r in records if other in r["gain"]])
        made["gain"][other] = {"difference": mean, "standard_error": None, "standard_deviation": spread}
    return made


def _moments(values: list[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation of the values among each other, or None of one."""
    return fmean(values), stdev(values) if len(values) > 1 else None
