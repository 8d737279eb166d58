"""Everything that a step needs, built from a recipe, and the step itself.

in   a recipe, and optionally a map-style dataset of dicts in place of shards
out  a `Trainer`, whose `step(batch, number)` goes the whole road: columns to views to features to loss to new weights
"""

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from mvssl.data import Batch, Loader, Source, as_source, loader
from mvssl.distributed import collectives
from mvssl.distributed.batch_norm import convert_batchnorm
from mvssl.distributed.devices import arithmetic, memory_format_for
from mvssl.errors import RecipeError
from mvssl.model import MultiView, build_model
from mvssl.monitoring.matching import Matching
from mvssl.objectives import Context, ScoreObserver
from mvssl.optim import build_optimizer, learning_rate
from mvssl.random import Draws, hash_name
from mvssl.recipe import Recipe
from mvssl.runs import folder
from mvssl.training import guard, resume
from mvssl.training.trackers import refuse_trackers
from mvssl.views import ViewSet, build_views, resolve_statistics

Part = Callable[[str], contextlib.AbstractContextManager]


def untimed(_: str) -> contextlib.AbstractContextManager:
    """What surrounds the parts of a step unless a benchmark wants to know how long they take."""
    return contextlib.nullcontext()


@dataclass
class Trainer:
    """A run ready to step: `recipe` with its statistics measured, `model` bare and `wrapped` for DDP and precision."""

    recipe: Recipe
    accelerator: Accelerator
    source: Source
    views: ViewSet
    model: MultiView
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    buffers: guard.Buffers
    steps: int
    frozen: list[str]  # parameters that no loss reaches
    earlier: resume.Earlier | None = None  # what the run goes on from
    matching: Matching | None = None  # where views come from several columns, and the run looks for mispaired samples

    @classmethod
    def prepare(cls, recipe: Recipe, accelerator: Accelerator, data: Any = None) -> "Trainer":
        """Open the data, build views, model, optimizer; equal on every process. Raises `RecipeError`, `DataError`."""
        source = resume.open_training(recipe.data) if data is None else as_source(data)
        earlier = resume.find_earlier(Path(recipe.train.out))
        known = folder.with_statistics(recipe, earlier.recipe if earlier else None)
        recipe = recipe.model_copy(update={"views": resolve_statistics(known.views, source.shapes, source)})
        views = build_views(recipe.views, source.shapes)
        torch.manual_seed(recipe.train.seed)
        built = build_model(recipe, views.shapes, start_weights=earlier is None).to(accelerator.device)
        resume.refuse_lonely(built, recipe.data.batch_size)
        frozen = resume.freeze_unreached(built, views, accelerator.device)
        model = convert_batchnorm(built, accelerator.device, rows_absent=bool(source.optional))
        model.to(memory_format=memory_format_for(model, accelerator.device))
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch renames DDP's broadcast_buffers
            wrapped = accelerator.prepare(model).train()
        optimizer = build_optimizer(model, recipe.optim)
        steps = recipe.train.steps or math.ceil((recipe.train.epochs or 0) * len(source) / recipe.data.batch_size)
        return cls(
            recipe, accelerator, source, views, model, wrapped, optimizer, guard.Buffers(model), steps, frozen, earlier,
        )  # fmt: skip

    def batches(self, start: int, stop: int) -> Loader:
        """This process's part of the batches of steps `start` to `stop`."""
        return loader(
            self.source, batch_size=self.recipe.data.batch_size, seed=self.recipe.train.seed, start_step=start,
            stop_step=stop, rank=collectives.rank(), world=collectives.world(), workers=self.recipe.data.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )  # fmt: skip

    def step(
        self, batch: Batch, number: int, stop: bool = False, save: bool = False, part: Part = untimed
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Optimizer step `number` (from 0), or no change at all where any process vetoes it.

        Returns the vote (see `guard.vote`) and the metrics, both still on the device.
        """
        rate = learning_rate(self.recipe.optim, number, self.steps)
        # for whatever draws from torch's generator: dropout in an encoder, a view of the user's own
        torch.manual_seed(hash_name(self.recipe.train.seed, number, collectives.rank()))
        with part("views"):
            seen = self.views(batch, self.recipe.train.seed, self.accelerator.device)
        with part("guard"):
            self.buffers.remember()
        with part("model"):
            observer = self.matching.observer() if self.matching else None
            loss, metrics = self.wrapped(seen, self.context(batch, number, self.recipe.train.seed, observer))
            self.accelerator.backward(loss)
        with part("guard"):
            norm = guard.clipped(self.model.parameters(), self.recipe.optim.clip)
            verdict = guard.vote(loss.detach(), norm, stop, len(batch.bad), save)
        with part("model"):
            guard.step_unless(verdict[0] > 0, self.optimizer, rate)
        with part("guard"):
            self.buffers.restore_where(verdict[0] > 0)
            if self.matching and observer:
                self.matching.update(batch.index, observer, verdict[0] > 0)
        return verdict, {"loss": loss.detach(), **metrics, "grad_norm": norm}

    def context(self, batch: Batch, number: int, seed: int, observer: ScoreObserver | None = None) -> Context:
        """What objectives may ask for at step `number` (from 0), drawn with `seed`."""
        draws = Draws(seed, batch.position, self.accelerator.device, scope="objective")
        return Context(number, batch.index, draws, self.present(batch, self.views.names), observer)

    def present(self, batch: Batch, names: Iterable[str]) -> dict[str, Tensor]:
        """Which rows have which view, bool [n], of those of the named views that samples may lack."""
        column = {name: self.views.source_of(name) for name in names}
        return {name: batch.present[source] for name, source in column.items() if source in batch.present}


def arithmetic_of(recipe: Recipe) -> contextlib.AbstractContextManager[None]:
    """How exactly the device computes in training; cuDNN is not tuned where the number of rows changes by step."""
    return arithmetic(recipe.train.precision, tune=recipe.data.missing != "mask")


def make_accelerator(recipe: Recipe, cpu: bool = False) -> Accelerator:
    """The processes, the device, the precision, the trackers. Raises `RecipeError` where some cannot be had.

    With `cpu`, no other device even where there is one.
    """
    refuse_trackers(recipe.train.trackers)
    launched = os.environ.get("WORLD_SIZE", "1")
    if not launched.isdigit() or (int(launched) > 1 and "MASTER_ADDR" not in os.environ):
        raise RecipeError(f"WORLD_SIZE={launched} without MASTER_ADDR is no launch: use accelerate launch, or unset it")
    launched = int(launched)
    AcceleratorState._reset_state()  # an earlier run of this Python process may have had another precision
    try:
        accelerator = Accelerator(
            # accelerate's launcher does not pass use_cpu on to its workers, and without it they do not find each other
            cpu=cpu or (launched > 1 and not torch.accelerator.is_available()),
            mixed_precision="bf16" if recipe.train.precision == "bf16" else "no",
            log_with=list(recipe.train.trackers) or None,
            project_dir=recipe.train.out,
            kwargs_handlers=[
                # Running statistics are equal everywhere already, and rank 0's must not overwrite what others keep.
                DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
                # longer than the watchdog waits, which can name the process that hangs
                InitProcessGroupKwargs(timeout=timedelta(seconds=max(1800, 3 * recipe.train.hang_timeout))),
            ],
        )
    except ValueError as error:
        raise RecipeError(f"train.precision: {recipe.train.precision} cannot be had here: {error}") from None
    if launched != accelerator.num_processes:
        raise RecipeError(
            f"{launched} processes were launched, but this one sees {accelerator.num_processes}; "
            "use one of the files in launch/ (for CPUs launch/cpu_2.yaml)"
        )
    collectives.cpu_group()  # now, as the launcher that processes meet through may end before they do
    return accelerator
