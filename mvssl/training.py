"""The loop: shards to batches to views to features to loss, one optimizer step at a time.

in   a recipe, and optionally a map-style dataset of dicts in place of shards
out  a run folder (see mvssl.run): checkpoints, metrics, and everything needed to go on or to use the backbone

A run continues where its newest checkpoint stands. Sample order and draws are functions of the step, so a continued
run is the uninterrupted run.
"""

import contextlib
import math
import os
import signal
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from mvssl import checkpoint, distributed, guard, run, startup
from mvssl.batchnorm import convert_batchnorm
from mvssl.data import Batch, as_source, loader
from mvssl.draws import Draws, hash_name
from mvssl.errors import PREEMPTED, DataError, MvsslError, RecipeError, StorageError
from mvssl.ledger import Ledger
from mvssl.model import build_model
from mvssl.objectives import Context
from mvssl.optim import build_optimizer, learning_rate
from mvssl.progress import Log, say
from mvssl.recipe import Recipe
from mvssl.views import ViewSet, build_views, resolve_statistics

class Interrupted(MvsslError):
    """The run was asked to stop, saved, and can be continued."""

    def __init__(self, text: str, code: int):
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Outcome:
    """Where a run stands: its folder, the steps done, and the metrics of the last interval."""

    folder: Path
    step: int
    metrics: dict[str, float]


def train(recipe: Recipe, data: Any = None) -> Outcome:
    """Train, or continue, the run that `recipe` describes; the same on any number of processes.

    `data` is any map-style dataset of dicts, used in place of the recipe's shards. Raises `RecipeError`, `DataError`,
    `OutputError`, `StorageError`, each with the way out; `Interrupted` after SIGTERM or Ctrl-C, with all saved.
    """
    accelerator = make_accelerator(recipe)
    folder = Path(recipe.train.out)
    error: BaseException | None = None
    try:
        run.claim(folder)
        return _train(recipe, data, accelerator, folder)
    except BaseException as raised:
        error = raised
        raise
    finally:
        if accelerator.is_main_process:
            run.note_exit(folder, error)


def make_accelerator(recipe: Recipe) -> Accelerator:
    """The processes, the device and the precision. Raises `RecipeError` where fewer processes came than were launched."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    accelerator = Accelerator(
        # accelerate's launcher does not pass use_cpu on to its workers, and without it they would not find each other
        cpu=launched > 1 and not torch.accelerator.is_available(),
        mixed_precision="no" if recipe.train.precision == "fp32" else recipe.train.precision,
        log_with=list(recipe.train.trackers) or None,
        project_dir=recipe.train.out,
        kwargs_handlers=[
            # Running statistics are equal on all processes already, and rank 0's must not overwrite what an objective keeps.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
            InitProcessGroupKwargs(timeout=timedelta(minutes=10)),
        ],
    )
    if launched != accelerator.num_processes:
        raise RecipeError(
            f"{launched} processes were launched, but this one sees {accelerator.num_processes}; "
            "use one of the files in launch/ (for CPUs launch/cpu_2.yaml)"
        )
    return accelerator


def _train(recipe: Recipe, data: Any, accelerator: Accelerator, folder: Path) -> Outcome:
    table, batch_size, world = recipe.train, recipe.data.batch_size, accelerator.num_processes
    source = startup.open_training(recipe.data, accelerator) if data is None else as_source(data)
    views_tables = resolve_statistics(recipe.views, source.shapes, source)
    recipe = recipe.model_copy(update={"views": views_tables})
    views = build_views(recipe.views, source.shapes)
    steps = table.steps or math.ceil((table.epochs or 0) * len(source) / batch_size)

    torch.manual_seed(table.seed)
    model = build_model(recipe, views.shapes)
    frozen = startup.freeze_unreached(model, views)
    if world > 1:
        model = convert_batchnorm(model)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch renames broadcast_buffers
        wrapped = accelerator.prepare(model)
    optimizer = build_optimizer(model, recipe.optim)
    state, told = startup.resume(folder, recipe, source.fingerprint, model, optimizer)
    start = state["step"]
    batches = loader(
        source, batch_size=batch_size, seed=table.seed, start_step=start, stop_step=steps, rank=accelerator.process_index,
        world=world, workers=recipe.data.workers, pin_memory=accelerator.device.type == "cuda",
    )  # fmt: skip
    if accelerator.is_main_process:
        run.describe(folder, recipe)
        run.cut_lines_after(folder / "metrics.jsonl", start)
        run.cut_lines_after(folder / "bad.jsonl", start)
    accelerator.init_trackers("trackers")
    say(accelerator, startup.plan(recipe, source, views, model, start, steps, frozen), *told)
    if start >= steps:
        say(accelerator, f"{folder} has its {steps} steps already; give more with train.steps or train.epochs")

    ledger = Ledger(folder / "bad.jsonl", batch_size, recipe.data.max_bad, bad=state["bad"], skipped=state["skipped"])

    def save(done: int) -> None:
        facts = {**ledger.counts(), "fingerprint": source.fingerprint, "world": world, "columns": source.shapes}
        with _one_writes(accelerator) as writer:
            if writer:
                checkpoint.save_checkpoint(folder, done, model, optimizer, facts, table.keep)

    buffers = guard.Buffers(model)
    log = Log(accelerator, folder, start=start, steps=steps, every=table.log_every, batch_size=batch_size)
    wrapped.train()
    with guard.StopSignal() as stop, log:
        for done, (batch, waited) in enumerate(_timed(batches), start + 1):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe.optim, done - 1, steps)
            buffers.remember()
            loss, metrics = forward(wrapped, views, batch, done - 1, table.seed, accelerator.device)
            accelerator.backward(loss)
            norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.optim.clip or math.inf)
            verdict = guard.vote(loss.detach(), norm, stop.received is not None, len(batch.bad))
            vetoed = verdict[0] > 0
            guard.step_unless(vetoed, optimizer)
            buffers.restore_where(vetoed)
            ledger.note(done, verdict, batch.bad)
            log.add(done, {"loss": loss, **metrics, "grad_norm": norm}, vetoed, waited, optimizer.param_groups[0]["lr"])
            if done % table.save_every == 0 or done == steps or ledger.stop or ledger.fault:
                ledger.settle()
                save(done)
            if ledger.fault:
                raise DataError(ledger.fault)
            if ledger.stop and done < steps:
                code = 130 if stop.received == signal.SIGINT else PREEMPTED
                raise Interrupted(f"stopped at step {done} of {steps}, saved; the same command goes on", code)
    accelerator.end_training()
    return Outcome(folder, max(start, steps), log.last)


def forward(
    model: nn.Module, views: ViewSet, batch: Batch, step: int, seed: int, device: torch.device
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and metrics of one batch: the road from columns to a scalar."""
    present = {name: batch.present[views.source_of(name)] for name in views.names if views.source_of(name) in batch.present}
    seen = views(batch, seed, device)
    draws = Draws(seed, batch.position, device, scope="objective")
    torch.manual_seed(hash_name(seed, step, distributed.rank()))  # for dropout and drop-path inside encoders
    return model(seen, Context(step=step, index=batch.index, present=present, draws=draws))


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that the loop waited for it."""
    iterator = iter(batches)
    while True:
        before = time.perf_counter()
        batch = next(iterator, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - before


@contextlib.contextmanager
def _one_writes(accelerator: Accelerator) -> Iterator[bool]:
    """True on the process that writes; all wait for it, and all fail with it."""
    error: StorageError | None = None
    try:
        yield accelerator.is_main_process
    except StorageError as raised:
        error = raised
    failed = distributed.total(torch.tensor(float(error is not None), device=accelerator.device))
    if failed > 0:
        raise error or StorageError("the main process could not write the checkpoint")
