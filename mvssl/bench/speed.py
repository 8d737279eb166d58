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

from mvssl.bench.timing import (
    CPU,
    FOREVER,
    check_json_file,
    compute_rates,
    finish_result,
    synchronize,
    time_call,
    time_calls,
)  # fmt: skip
from mvssl.checkpoints import store
from mvssl.data import Batch, loader
from mvssl.distributed import collectives
from mvssl.objectives import Context
from mvssl.process.signals import StopRequest
from mvssl.random import Draws
from mvssl.recipe import Recipe
from mvssl.training.accelerator import arithmetic_of, make_accelerator
from mvssl.training.fault_counts import FaultCounter
from mvssl.training.log import Log
from mvssl.training.preparation import open_training_shards, prepare_trainer
from mvssl.training.step import Trainer, run_steps


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
    recipe: Recipe, *, blocks: int = 6, steps: int = 20, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Return samples per second of the full loop and of the bare model, their `ratio`, and `shares` of the loop's time.

    It times `blocks` pairs of blocks of `steps` steps; `ratio` is the median over pairs. The cost of a checkpoint is
    spread over `train.save_every` steps. Shares come from separate blocks, in which every part waits for the device.
    Raise the errors of `train`, and `OutputError`.
    """
    check_json_file(json_file)
    trainer = prepare_trainer(recipe, make_accelerator(recipe))
    trainer.steps = FOREVER
    accelerator, batch = trainer.accelerator, recipe.data.batch_size
    settle = max(3, 2 * recipe.data.workers + 1)  # torch's loader keeps two batches per worker ready
    watch = Stopwatch(accelerator.device)
    of_loop, of_model = [], []
    with arithmetic_of(recipe), tempfile.TemporaryDirectory() as folder:
        loop, model = run_loop(trainer, Path(folder), watch), run_model(trainer)
        for _ in range(blocks):
            of_loop.append(time_block(loop, settle, steps, trainer))
            watch.on = True
            time_block(loop, 0, max(2, steps // 4), trainer)
            watch.enter("")
            watch.on = False
            of_model.append(time_block(model, settle, steps, trainer))
        saving = time_save(trainer, Path(folder)) / recipe.train.save_every
    ratios = [bare / (loop + saving) for loop, bare in zip(of_loop, of_model, strict=True)]
    result = {
        "bench": "train",
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "whole": compute_rates([s + saving for s in of_loop], batch),
        "bare": compute_rates(of_model, batch),
        "shares": compute_shares(watch.seconds, saving, statistics.median(of_loop)),
        "blocks": blocks,
        "steps_per_block": steps,
        "batch_size": batch,
        "processes": accelerator.num_processes,
        "workers": recipe.data.workers,
        "precision": recipe.train.precision,
        "views": {name: list(shape) for name, shape in trainer.views.shapes.items()},
        "encoders": {group: table.name for group, table in recipe.encoder.items()},
        "objectives": [term.name for term in recipe.objective],
    }
    return finish_result(result, accelerator.device, json_file)


def time_block(loop: Iterator[Any], settle: int, steps: int, trainer: Trainer) -> float:
    """Return seconds per step over `steps` steps, after `settle` untimed steps. All processes start together."""
    for _ in itertools.islice(loop, settle):
        pass
    synchronize(trainer.accelerator.device)
    trainer.accelerator.wait_for_everyone()
    return time_call(lambda: [next(loop) for _ in range(steps)], trainer.accelerator.device) / steps


def time_save(trainer: Trainer, folder: Path) -> float:
    """Return the seconds that one checkpoint takes."""
    begin = time.perf_counter()
    collectives.run_on_main(
        lambda: store.save_checkpoint(folder, 1, trainer.model, trainer.optimizer, {}, keep=2), share=False
    )
    return time.perf_counter() - begin


def compute_shares(seconds: dict[str, float], saving: float, step: float) -> dict[str, float]:
    """Return shares of time that sum to 1, for a step of `step` seconds and `saving` seconds for its checkpoint."""
    saved, measured = saving / (step + saving), sum(seconds.values())
    return {**{name: part / measured * (1 - saved) for name, part in seconds.items()}, "checkpoint": saved}


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
