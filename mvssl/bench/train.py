"""The training loop against its own model on random tensors, and where the rest of the time goes.

in   a recipe
out  samples per second of both, their ratio, and the share of each part of the loop

Blocks of the whole loop and of the bare model alternate in one run, so that a clock that drifts or a noisy neighbour
meets both. Every block begins with steps that are not timed: they drain what loader workers had ready, or let the
workers fill up again and fall idle.
"""

import contextlib
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from mvssl.bench.timing import FOREVER, block, rates, try_file, wait, write
from mvssl.checkpoints import store
from mvssl.objectives import Context
from mvssl.random import Draws
from mvssl.recipe import Recipe
from mvssl.training.ledger import Ledger
from mvssl.training.log import Log
from mvssl.training.step import Trainer, arithmetic_of, make_accelerator


class Parts:
    """Seconds by named part of the loop; idle unless `on`, since on a GPU every measurement waits for the device."""

    def __init__(self, device: torch.device):
        self.device, self.on = device, False
        self.seconds: dict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if not self.on:
            yield
            return
        wait(self.device)
        begin = time.perf_counter()
        yield
        wait(self.device)
        self.seconds[name] += time.perf_counter() - begin


def whole(trainer: Trainer, folder: Path, parts: Parts) -> Iterator[None]:
    """Each `next` is one step of the training loop: read, copy, views, forward, backward, vote, step, log."""
    table, accelerator = trainer.recipe, trainer.accelerator
    log = Log(
        accelerator, folder, start=0, steps=FOREVER, every=table.train.log_every, batch_size=table.data.batch_size
    )
    log.console.quiet = True
    ledger = Ledger(folder / "bad.jsonl", table.data.batch_size, table.data.max_bad, bad=0, skipped=0)
    batches = iter(trainer.batches(0, FOREVER))
    for number in itertools.count():
        with parts("data"):
            batch = next(batches)
        if parts.on:  # `step` copies and draws views in one go; copied beforehand, the two show apart
            with parts("copy"):
                moved = {name: column.to(accelerator.device) for name, column in batch.columns.items()}
            batch = batch._replace(columns=moved)
        verdict, metrics = trainer.step(batch, number % trainer.steps, part=parts)
        with parts("log"):
            ledger.note(number + 1, verdict, batch.bad)
            log.add(number + 1, metrics, verdict, 0.0, trainer.recipe.optim.lr)
        yield


def bare(trainer: Trainer) -> Iterator[None]:
    """Each `next` is forward, backward and step of the same model on random tensors that lie on the device."""
    device, optimizer = trainer.accelerator.device, trainer.optimizer
    rows = trainer.recipe.data.batch_size // trainer.accelerator.num_processes
    seen = {name: torch.randn(rows, *shape, device=device) for name, shape in trainer.views.shapes.items()}
    index = torch.arange(rows)
    for number in itertools.count():
        draws = Draws(0, index + number * rows, device, scope="objective")
        loss, _ = trainer.wrapped(seen, Context(step=number % trainer.steps, index=index, present={}, draws=draws))
        trainer.accelerator.backward(loss)
        optimizer.found_inf = None  # pyright: ignore[reportAttributeAccessIssue]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield


def bench_train(
    recipe: Recipe, *, blocks: int = 6, steps: int = 20, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Samples per second of the whole loop and of the bare model, `ratio` of the two, and `shares` of the loop's time.

    `blocks` pairs of blocks of `steps` timed steps; `ratio` is the median over pairs. Checkpoints count as `save_every`
    spreads them. Shares come from blocks of their own, in which every part waits for the device. Raises what `train`
    raises, and `OutputError`.
    """
    try_file(json_file)
    trainer = Trainer.prepare(recipe, make_accelerator(recipe))
    accelerator, batch = trainer.accelerator, recipe.data.batch_size
    settle = max(3, 2 * recipe.data.workers + 1)  # torch's loader keeps two batches per worker ready
    parts = Parts(accelerator.device)
    seconds: dict[str, list[float]] = {"whole": [], "bare": []}
    with arithmetic_of(recipe), tempfile.TemporaryDirectory() as folder:
        loop, model = whole(trainer, Path(folder), parts), bare(trainer)
        for _ in range(blocks):
            seconds["whole"].append(block(loop, settle, steps, accelerator))
            parts.on = True
            block(loop, 0, max(2, steps // 4), accelerator)
            parts.on = False
            seconds["bare"].append(block(model, settle, steps, accelerator))
        saving = save_seconds(trainer, Path(folder)) / recipe.train.save_every
    ratios = [bare / (loop + saving) for loop, bare in zip(seconds["whole"], seconds["bare"], strict=True)]
    found = {
        "bench": "train",
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "whole": rates([s + saving for s in seconds["whole"]], batch),
        "bare": rates(seconds["bare"], batch),
        "shares": shares(parts.seconds, saving, statistics.median(seconds["whole"])),
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
    return write(found, accelerator.device, json_file)


def save_seconds(trainer: Trainer, folder: Path) -> float:
    """What one checkpoint costs the loop."""
    begin = time.perf_counter()
    if trainer.accelerator.is_main_process:
        store.save_checkpoint(folder, 1, trainer.model, trainer.optimizer, {}, keep=2)
    trainer.accelerator.wait_for_everyone()
    return time.perf_counter() - begin


def shares(seconds: dict[str, float], saving: float, step: float) -> dict[str, float]:
    """Parts of a step's time that add up to 1, a step taking `step` seconds and `saving` seconds for its checkpoint."""
    saved = saving / (step + saving)
    measured = sum(seconds.values())
    return {**{name: part / measured * (1 - saved) for name, part in seconds.items()}, "checkpoint": saved}
