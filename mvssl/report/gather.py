"""What a run folder tells without its model: metrics, verdict, recipe, versions, how it ended.

in   a run folder, finished, stopped, or still in training
out  `Facts`; a file that is not there is empty, a damaged line is left out and counted
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvssl.errors import DataError
from mvssl.recipe import Recipe, load_recipe

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
    damaged: int  # lines of metrics.jsonl that cannot be read
    verdict: dict[str, Any]
    mispaired: list[dict[str, Any]]
    bad: list[dict[str, Any]]
    versions: dict[str, Any]
    exit: dict[str, Any] | None
    age: float  # seconds since the last line of metrics

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
    lines, damaged = read_lines(folder / "metrics.jsonl")
    file = folder / "metrics.jsonl"
    return Facts(
        folder=folder,
        recipe=load_recipe(folder / "recipe.yaml"),
        metrics=series(lines),
        damaged=damaged,
        verdict=_json(folder / "verdict.json", dict),
        mispaired=read_lines(folder / "mispaired.jsonl")[0],
        bad=read_lines(folder / "bad.jsonl")[0],
        versions=_json(folder / "versions.json", dict),
        exit=_json(folder / "exit.json", dict) or None,
        age=time.time() - file.stat().st_mtime if file.exists() else math.inf,
    )


def read_lines(file: Path) -> tuple[list[dict[str, Any]], int]:
    """The objects of a JSON-lines file, and how many lines are damaged. Raises `DataError`."""
    found, damaged = [], 0
    for line in _text(file).splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            found.append(value)
        else:
            damaged += bool(line.strip())
    return found, damaged


def series(lines: list[dict[str, Any]]) -> dict[str, Series]:
    """Metric -> its values by step; of two lines about a step the later one holds."""
    collected: dict[str, dict[int, float]] = {}
    for step, name, value in _numbers(lines):
        collected.setdefault(name, {})[step] = value
    return {name: Series(sorted(found), [found[s] for s in sorted(found)]) for name, found in collected.items()}


def _numbers(lines: list[dict[str, Any]]) -> Iterator[tuple[int, str, float]]:
    for line in lines:
        step = line.get("step")
        if not isinstance(step, int) or isinstance(step, bool):
            continue
        for name, value in line.items():
            if name != "step" and _finite(value):
                yield step, name, float(value)


def _finite(value: Any) -> bool:
    """Whether this is a number that can be drawn; JSON knows integers beyond every float."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _json(file: Path, kind: type) -> Any:
    """What a small file holds, or an empty `kind`: a file that another process writes may be half there."""
    try:
        value = json.loads(_text(file) or "null")
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, kind) else kind()


def _text(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            return opened.read(MOST_BYTES).decode(errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def short_path(path: Any) -> str:
    """A shard's folder and name: what is above them is this machine's affair."""
    return "/".join(Path(str(path)).parts[-2:])
