"""The loop: batches in, checkpoints and metrics out, one optimizer step at a time.

A run goes on where its newest checkpoint stands. Sample order and draws are functions of the step, so a run that was
interrupted is the run that was not.
"""

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from mvssl import checkpoint, distributed, finish, guard, run, startup
from mvssl.data import Batch
from mvssl.errors import PREEMPTED, DataError, MvsslError, StorageError
from mvssl.ledger import Ledger
from mvssl.optim import learning_rate
from mvssl.progress import Log, say
from mvssl.recipe import Recipe
from mvssl.trainer import Trainer, make_accelerator


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
    metrics: dict[str, float | None]


def train(recipe: Recipe, data: Any = None) -> Outcome:
    """Train, or continue, the run that `recipe` describes; the same on any number of processes.

    `data` is any map-style dataset of dicts, used in place of the recipe's shards. Raises `RecipeError`, `DataError`,
    `OutputError`, `StorageError`, each with the way out; `Interrupted` after SIGTERM or Ctrl-C, with all saved.
    """
    accelerator = make_accelerator(recipe)
    folder = Path(recipe.train.out)
    with run.claimed(folder), run.noted(folder):
        trainer = Trainer.prepare(recipe, accelerator, data)
        if data is None:
            finish.check(recipe, folder)
        return _loop(trainer, folder)


def _loop(trainer: Trainer, folder: Path) -> Outcome:
    recipe, accelerator, steps = trainer.recipe, trainer.accelerator, trainer.steps
    state, told = startup.resume(folder, recipe, trainer.source.fingerprint, trainer.model, trainer.optimizer)
    start = state["step"]
    batches = trainer.batches(start, steps)
    if accelerator.is_main_process:
        run.describe(folder, recipe)
        run.cut_lines_after(folder / "metrics.jsonl", start)
        run.cut_lines_after(folder / "bad.jsonl", start)
    accelerator.init_trackers("trackers")
    say(accelerator, startup.plan(trainer, start), *told)
    ledger = Ledger(
        folder / "bad.jsonl",
        recipe.data.batch_size,
        recipe.data.max_bad,
        bad=state["bad"],
        skipped=state["skipped"],
        in_a_row=state["in_a_row"],
    )

    def save(done: int) -> None:
        source = trainer.source
        facts = {"fingerprint": source.fingerprint, "columns": source.shapes, "world": distributed.world()}
        with _one_writes(accelerator) as writer:
            if writer:
                checkpoint.save_checkpoint(
                    folder, done, trainer.model, trainer.optimizer, {**facts, **ledger.counts()}, recipe.train.keep
                )

    log = Log(
        accelerator, folder, start=start, steps=steps, every=recipe.train.log_every, batch_size=recipe.data.batch_size
    )
    done = start
    with guard.StopSignal() as stop, log:
        for done, (batch, waited) in enumerate(_timed(batches), start + 1):
            verdict, metrics = trainer.step(batch, done - 1, stop.received is not None)
            ledger.note(done, verdict, batch.bad)
            log.add(done, metrics, verdict, waited, learning_rate(recipe.optim, done - 1, steps))
            if done % recipe.train.save_every == 0 or done == steps or ledger.stop or ledger.fault:
                ledger.settle()
                save(done)
            if ledger.fault:
                raise DataError(ledger.fault)
            if ledger.stop:
                break
    if ledger.stop or stop.received:
        code = 128 + signal.SIGINT if stop.received == signal.SIGINT else PREEMPTED
        raise Interrupted(f"stopped at step {done} of {steps}, saved; the same command goes on", code)
    for tracker in accelerator.trackers:
        tracker.finish()
    return Outcome(folder, max(start, steps), log.last)


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
