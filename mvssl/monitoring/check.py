"""Checks at chosen steps: held-out loss, bounds, kNN, rank and the diagnosis, without any effect on training.

in   a `MonitoredRun` at some step
out  values as in metrics.jsonl (`val/loss`, `val/bound/a-b`, `val/knn/VIEW`, ...), a `Diagnosis`, verdict.json
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from mvssl.checkpoints import store
from mvssl.distributed import collectives
from mvssl.files import parse_json, write_file
from mvssl.monitoring import held_out
from mvssl.monitoring.diagnosis import Diagnosis, Evidence, diagnose, is_beta
from mvssl.monitoring.feature_metrics import compute_statistics, information_planes, knn_accuracy
from mvssl.monitoring.held_out import CleanFeatures, FirstBatches, HeldOut, MonitoredRun, never_stopped
from mvssl.monitoring.outliers import tracked_outliers, write_errors_as_warnings, write_outliers
from mvssl.random import hash_name
from mvssl.runs.line_files import is_plottable, step_of_line


class CheckResult(NamedTuple):
    """The results of a check."""

    values: dict[str, float | None]
    diagnosis: Diagnosis
    held_out: store.HeldOutLoss | None  # what the step's checkpoint keeps: loss, and of which samples and schedule
    lines: list[str]  # more lines for the terminal


class Checker:
    """The checks of a run; every process must take part in each."""

    def __init__(self, run: MonitoredRun, folder: Path, held: HeldOut | None):
        table = run.recipe.train
        self.run, self.folder, self.held = run, folder, held
        self.every = table.save_every if table.check_every is None else table.check_every
        # 1.5 warm-ups and a tenth of the run: an earlier small bound is no finding
        self.early = max(math.ceil(1.5 * run.recipe.optim.warmup), run.steps // 10, 1)
        self.first: Mapping[str, float | None] = {}  # metrics before the first step

    def is_due(self, done: int) -> bool:
        """Return whether a check follows step number `done`."""
        return bool(self.every) and (done % self.every == 0 or done == self.run.steps)

    def is_missing(self, start: int) -> bool:
        """Return whether the check of the step at which a run starts is missing; read the check before step 1."""
        lines = collectives.run_on_main(lambda: read_checks(self.folder / "metrics.jsonl"))
        self.first = lines.get(0, {})
        return self.is_due(start) and start not in lines

    def __call__(
        self, done: int, trained: dict[str, float | None], is_stopped: Callable[[], bool] = never_stopped
    ) -> CheckResult | None:
        """Check after step number `done`, with the training metrics as last logged.

        None if a process was asked to stop meanwhile.
        """
        begin, run, prefix = time.perf_counter(), self.run, "val/" if self.held else ""
        measured = self._measure(is_stopped)
        if measured is None:
            return None
        metrics, features, bank = measured
        if done == 0:
            self.first = metrics
        statistics = compute_statistics(features)
        diagnosis = diagnose(
            Evidence(
                step=done, early=self.early, trained=trained, first=self.first, features=statistics,
                held=metrics or {name: value for name, value in trained.items() if value is not None},
                batch=self.held.batch_size if self.held else run.recipe.data.batch_size,
            )
        )  # fmt: skip
        values = {name: value for name, value in metrics.items() if not is_beta(name)}
        values |= {f"rank/{view}": shape.rank for view, shape in statistics.items()}
        values |= {f"spread/{view}": shape.spread for view, shape in statistics.items()}
        values |= {f"knn/{view}": value for view, value in knn_accuracy(features, bank).items()}
        values |= information_planes(run.model, features, bank, hash_name("check", run.recipe.train.seed), done)
        logged: dict[str, float | None] = {
            name if is_beta(name) else f"{prefix}{name}": value if math.isfinite(value) else None
            for name, value in values.items()
        }
        record = self._record(metrics)
        collectives.run_on_main(lambda: self._write(diagnosis))
        lines: list[str] = []
        if run.tracker is not None and collectives.rank() == 0:
            outliers = tracked_outliers(run.tracker)
            write_outliers(self.folder, outliers, run.source, done)
            logged["mispaired"] = None if outliers.why else len(outliers.listed)
            lines = [str(outliers)] if done == run.steps or outliers.listed else []
        logged[f"{prefix}seconds"] = time.perf_counter() - begin
        return CheckResult(logged, diagnosis, record, lines)

    def _measure(
        self, is_stopped: Callable[[], bool]
    ) -> tuple[dict[str, float], CleanFeatures, CleanFeatures | None] | None:
        """Return metrics and features of held-out samples, and the features of the kNN bank; None if asked to stop."""
        run, held, batch = self.run, self.held, self.run.recipe.data.batch_size
        if held is None:  # nothing is held out: training samples still show a collapse
            steps = max(1, min(run.recipe.train.check_samples, len(run.source)) // batch)
            features = held_out.encode_batches(run, FirstBatches(run.source, batch, steps), is_stopped)
            return None if features is None else ({}, features, None)
        measured = held_out.measure(run, held, is_stopped)
        if measured is None or held.bank is None:
            return None if measured is None else (*measured, None)
        bank = held_out.encode_batches(run, held.bank, is_stopped)
        return None if bank is None else (*measured, bank)

    def _record(self, metrics: dict[str, float]) -> store.HeldOutLoss | None:
        """Return the held-out loss and its setting: losses of other samples or another beta cannot be compared."""
        if self.held is None or not math.isfinite(metrics["loss"]):
            return None
        schedules = [f"{name}={value:g}" for name, value in metrics.items() if is_beta(name)]
        return store.HeldOutLoss(loss=metrics["loss"], of=" ".join([self.held.name, *schedules]))

    def _write(self, diagnosis: Diagnosis) -> None:
        with write_errors_as_warnings():
            write_file(self.folder / "verdict.json", json.dumps(diagnosis.record(), indent=1) + "\n")


def read_checks(file: Path) -> dict[int, dict[str, float | None]]:
    """Return the lines of checks in a run's metrics, by step, without `val/` before their names."""
    found = {}
    if file.is_file():
        for text in file.read_text(errors="replace").splitlines():
            line = parse_json(text)
            step = step_of_line(line)
            if step is not None and ("val/loss" in line or "seconds" in line):
                found[step] = {name.removeprefix("val/"): value for name, value in line.items() if is_plottable(value)}
    return found
