"""The metrics of a run over its steps, and other files of JSON lines.

in   a run folder, finished or still in training
out  a `Series` for each key of metrics.jsonl; damaged lines are left out and reported in a list
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mvssl.errors import DataError
from mvssl.files import parse_json
from mvssl.runs.line_files import is_value, step_of_line

MAX_LINES_NAMED = 5  # damaged lines of a file whose numbers are reported
MAX_BYTES = 256 * 2**20  # of a file; the rest is left out


class Series(NamedTuple):
    """The finite values of one metric; `steps` increase, one for each value."""

    steps: list[int]
    values: list[float]

    @property
    def last(self) -> float:
        return self.values[-1]

    def by_step(self) -> dict[int, float]:
        return dict(zip(self.steps, self.values, strict=True))


Metrics = dict[str, Series]  # by key, see `mvssl.objectives.metric_names`


def read_text(file: Path, damage: list[str]) -> str:
    """Return the text of a file, or "" if there is none; a file over the limit is cut. Raise `DataError`."""
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_BYTES).decode(errors="replace")
            if opened.read(1):
                damage.append(f"{file.name}: everything after {MAX_BYTES:,} bytes")
            return text
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def read_json_lines(file: Path, damage: list[str]) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; other lines are reported in `damage`. Raise `DataError`."""
    objects, damaged = [], []
    for number, line in enumerate(read_text(file, damage).split("\n"), 1):
        value = parse_json(line)
        if isinstance(value, dict):
            objects.append(value)
        elif line.strip():
            damaged.append(str(number))
    if damaged:
        more = f" and {len(damaged) - MAX_LINES_NAMED:,} more" if len(damaged) > MAX_LINES_NAMED else ""
        damage.append(f"{file.name}: line {', '.join(damaged[:MAX_LINES_NAMED])}{more}, no JSON object")
    return objects


def read_metrics(folder: Path, damage: list[str]) -> Metrics:
    """Return the series of a run folder by metric key. Raise `DataError` if metrics.jsonl cannot be opened."""
    return build_series(read_json_lines(folder / "metrics.jsonl", damage))


def build_series(lines: list[dict[str, Any]]) -> Metrics:
    """Return the series in lines of metrics by key. If two lines have the same step, the later line counts."""
    values: dict[str, dict[int, float]] = {}
    for step, key, value in _finite_values(lines):
        values.setdefault(key, {})[step] = value
    return {key: Series(sorted(of), [of[step] for step in sorted(of)]) for key, of in values.items()}


def _finite_values(lines: list[dict[str, Any]]) -> Iterator[tuple[int, str, float]]:
    for line in lines:
        step = step_of_line(line)
        if step is None:
            continue
        for key, value in line.items():
            if key != "step" and value is not None and is_value(value):
                yield step, key, float(value)
