"""The training loop against its own model on random tensors, and where the rest of the time goes.

in   a recipe
out  samples per second of both, their ratio, and the share of each part of the loop

Blocks of the whole loop and of the bare model alternate in one run, so that a clock that drifts or a noisy neighbour
meets both. Every block begins with steps that are not timed: they drain what loader workers had ready, or let the
workers fill up again and fall idle.
"""

import contextlib
import itertools
import math
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mvssl import checkpoint, guard, startup
from mvssl.batchnorm import convert_batchnorm
from mvssl.bench.timing import FOREVER, block, rates, wait, write
from mvssl.data import Batch, Shards, loader
from mvssl.draws import Draws
from mvssl.model import build_model
from mvssl.objectives import Context
from mvssl.optim import build_optimizer
from mvssl.progress import Log
from mvssl.recipe import Recipe
from mvssl.training import forward, make_accelerator
from mvssl.views import ViewSet, build_views, resolve_statistics


class Stages:
    """Seconds per named part of the loop; idle unless `on`, since on a GPU every measurement waits for the device."""

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


@dataclass
class StagedViews:
    """A `ViewSet` whose copy to the device and whose work there are timed apart."""

    views: ViewSet
    stages: Stages

    def __getattr__(self, name: str) -> Any:
        return getattr(self.views, name)

    def __call__(self, batch: Batch, seed: int, device: torch.device) -> dict[str, Tensor]:
        if not self.stages.on:
            return self.views(batch, seed, device)
        with self.stages("copy"):
            batch = batch._replace(columns={k: v.to(device, non_blocking=True) for k, v in batch.columns.items()})
        with self.stages("views"):
            return self.views(batch, seed, device)


@dataclass
class Bench:
    """A training run set up as `mvssl train` does, with its step and that of the bare model."""

    recipe: Recipe
    accelerator: Accelerator
    source: Shards
    views: ViewSet
    model: nn.Module
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    folder: Path

    @classmethod
    def of(cls, recipe: Recipe, folder: Path) -> "Bench":
        accelerator = make_accelerator(recipe)
        source = startup.open_training(recipe.data, accelerator)
        recipe = recipe.model_copy(update={"views": resolve_statistics(recipe.views, source.shapes, source)})
        views = build_views(recipe.views, source.shapes)
        torch.manual_seed(recipe.train.seed)
        built = build_model(recipe, views.shapes)
        startup.freeze_unreached(built, views)
        model = convert_batchnorm(built, accelerator.device)
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch renames DDP's broadcast_buffers
            wrapped = accelerator.prepare(model).train()
        return cls(recipe, accelerator, source, views, model, wrapped, build_optimizer(model, recipe.optim), folder)

    def whole(self, stages: Stages) -> Iterator[None]:
        """Each `next` is one step of the training loop: read, views, forward, backward, vote, step, log."""
        recipe, accelerator, device = self.recipe, self.accelerator, self.accelerator.device
        log = Log(
            accelerator, self.folder, start=0, steps=FOREVER,
            every=recipe.train.log_every, batch_size=recipe.data.batch_size,
        )  # fmt: skip
        log.console.quiet = True
        batches = iter(loader(
            self.source, batch_size=recipe.data.batch_size, seed=recipe.train.seed, stop_step=FOREVER,
            rank=accelerator.process_index, world=accelerator.num_processes, workers=recipe.data.workers,
            pin_memory=device.type == "cuda",
        ))  # fmt: skip
        views: Any = StagedViews(self.views, stages)
        buffers = guard.Buffers(self.model)
        for step in itertools.count():
            with stages("data"):
                batch = next(batches)
            with stages("guard"):
                buffers.remember()
            with stages("forward"):
                loss, metrics = forward(self.wrapped, views, batch, step, recipe.train.seed, device)
            with stages("backward"):
                accelerator.backward(loss)
            with stages("guard"):
                norm = nn.utils.clip_grad_norm_(self.model.parameters(), recipe.optim.clip or math.inf)
                vetoed = guard.vote(loss.detach(), norm, False, len(batch.bad))[0] > 0
            with stages("optimizer"):
                guard.step_unless(vetoed, self.optimizer)
            with stages("guard"):
                buffers.restore_where(vetoed)
            with stages("log"):
                log.add(step + 1, {"loss": loss, **metrics, "grad_norm": norm}, vetoed, 0.0, recipe.optim.lr)
            yield

    def bare(self) -> Iterator[None]:
        """Each `next` is forward, backward and step of the same model on random tensors that lie on the device."""
        device = self.accelerator.device
        rows = self.recipe.data.batch_size // self.accelerator.num_processes
        seen = {name: torch.randn(rows, *shape, device=device) for name, shape in self.views.shapes.items()}
        index = torch.arange(rows)
        for step in itertools.count():
            draws = Draws(0, index + step * rows, device, scope="objective")
            loss, _ = self.wrapped(seen, Context(step=step, index=index, present={}, draws=draws))
            self.accelerator.backward(loss)
            self.optimizer.found_inf = None  # pyright: ignore[reportAttributeAccessIssue]
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            yield

    def save_seconds(self) -> float:
        """What one checkpoint costs the loop."""
        begin = time.perf_counter()
        if self.accelerator.is_main_process:
            checkpoint.save_checkpoint(self.folder, 0, self.model, self.optimizer, {}, keep=2)
        self.accelerator.wait_for_everyone()
        return time.perf_counter() - begin


def bench_train(
    recipe: Recipe, *, blocks: int = 6, steps: int = 20, json_file: str | Path | None = None
) -> dict[str, Any]:
    """Samples per second of the whole loop and of the bare model, `ratio` of the two, and `shares` of the loop's time.

    `blocks` pairs of blocks of `steps` timed steps; `ratio` is the median over pairs. Checkpoints count as `save_every`
    spreads them. Shares come from blocks of their own, in which every part waits for the device.
    """
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench.of(recipe, Path(folder))
        device, batch = bench.accelerator.device, recipe.data.batch_size
        settle = max(3, 2 * recipe.data.workers + 1)  # torch's loader keeps two batches per worker ready
        stages = Stages(device)
        whole, bare = bench.whole(stages), bench.bare()
        saving = bench.save_seconds() / recipe.train.save_every
        seconds: dict[str, list[float]] = {"whole": [], "bare": []}
        for _ in range(blocks):
            seconds["whole"].append(block(whole, settle, steps, bench.accelerator) + saving)
            seconds["bare"].append(block(bare, settle, steps, bench.accelerator))
            stages.on = True
            block(whole, 0, max(2, steps // 4), bench.accelerator)
            stages.on = False
    ratios = [bare / whole for whole, bare in zip(seconds["whole"], seconds["bare"], strict=True)]
    found = {
        "bench": "train",
        "ratio": statistics.median(ratios),
        "ratio_spread": [min(ratios), max(ratios)],
        "whole": rates(seconds["whole"], batch),
        "bare": rates(seconds["bare"], batch),
        "shares": shares(stages.seconds, saving, statistics.median(seconds["whole"])),
        "blocks": blocks,
        "steps_per_block": steps,
        "batch_size": batch,
        "processes": bench.accelerator.num_processes,
        "workers": recipe.data.workers,
        "precision": recipe.train.precision,
        "views": {name: list(shape) for name, shape in bench.views.shapes.items()},
        "encoders": {group: table.name for group, table in recipe.encoder.items()},
        "objectives": [term.name for term in recipe.objective],
    }
    return write(found, device, json_file)


def shares(seconds: dict[str, float], saving: float, step: float) -> dict[str, float]:
    """Parts of a step's time that add up to 1; `model` is what the bare model does: forward, backward, optimizer."""
    parts = dict(seconds)
    model = parts.pop("forward") - parts["copy"] - parts["views"] + parts.pop("backward") + parts.pop("optimizer")
    parts = {"model": model, **parts}
    total = sum(parts.values())
    saved = saving / step
    return {**{name: part / total * (1 - saved) for name, part in parts.items()}, "checkpoint": saved}
