"""Samples per second: the training loop beside its model on random tensors, and the reader of shards.

in   a recipe
out  samples per second with their spread; for the loop also the share of each part

Blocks of the full loop and of the model alone alternate in one run, so that other load on the machine slows both. Every
block begins with steps that are not timed. They use up the batches that loader workers have ready, or let the workers
fill their queues again.
"""

import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from mvssl.bench.comparison import (
    ROUNDS,
    Row,
    build_row,
    finish_comparison,
    name_largest,
    one_thread,
    time_in_turns,
)
from mvssl.bench.timing import (
    CPU,
    FOREVER,
    check_json_file,
    finish_result,
    synchronize,
    time_call,
    time_calls,
)  # fmt: skip
from mvssl.checkpoints import store
from mvssl.data import Batch, loader
from mvssl.objectives import Context
from mvssl.process.signals import StopRequest
from mvssl.random import Draws
from mvssl.recipe import Recipe
from mvssl.training.accelerator import arithmetic_of, make_accelerator
from mvssl.training.fault_counts import FaultCounter
from mvssl.training.log import Log
from mvssl.training.preparation import open_training_shards, prepare_trainer
from mvssl.training.step import Trainer, run_steps

OURS, BARE = "the loop", "the bare model"


class Stopwatch:
    """Seconds by part of the loop. Idle unless `on`, because on a GPU every measurement waits for the device."""

    def __init__(self, device: torch.device):
        self.device, self.on = device, False
        self.seconds: dict[str, float] = defaultdict(float)
        self._part, self._begin = "", 0.0

    def enter(self, part: str) -> None:
        """End the current part and begin the next; an empty name begins none."""
        if not self.on:
            return
        synchronize(self.device)
        now = time.perf_counter()
        if self._part:
            self.seconds[self._part] += now - self._begin
        self._part, self._begin = part, now


def run_loop(trainer: Trainer, folder: Path, watch: Stopwatch) -> Iterator[int]:
    """Take the steps of `mvssl train`, one for each `next`, without checks and checkpoints."""
    table = trainer.recipe
    log = Log(
        trainer.accelerator, folder, start=0, steps=FOREVER, every=table.train.log_every,
        batch_size=table.data.batch_size,
    )  # fmt: skip
    log.console.quiet = True
    ledger = FaultCounter(folder, table.data, store.State(step=0))
    batches = _copy_batches(
        trainer.batches(0, FOREVER, draw_seed=trainer.recipe.train.seed), trainer.accelerator.device, watch
    )
    return run_steps(trainer, batches, ledger, log, StopRequest(), watch.enter)


def _copy_batches(batches: Iterable[Batch], device: torch.device, watch: Stopwatch) -> Iterator[Batch]:
    """Yield batches; while `watch` is on, copy them to the device first, to time copy and views separately."""
    for batch in batches:
        if watch.on:
            watch.enter("copy")
            batch = batch._replace(columns={name: column.to(device) for name, column in batch.columns.items()})
        yield batch


def run_model(trainer: Trainer) -> Iterator[None]:
    """Run forward, backward and step of the same model at each `next`, on random tensors on the device."""
    device, optimizer = trainer.accelerator.device, trainer.optimizer
    rows = trainer.recipe.data.batch_size // trainer.accelerator.num_processes
    inputs = {name: torch.randn(rows, *shape, device=device) for name, shape in trainer.views.shapes.items()}
    index = torch.arange(rows)
    for number in itertools.count():
        draws = Draws(0, index + number * rows, device, scope="objective")
        loss, _ = trainer.wrapped(inputs, Context(step=number, index=index, present={}, draws=draws))
        trainer.accelerator.backward(loss)
        optimizer.found_inf = None  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield


def bench_train(
    recipe: Recipe, *, rounds: int = ROUNDS, steps: int = 6, block: float = 1.0, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Compare the full loop with its bare model, and print samples per second, `ratio` and the shares of its parts.

    On a CPU the first rows count CPU time on one thread, without loader workers: beside the bare model, and beside
    reading, views and bare model, measured separately and added. Each way works for `block` seconds in a round. The
    last row counts wall time with the recipe's workers, in blocks of `steps` steps. Raise the errors of `train`, and
    `OutputError`.
    """
    check_json_file(json_file)
    rows, batch = [], recipe.data.batch_size
    with arithmetic_of(recipe), tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(recipe, workers=recipe.data.workers)
        device = trainer.device
        if device.type == "cpu" and trainer.accelerator.num_processes == 1:
            with one_thread():
                rows += _compare_on_one_thread(build_trainer(recipe, workers=0), Path(folder), rounds, block)
        watch = Stopwatch(device)
        loop, model = run_loop(trainer, Path(folder), watch), run_model(trainer)
        settle = max(3, 2 * recipe.data.workers + 1)  # torch's loader keeps two batches per worker ready
        spent: dict[str, list[float]] = {OURS: [], BARE: []}
        for _ in range(rounds):
            spent[OURS].append(time_block(loop, settle, steps, trainer))
            watch.on = True
            time_block(loop, 0, max(2, steps // 4), trainer)
            watch.enter("")
            watch.on = False
            spent[BARE].append(time_block(model, settle, steps, trainer))
        threads = torch.get_num_threads()
    rows.append(build_row(f"wall time, {recipe.data.workers} workers, {threads} threads", spent, samples=batch))
    measured = rounds * max(2, steps // 4)
    seconds = {part: whole / measured for part, whole in watch.seconds.items()}
    return finish_comparison(
        "train",
        rows,
        bottleneck=name_largest(seconds),
        device=device,
        json_file=json_file,
        shares={part: each / sum(seconds.values()) for part, each in seconds.items()},
        overhead_ms=1e3 * (seconds["guard"] + seconds["log"]),
        batch_size=batch,
        processes=trainer.accelerator.num_processes,
        precision=recipe.train.precision,
        views={name: list(shape) for name, shape in trainer.views.shapes.items()},
        encoders={group: table.name for group, table in recipe.encoder.items()},
        objectives=[term.name for term in recipe.objective],
    )


def build_trainer(recipe: Recipe, workers: int) -> Trainer:
    """Return a trainer of the recipe with another number of loader workers and no last step."""
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": workers})})
    trainer = prepare_trainer(recipe, make_accelerator(recipe))
    trainer.steps = FOREVER
    return trainer


def _compare_on_one_thread(trainer: Trainer, folder: Path, rounds: int, block: float) -> list[Row]:
    """Return the rows of CPU time: beside the bare model, and beside all parts measured separately and added."""
    batch, seed = trainer.recipe.data.batch_size, trainer.recipe.train.seed
    loop, model = run_loop(trainer, folder, Stopwatch(trainer.device)), run_model(trainer)
    batches = iter(trainer.batches(0, FOREVER, draw_seed=seed))
    held = next(batches)
    ways = {
        OURS: lambda: next(loop),
        BARE: lambda: next(model),
        "reading": lambda: next(batches),
        "views": lambda: trainer.views(held, seed, trainer.device),
    }
    spent = time_in_turns(ways, rounds=rounds, block=block)
    parts = [sum(times) for times in zip(*(spent[name] for name in (BARE, "reading", "views")), strict=True)]
    return [
        build_row("CPU time, 1 thread", {name: spent[name] for name in (OURS, BARE)}, samples=batch),
        build_row("  beside all parts", {OURS: spent[OURS], "model + reading + views": parts}, samples=batch),
    ]


def time_block(loop: Iterator[Any], settle: int, steps: int, trainer: Trainer) -> float:
    """Return seconds per step over `steps` steps, after `settle` untimed steps. All processes start together."""
    for _ in itertools.islice(loop, settle):
        pass
    synchronize(trainer.accelerator.device)
    trainer.accelerator.wait_for_everyone()
    return time_call(lambda: [next(loop) for _ in range(steps)], trainer.accelerator.device) / steps


def bench_reader(recipe: Recipe, *, seconds: float = 4.0, json_file: str | Path | None = None) -> dict[str, Any]:
    """Return samples per second from the recipe's shards to batches, with its workers and without training."""
    check_json_file(json_file)
    table, source = recipe.data, open_training_shards(recipe.data)
    batches = iter(loader(source, batch_size=table.batch_size, seed=0, stop_step=FOREVER, workers=table.workers))
    for _ in itertools.islice(batches, 2 * table.workers + 1):
        pass
    spent = time_calls(lambda: next(batches), seconds, CPU)
    result = {
        "bench": "reader",
        "batch_size": table.batch_size,
        "workers": table.workers,
        "samples": len(source),
        # the mean, not the median: each burst has as many batches as there are workers
        "samples_per_second": table.batch_size / statistics.mean(spent),
        "batches": len(spent),
    }
    return finish_result(result, CPU, json_file)
