"""The metrics of a run over its steps.

in   a run folder, finished or still in training
out  a `Series` for each key of metrics.jsonl; damaged lines are left out and reported in a list
"""

from pathlib import Path
from typing import Any, NamedTuple

from mvssl.runs.line_files import is_plottable, read_json_lines, step_of_line


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


def read_metrics(folder: Path, damage: list[str]) -> Metrics:
    """Return the series of a run folder by metric key. Raise `DataError` if metrics.jsonl cannot be opened."""
    return build_series(read_json_lines(folder / "metrics.jsonl", damage))


def build_series(lines: list[dict[str, Any]]) -> Metrics:
    """Return the series in lines of metrics by key. If two lines have the same step, the later line counts."""
    values: dict[str, dict[int, float]] = {}
    for line in lines:
        step = step_of_line(line)
        if step is not None:
            for key, value in line.items():
                if key != "step" and value is not None and is_plottable(value):
                    values.setdefault(key, {})[step] = float(value)
    return {key: Series(sorted(of), [of[step] for step in sorted(of)]) for key, of in values.items()}
