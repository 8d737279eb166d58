"""The files of a run folder as typed facts; no checkpoint and no shard is opened.

in   a run folder, finished, stopped, or still in training
out  `RunFiles`; a missing file gives an empty member, damaged content is left out and reported
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvssl.checkpoints.state import JsonForm
from mvssl.errors import DataError
from mvssl.evaluation.results.records import Record, is_record
from mvssl.files import parse_json
from mvssl.monitoring.diagnosis import VerdictForm
from mvssl.recipe import Recipe, load_recipe
from mvssl.runs.exit_record import ExitRecord
from mvssl.runs.line_files import read_json_lines, read_text
from mvssl.runs.metric_series import Metrics, read_metrics
from mvssl.runs.versions import Versions


@dataclass(frozen=True)
class RunFiles:
    """The content of a run's files."""

    folder: Path
    recipe: Recipe
    metrics: Metrics
    records: list[Record]  # of evaluation.json, those that have all that a table needs
    diagnosis: dict[str, Any]  # verdict.json
    mispaired: list[dict[str, Any]]
    bad: list[dict[str, Any]]
    versions: dict[str, str]
    exit: dict[str, Any] | None
    age: float  # seconds since the last line of metrics.jsonl; infinite if there is none
    left_out: list[str]  # which parts of these files could not be read

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def step(self) -> int:
        """The last step with a metric."""
        return max((series.steps[-1] for series in self.metrics.values()), default=0)


def read_run_files(folder: Path) -> RunFiles:
    """Read a run folder. Raises `DataError` if it is no run or a file cannot be opened, and `RecipeError`."""
    if not (folder / "recipe.yaml").is_file():
        raise DataError(f"{folder} is no run folder: it has no recipe.yaml")
    metrics_file, left_out = folder / "metrics.jsonl", []
    return RunFiles(
        folder=folder,
        recipe=load_recipe(folder / "recipe.yaml"),
        metrics=read_metrics(folder, left_out),
        records=_read_records(folder / "evaluation.json", left_out),
        diagnosis=_read_object(folder / "verdict.json", VerdictForm, left_out),
        mispaired=read_json_lines(folder / "mispaired.jsonl", left_out),
        bad=read_json_lines(folder / "bad.jsonl", left_out),
        versions=_read_object(folder / "versions.json", Versions, left_out),
        exit=_read_object(folder / "exit.json", ExitRecord, left_out) or None,
        age=time.time() - metrics_file.stat().st_mtime if metrics_file.exists() else math.inf,
        left_out=left_out,
    )


def short_path(path: Any) -> str:
    """Return the folder and name of a shard, without the path of the machine."""
    return "/".join(Path(str(path)).parts[-2:])


def _read_object(file: Path, form: type[JsonForm], left_out: list[str]) -> dict[str, Any]:
    """Return the content of a small file, or nothing if it is damaged."""
    text = read_text(file, left_out)
    value = parse_json(text)
    if form.parse(value):
        return value
    if text:
        left_out.append(f"{file.name}: damaged, or of another version")
    return {}


def _read_records(file: Path, left_out: list[str]) -> list[Record]:
    text = read_text(file, left_out)
    records = parse_json(text)
    if not isinstance(records, list):
        left_out += [f"{file.name}: damaged, no JSON list"] * bool(text)
        return []
    usable = [record for record in records if is_record(record)]
    if len(usable) < len(records):
        missing = len(records) - len(usable)
        left_out.append(f"{file.name}: {missing} of {len(records)} records, which lack what a table needs")
    return usable
