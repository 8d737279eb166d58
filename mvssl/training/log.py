"""The metrics of training: shown on the terminal, and written to metrics.jsonl and the trackers.

in   the metrics of each step, as tensors on the device; the values of each check
out  means over intervals: a progress bar on a terminal, else one line per interval; a line of metrics.jsonl

Only the main process prints and writes. Metrics stay tensors until they are reported.
"""

import contextlib
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor

from mvssl.checkpoints.state import LogSums
from mvssl.distributed import collectives
from mvssl.monitoring.diagnosis import BoundReading, Diagnosis, find_bounds
from mvssl.runs.line_files import LineFile
from mvssl.text import counted, warn


class Log:
    """Collects metrics over an interval; reports means, samples per second and the share of time spent on data."""

    def __init__(
        self, accelerator: Accelerator, run: Path, *, start: int, steps: int, every: int, batch_size: int,
        interval: LogSums | None = None,
    ):  # fmt: skip
        self.accelerator, self.lines = accelerator, LineFile(run / "metrics.jsonl")
        self.steps, self.every, self.batch_size = steps, every, batch_size
        self.console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[line]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            console=self.console,
            disable=not (accelerator.is_main_process and self.console.is_terminal),
            transient=False,
            expand=True,
        )
        self.task = self.bar.add_task("training", total=steps, completed=start, line="")
        self.one, interval = torch.ones((), device=accelerator.device), interval or LogSums()
        # by names of metrics; the last value counts the steps that were not vetoed
        self.sums = {tuple(sums.names): torch.tensor(sums.values).to(self.one) for sums in interval.sums}
        self.steps_since = interval.steps  # steps of the interval
        self.steps_timed = 0  # steps of the interval that this process itself took
        self.slow: set[int] = set()  # processes already reported as slow
        self.tracked = True
        self.last: dict[str, float | None] = {}
        self.waited, self.since = 0.0, time.perf_counter()

    def __enter__(self) -> "Log":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def add(self, done: int, metrics: dict[str, Tensor], vetoed: Tensor, waited: float, rate: float) -> None:
        """Count the metrics of step number `done` (from 1) unless `vetoed`; report at the end of an interval."""
        # stacked first, so that the number of kernels does not grow with the number of metrics
        values = torch.stack([value.detach().to(self.one) for value in (*metrics.values(), self.one)])
        values, names = torch.where(vetoed, 0.0, values), tuple(metrics)
        self.sums[names] = self.sums[names] + values if names in self.sums else values
        self.steps_since += 1
        self.steps_timed += 1
        self.waited += waited
        self.bar.advance(self.task)
        if done % self.every == 0 or done == self.steps:
            self._report(done, rate)

    def _report(self, done: int, rate: float) -> None:
        numbers = iter(torch.cat(list(self.sums.values())).tolist())  # the only copy to the CPU
        sums, taken = dict.fromkeys(itertools.chain(*self.sums), 0.0), 0.0
        for names in self.sums:
            sums |= {name: sums[name] + next(numbers) for name in names}
            taken += next(numbers)
        # None if every step of the interval was vetoed: a mean of nothing has no value, and JSON has no NaN.
        means = {name: total / taken if taken and math.isfinite(total) else None for name, total in sums.items()}
        seconds = time.perf_counter() - self.since
        speed, data_wait = self.steps_timed * self.batch_size / seconds, self.waited / seconds
        self.last = {**means, "lr": rate, "skipped": self.steps_since - taken}
        self.last |= {"samples_per_second": speed, "data_wait": data_wait}
        self._warn_of_slow(data_wait)
        self.sums, self.steps_since, self.steps_timed, self.waited, self.since = {}, 0, 0, 0.0, time.perf_counter()
        self._track(self.last, done)
        if self.accelerator.is_main_process:
            self.lines.append([{"step": done, **self.last}])
            loss = "no step was taken" if means["loss"] is None else f"loss {means['loss']:.3f}"
            text = "  ".join([loss, *format_bounds(means), f"{speed:,.0f} samples/s", f"data wait {data_wait:.0%}"])
            self.bar.update(self.task, line=text)
            if self.bar.disable:
                self.console.print(f"step {done}/{self.steps}  {text}", highlight=False, soft_wrap=True)

    def state(self) -> dict[str, Any]:
        """Return the sums of the unfinished interval, for a checkpoint."""
        sums = [{"names": list(names), "values": values.tolist()} for names, values in self.sums.items()]
        return {"steps": self.steps_since, "sums": sums}

    def _track(self, values: Mapping[str, float | None], done: int) -> None:
        if not self.tracked:
            return
        try:
            self.accelerator.log({name: value for name, value in values.items() if value is not None}, step=done)
        except OSError as error:  # of the tracker's disk or server; metrics.jsonl has the same numbers
            self.tracked = False
            warn(f"a tracker failed ({error}) and gets no values from step {done} on; metrics.jsonl still gets them")

    def _warn_of_slow(self, share: float) -> None:
        """Warn of a process that waits for data much longer than the others, since they wait for it in every step."""
        if collectives.world_size() == 1:
            return
        shares = collectives.gather(torch.full((1,), share, device=self.one.device)).tolist()
        for rank, waits in enumerate(shares):
            others = median(other for number, other in enumerate(shares) if number != rank)
            if waits > 0.2 and waits > 2 * others and rank not in self.slow:
                self.slow.add(rank)
                warn(
                    f"process {rank} waits for data {waits:.0%} of the time, the others {others:.0%}; they wait for it"
                )

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Return a context whose time counts neither for samples per second nor as waiting for data."""
        begin = time.perf_counter()
        yield
        self.since += time.perf_counter() - begin

    def check(self, done: int, values: dict[str, float | None], diagnosis: Diagnosis, more: Iterable[str] = ()) -> None:
        """Report a check after step number `done`."""
        self._track(values, done)
        if self.accelerator.is_main_process:
            self.lines.append([{"step": done, **values}])
            advice = [f"{finding.sentence}; {finding.advice}" for finding in diagnosis.findings]
            lines = [f"check at step {done}  {_format_check(values)}", f"  {diagnosis.name}"]
            lines += [f"  {line}" for line in (*advice, *more)]
            self.console.print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)


def format_bounds(metrics: Mapping[str, float | None]) -> list[str]:
    """Return each bound with its ceiling in words; of more than three only mean and minimum, by unit."""
    found = find_bounds(metrics)
    if len(found) <= 3:
        return [f"{name} {bound}" for name, bound in found.items()]
    nats = {name: bound for name, bound in found.items() if bound.divergence is None}
    rest = {name: bound for name, bound in found.items() if name not in nats}
    return [_summarize_bounds(part) for part in (nats, rest) if part]


def _summarize_bounds(found: Mapping[str, BoundReading]) -> str:
    columns = zip(*found.values(), strict=True)
    mean = BoundReading(*(None if None in column else fmean(column) for column in columns))  # pyright: ignore[reportArgumentType]
    least = min(found, key=lambda name: found[name].score)
    return f"{counted(len(found), 'bound')}, mean {mean}, least {found[least].score:.2f} ({least})"


def _format_check(values: Mapping[str, float | None]) -> str:
    """Return the values of a check as one line."""
    held = {name.removeprefix("val/"): value for name, value in values.items() if value is not None}
    parts = [f"loss {held['loss']:.3f}"] if "loss" in held else []
    parts += format_bounds(held)
    for name, form in (("knn", "{:.1%}"), ("rank", "{:.1f}"), ("plane", "{:.2f}")):
        found = {key.partition("/")[2]: value for key, value in held.items() if key.partition("/")[0] == name}
        if found:
            parts.append(f"{name} " + ", ".join(f"{view} {form.format(value)}" for view, value in found.items()))
    return "  ".join(parts)
