"""What a run folder tells without its model: metrics, verdict, recipe, versions, how it ended.

in   a run folder, finished, stopped, or still in training
out  `Facts`; a file that is not there is empty, what is damaged is left out and told
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvssl.errors import DataError
from mvssl.evaluation.results.records import Record, is_record
from mvssl.files import parse_json
from mvssl.recipe import Recipe, load_recipe
from mvssl.runs.json_forms import is_file_of_a_run, is_value, step_of_line

MOST_NAMED = 5  # damaged lines of a file that are told by number
MOST_BYTES = 256 * 2**20  # of a file of lines: what is beyond is left out, and that is said


@dataclass(frozen=True)
class Series:
    """One metric over the run; equal lengths, steps rising, all finite."""

    steps: list[int]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]


@dataclass(frozen=True)
class Facts:
    """Everything that the files of a run say."""

    folder: Path
    recipe: Recipe
    metrics: dict[str, Series]
    records: list[Record]  # of evaluation.json, those that hold all that a table needs
    verdict: dict[str, Any]
    mispaired: list[dict[str, Any]]
    bad: list[dict[str, Any]]
    versions: dict[str, Any]
    exit: dict[str, Any] | None
    age: float  # seconds since the last line of metrics
    left_out: list[str]  # what of these files could not be read, and where

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return max((series.steps[-1] for series in self.metrics.values()), default=0)

    def under(self, prefix: str) -> dict[str, Series]:
        """The metrics `prefix/REST` by REST."""
        return {name[len(prefix) + 1 :]: s for name, s in self.metrics.items() if name.startswith(f"{prefix}/")}


def gather(folder: Path) -> Facts:
    """Read a run folder. Raises `DataError` where it is no run or its files cannot be opened, `RecipeError`."""
    if not (folder / "recipe.yaml").is_file():
        raise DataError(f"{folder} is no run folder: it has no recipe.yaml")
    file, left_out = folder / "metrics.jsonl", []
    return Facts(
        folder=folder,
        recipe=load_recipe(folder / "recipe.yaml"),
        metrics=series(read_lines(file, left_out)),
        records=_records(folder / "evaluation.json", left_out),
        verdict=_json(folder / "verdict.json", left_out),
        mispaired=read_lines(folder / "mispaired.jsonl", left_out),
        bad=read_lines(folder / "bad.jsonl", left_out),
        versions=_json(folder / "versions.json", left_out),
        exit=_json(folder / "exit.json", left_out) or None,
        age=time.time() - file.stat().st_mtime if file.exists() else math.inf,
        left_out=left_out,
    )


def read_lines(file: Path, left_out: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; lines that are none go to `left_out`. Raises `DataError`."""
    found, damaged = [], []
    for number, line in enumerate(_text(file, left_out).split("\n"), 1):
        value = parse_json(line)
        if isinstance(value, dict):
            found.append(value)
        elif line.strip():
            damaged.append(str(number))
    if damaged:
        more = f" and {len(damaged) - MOST_NAMED:,} more" if len(damaged) > MOST_NAMED else ""
        left_out.append(f"{file.name}: line {', '.join(damaged[:MOST_NAMED])}{more}, no JSON object")
    return found


def series(lines: list[dict[str, Any]]) -> dict[str, Series]:
    """Metric -> its values by step; of two lines about a step the later one holds."""
    collected: dict[str, dict[int, float]] = {}
    for step, name, value in _numbers(lines):
        collected.setdefault(name, {})[step] = value
    return {name: Series(sorted(found), [found[s] for s in sorted(found)]) for name, found in collected.items()}


def _numbers(lines: list[dict[str, Any]]) -> Iterator[tuple[int, str, float]]:
    for line in lines:
        step = step_of_line(line)
        if step is None:
            continue
        for name, value in line.items():
            if name != "step" and value is not None and is_value(value):
                yield step, name, float(value)


def _json(file: Path, left_out: list[str]) -> dict[str, Any]:
    """What a small file holds, or nothing and a word in `left_out`."""
    text = _text(file, left_out)
    value = parse_json(text)
    if is_file_of_a_run(file.name, value):
        return value
    if text:
        left_out.append(f"{file.name}: damaged, or of another version")
    return {}


def _records(file: Path, left_out: list[str]) -> list[Record]:
    text = _text(file, left_out)
    whole = parse_json(text)
    if not isinstance(whole, list):
        left_out += [f"{file.name}: damaged, no JSON list"] * bool(text)
        return []
    usable = [r for r in whole if is_record(r)]
    if len(usable) < len(whole):
        left_out.append(
            f"{file.name}: {len(whole) - len(usable)} of {len(whole)} records, which lack what a table needs"
        )
    return usable


def _text(file: Path, left_out: list[str]) -> str:
    try:
        with open(file, "rb") as opened:
            text = opened.read(MOST_BYTES).decode(errors="replace")
            if opened.read(1):
                left_out.append(f"{file.name}: all beyond {MOST_BYTES:,} bytes")
            return text
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def short_path(path: Any) -> str:
    """A shard's folder and name: what is above them is this machine's affair."""
    return "/".join(Path(str(path)).parts[-2:])
