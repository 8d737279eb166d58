"""Checks at chosen steps: held-out loss, bounds, kNN, rank and the verdict, without a trace in what is trained.

in   a `Trainer` at some step
out  values as metrics.jsonl holds them (`val/loss`, `val/bound/a-b`, `val/knn/VIEW`, ...), a `Verdict`, verdict.json
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mvssl.checkpoints import store
from mvssl.distributed import collectives
from mvssl.errors import OutputError, StorageError
from mvssl.files import parse_json, write_file
from mvssl.monitoring import held_out as heldout
from mvssl.monitoring import mispaired
from mvssl.monitoring.diagnosis import Evidence, Verdict, judge
from mvssl.monitoring.feature_metrics import Shape, knn, planes, shapes
from mvssl.monitoring.held_out import HeldOut, Seen
from mvssl.random import hash_name
from mvssl.runs.json_forms import is_value, step_of_line
from mvssl.text import warn
from mvssl.training.step import Trainer


class Check(NamedTuple):
    """What was found at a step."""

    step: int
    values: dict[str, float | None]
    verdict: Verdict
    held_out: dict[str, Any] | None  # what the step's checkpoint keeps: loss, and of which samples and schedule
    best: bool  # no kept checkpoint has a lower held-out loss
    told: list[str]  # further lines for the terminal


class Checks:
    """The checks of a run; every process must take part in each."""

    def __init__(self, trainer: Trainer, folder: Path, held: HeldOut | None):
        table = trainer.recipe.train
        self.trainer, self.folder, self.held = trainer, folder, held
        self.every = table.save_every if table.check_every is None else table.check_every
        # half a warm-up more than the warm-up, and a tenth of the run: before that a small bound means nothing
        self.early = max(math.ceil(1.5 * trainer.recipe.optim.warmup), trainer.steps // 10, 1)
        self.first: Mapping[str, float | None] = {}

    def due(self, done: int) -> bool:
        """Whether a check follows step number `done`."""
        return bool(self.every) and (done % self.every == 0 or done == self.trainer.steps)

    def owed(self, start: int) -> bool:
        """Whether the check of the step that a run starts from was never made; recalls the check before step 1."""
        lines = collectives.run_on_main(lambda: _checked(self.folder / "metrics.jsonl"))
        self.first = lines.get(0, {})
        return self.due(start) and start not in lines

    def __call__(
        self, done: int, trained: dict[str, float | None], stopped: Callable[[], bool] = lambda: False
    ) -> Check | None:
        """Check after step number `done`, with the training metrics as last logged.

        None where a process was asked to stop meanwhile.
        """
        begin = time.perf_counter()
        looked = self._look(stopped)
        if looked is None:
            return None
        metrics, seen, bank = looked
        before = "val/" if self.held else ""
        found = shapes(seen)
        values: dict[str, float | None] = {
            f"{before}{name}": value for name, value in metrics.items() if name.rpartition("/")[2] != "beta"
        }
        for name in ("rank", "spread"):
            values |= {f"{before}{name}/{view}": getattr(shape, name) for view, shape in found.items()}
        if bank is not None:
            values |= {f"{before}knn/{view}": value for view, value in knn(seen, bank).items()}
        seed = hash_name("check", self.trainer.recipe.train.seed)
        for name, value in planes(self.trainer.model, seen, bank, seed, max(done - 1, 0)):
            values[name if name.rpartition("/")[2] == "beta" else f"{before}{name}"] = value
        verdict = judge(self._evidence(done, metrics, trained, found))
        values = {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
        held_out = self._held_out(metrics)
        best = collectives.run_on_main(lambda: held_out is not None and store.would_be_best(self.folder, held_out))
        if done == 0:
            self.first = metrics
        text = json.dumps(verdict.record(), indent=1) + "\n"
        collectives.run_on_main(lambda: _unless_full(lambda: write_file(self.folder / "verdict.json", text)))
        told = self._mispaired(done, values) if self.trainer.matching else []
        values[f"{before}seconds"] = time.perf_counter() - begin
        return Check(done, values, verdict, held_out, best, told)

    def _look(self, stopped: Callable[[], bool]) -> tuple[dict[str, float], Seen, Seen | None] | None:
        trainer, held = self.trainer, self.held
        if held is None:  # nothing is held out: the training samples tell at least of collapse
            batch = trainer.recipe.data.batch_size
            steps = max(1, min(trainer.recipe.train.check_samples, len(trainer.source)) // batch)
            seen = heldout.features(trainer, trainer.source, batch, steps, stopped)
            return None if seen is None else ({}, seen, None)
        measured = heldout.measure(trainer, held, stopped)
        if measured is None or held.bank is None:
            return None if measured is None else (*measured, None)
        bank = heldout.features(trainer, held.bank, trainer.recipe.data.batch_size, held.bank_steps, stopped)
        return None if bank is None else (*measured, bank)

    def _evidence(
        self, done: int, metrics: dict[str, float], trained: dict[str, float | None], found: dict[str, Shape]
    ) -> Evidence:
        held = metrics or {name: value for name, value in trained.items() if value is not None}
        held = held | {f"features of {view}": math.nan for view, shape in found.items() if math.isnan(shape.rank)}
        beta = [value for name, value in held.items() if name.rpartition("/")[2] == "beta"]
        return Evidence(
            step=done, early=self.early, held=held, trained=trained, first=self.first,
            rank={view: shape.rank for view, shape in found.items()},
            spread={view: shape.spread for view, shape in found.items()},
            idle={view: shape.idle for view, shape in found.items()},
            width={view: shape.width for view, shape in found.items()},
            samples=max((shape.samples for shape in found.values()), default=0),
            batch=self.held.batch_size if self.held else self.trainer.recipe.data.batch_size,
            beta=max(beta, default=None),
        )  # fmt: skip

    def _mispaired(self, done: int, values: dict[str, float | None]) -> list[str]:
        """List the samples that seem mispaired, add how many to `values`, and give what to say of it."""
        trainer, last = self.trainer, done == self.trainer.steps
        if trainer.matching is None or collectives.rank():
            return []
        found = mispaired.find(trainer.matching)
        values["mispaired"] = None if found.why else len(found.listed)
        _unless_full(lambda: mispaired.write(self.folder, found, trainer.source, done))
        if last:
            _unless_full(lambda: mispaired.draw(self.folder, found, trainer.source, trainer.views))
        return [mispaired.in_words(found)] if last or found.listed else []

    def _held_out(self, metrics: dict[str, float]) -> dict[str, Any] | None:
        """The held-out loss and what it was measured on: losses of other samples or another beta do not compare."""
        if self.held is None or not math.isfinite(metrics["loss"]):
            return None
        schedules = [f"{name}={value:g}" for name, value in metrics.items() if name.rpartition("/")[2] == "beta"]
        return {"loss": metrics["loss"], "of": " ".join([self.held.name, *schedules])}


def _unless_full(write: Callable[[], object]) -> None:
    """Write what a check found; a full disk does not end the run, which has more important things to save."""
    try:
        write()
    except (StorageError, OutputError) as error:
        warn(f"{error}; training goes on")


def _checked(file: Path) -> dict[int, dict[str, float | None]]:
    """The lines of checks in a run's metrics, by step, without `val/` before their names."""
    found = {}
    if file.is_file():
        for text in file.read_text(errors="replace").splitlines():
            line = parse_json(text)
            step = step_of_line(line)
            if step is not None and ("val/loss" in line or "seconds" in line):
                found[step] = {name.removeprefix("val/"): value for name, value in line.items() if is_value(value)}
    return found
