"""Checks at chosen steps: held-out loss, bounds, kNN, rank and the diagnosis, without any effect on training.

in   a `MonitoredRun` at some step
out  values as in metrics.jsonl (`val/loss`, `val/bound/a-b`, `val/knn/VIEW`, ...), a `Diagnosis`, verdict.json
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mvssl.checkpoints import store
from mvssl.distributed import collectives
from mvssl.files import parse_json, write_file
from mvssl.monitoring import held_out
from mvssl.monitoring.diagnosis import Diagnosis, Evidence, diagnose
from mvssl.monitoring.feature_metrics import FeatureStatistics, feature_statistics, information_planes, knn_accuracy
from mvssl.monitoring.held_out import CleanFeatures, HeldOut, MonitoredRun
from mvssl.monitoring.mispaired import report_mispaired, warn_if_full
from mvssl.random import hash_name
from mvssl.runs.json_forms import is_value, step_of_line


class Check(NamedTuple):
    """The results of a check at a step."""

    step: int
    values: dict[str, float | None]
    diagnosis: Diagnosis
    held_out: dict[str, Any] | None  # what the step's checkpoint keeps: loss, and of which samples and schedule
    best: bool  # no kept checkpoint has a lower held-out loss
    lines: list[str]  # more lines for the terminal


class Checks:
    """The checks of a run; every process must take part in each."""

    def __init__(self, run: MonitoredRun, folder: Path, held: HeldOut | None):
        table = run.recipe.train
        self.run, self.folder, self.held = run, folder, held
        self.every = table.save_every if table.check_every is None else table.check_every
        # 1.5 warm-ups, and a tenth of the run: before that a small bound means nothing
        self.early = max(math.ceil(1.5 * run.recipe.optim.warmup), run.steps // 10, 1)
        self.first: Mapping[str, float | None] = {}

    def is_due(self, done: int) -> bool:
        """Return whether a check follows step number `done`."""
        return bool(self.every) and (done % self.every == 0 or done == self.run.steps)

    def is_owed(self, start: int) -> bool:
        """Return whether the check of the step at which a run starts is missing; read the check before step 1."""
        lines = collectives.run_on_main(lambda: _checked(self.folder / "metrics.jsonl"))
        self.first = lines.get(0, {})
        return self.is_due(start) and start not in lines

    def __call__(
        self, done: int, trained: dict[str, float | None], is_stopped: Callable[[], bool] = lambda: False
    ) -> Check | None:
        """Check after step number `done`, with the training metrics as last logged.

        None where a process was asked to stop meanwhile.
        """
        begin = time.perf_counter()
        measured = self._measure(is_stopped)
        if measured is None:
            return None
        metrics, features, bank = measured
        statistics = feature_statistics(features)
        prefix = "val/" if self.held else ""
        values = self._values(done, metrics, features, bank, statistics, prefix)
        diagnosis = diagnose(self._evidence(done, metrics, trained, statistics))
        record = self._held_out(metrics)
        best = collectives.run_on_main(lambda: record is not None and store.would_be_best(self.folder, record))
        if done == 0:
            self.first = metrics
        text = json.dumps(diagnosis.record(), indent=1) + "\n"
        collectives.run_on_main(lambda: warn_if_full(lambda: write_file(self.folder / "verdict.json", text)))
        lines: list[str] = []
        if self.run.tracker is not None and collectives.rank() == 0:
            values["mispaired"], lines = report_mispaired(
                self.run.tracker, self.folder, self.run.source, self.run.views, done, last=done == self.run.steps
            )
        values[f"{prefix}seconds"] = time.perf_counter() - begin
        return Check(done, values, diagnosis, record, best, lines)

    def _measure(
        self, is_stopped: Callable[[], bool]
    ) -> tuple[dict[str, float], CleanFeatures, CleanFeatures | None] | None:
        """Return metrics and features of held-out samples, and the features of the kNN bank; None if asked to stop."""
        run, held = self.run, self.held
        batch = run.recipe.data.batch_size
        if held is None:  # nothing is held out: training samples still show a collapse
            steps = max(1, min(run.recipe.train.check_samples, len(run.source)) // batch)
            features = held_out.encode_batches(run, run.source, batch, steps, is_stopped)
            return None if features is None else ({}, features, None)
        measured = held_out.measure(run, held, is_stopped)
        if measured is None or held.bank is None:
            return None if measured is None else (*measured, None)
        bank = held_out.encode_batches(run, held.bank, batch, held.bank_steps, is_stopped)
        return None if bank is None else (*measured, bank)

    def _values(
        self, done: int, metrics: dict[str, float], features: CleanFeatures, bank: CleanFeatures | None,
        statistics: dict[str, FeatureStatistics], prefix: str,
    ) -> dict[str, float | None]:  # fmt: skip
        """Return all values of the check by key in metrics.jsonl; None in place of what is not finite."""
        values = {f"{prefix}{name}": value for name, value in metrics.items() if not _is_beta(name)}
        values |= {f"{prefix}rank/{view}": found.rank for view, found in statistics.items()}
        values |= {f"{prefix}spread/{view}": found.spread for view, found in statistics.items()}
        if bank is not None:
            values |= {f"{prefix}knn/{view}": value for view, value in knn_accuracy(features, bank).items()}
        seed = hash_name("check", self.run.recipe.train.seed)
        for name, value in information_planes(self.run.model, features, bank, seed, max(done - 1, 0)):
            values[name if _is_beta(name) else f"{prefix}{name}"] = value
        return {name: value if math.isfinite(value) else None for name, value in values.items()}

    def _evidence(
        self,
        done: int,
        metrics: dict[str, float],
        trained: dict[str, float | None],
        found: dict[str, FeatureStatistics],
    ) -> Evidence:  # fmt: skip
        """Collect the numbers that the diagnosis reads."""
        held = metrics or {name: value for name, value in trained.items() if value is not None}
        held = held | {f"features of {view}": math.nan for view, shape in found.items() if math.isnan(shape.rank)}
        beta = [value for name, value in held.items() if _is_beta(name)]
        return Evidence(
            step=done, early=self.early, held=held, trained=trained, first=self.first,
            rank={view: shape.rank for view, shape in found.items()},
            spread={view: shape.spread for view, shape in found.items()},
            idle={view: shape.idle for view, shape in found.items()},
            width={view: shape.width for view, shape in found.items()},
            samples=max((shape.samples for shape in found.values()), default=0),
            batch=self.held.batch_size if self.held else self.run.recipe.data.batch_size,
            beta=max(beta, default=None),
        )  # fmt: skip

    def _held_out(self, metrics: dict[str, float]) -> dict[str, Any] | None:
        """Return the held-out loss and its setting: losses of other samples or another beta cannot be compared."""
        if self.held is None or not math.isfinite(metrics["loss"]):
            return None
        schedules = [f"{name}={value:g}" for name, value in metrics.items() if _is_beta(name)]
        return {"loss": metrics["loss"], "of": " ".join([self.held.name, *schedules])}


def _is_beta(name: str) -> bool:
    """Return whether a metric is MIB's schedule, which is a setting and not measured."""
    return name.rpartition("/")[2] == "beta"


def _checked(file: Path) -> dict[int, dict[str, float | None]]:
    """Return the lines of checks in a run's metrics, by step, without `val/` before their names."""
    found = {}
    if file.is_file():
        for text in file.read_text(errors="replace").splitlines():
            line = parse_json(text)
            step = step_of_line(line)
            if step is not None and ("val/loss" in line or "seconds" in line):
                found[step] = {name.removeprefix("val/"): value for name, value in line.items() if is_value(value)}
    return found
