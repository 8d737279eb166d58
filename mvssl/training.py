"""The loop: batches in, checkpoints and metrics out, one optimizer step at a time.

A run goes on where its newest checkpoint stands. Sample order and draws are functions of the step, so a run that was
interrupted is the run that was not.
"""

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from mvssl import checkpoint, distributed, finish, runfolder, startup
from mvssl.checks import matching
from mvssl.checks.check import Check, Checks
from mvssl.checks.heldout import open_held_out
from mvssl.checks.verdict import Verdict
from mvssl.data import Batch
from mvssl.data.loader import Loader
from mvssl.errors import DataError, Interrupted, StorageError
from mvssl.ledger import Ledger
from mvssl.optim import learning_rate
from mvssl.plan import plan
from mvssl.progress import Log, say
from mvssl.recipe import Recipe
from mvssl.stopping import TOO_EARLY, StopSignal
from mvssl.trackers import start_trackers
from mvssl.trainer import Trainer, arithmetic_of, make_accelerator


@dataclass(frozen=True)
class Outcome:
    """Where a run stands: its folder, the steps done, the metrics of the last interval, the verdict."""

    folder: Path
    step: int
    metrics: dict[str, float | None]
    verdict: Verdict | None = None  # of the last check


class Begun(NamedTuple):
    """A run at its first step, or where it goes on."""

    folder: Path
    start: int  # steps done
    batches: Loader
    ledger: Ledger
    checks: Checks


def train(recipe: Recipe, data: Any = None, val: Any = None) -> Outcome:
    """Train, or continue, the run that `recipe` describes; the same on any number of processes.

    `data` is any map-style dataset of dicts, used in place of the recipe's shards, and `val` one in place of data.val.
    Raises `RecipeError`, `DataError`, `OutputError`, `StorageError`, each with the way out; `Interrupted` after SIGTERM
    or Ctrl-C, with all saved.
    """
    folder = Path(recipe.train.out)
    with arithmetic_of(recipe), StopSignal() as stop:
        with stop.at_once(TOO_EARLY):
            accelerator = make_accelerator(recipe)
        with runfolder.claimed(folder), runfolder.noted(folder):
            with stop.at_once(TOO_EARLY):
                trainer = Trainer.prepare(recipe, accelerator, data)
                if data is None:
                    finish.check(recipe, folder)
                    finish.check_layer(recipe, trainer.model)
                begun = _begin(trainer, folder, val)
            return _loop(trainer, begun, stop)


def _begin(trainer: Trainer, folder: Path, val: Any) -> Begun:
    """Go back to the newest checkpoint, if there is one, and say what follows."""
    recipe, accelerator = trainer.recipe, trainer.accelerator
    if recipe.train.check_every != 0:
        trainer.matching = matching.start(recipe.views, len(trainer.source), accelerator.device)
    state, told = startup.resume(
        folder, recipe, trainer.source.fingerprint, trainer.model, trainer.optimizer, trainer.matching
    )
    start = state["step"]
    batches = trainer.batches(start, trainer.steps)
    checks = Checks(trainer, folder, open_held_out(trainer, val) if recipe.train.check_every != 0 else None)
    if accelerator.is_main_process:
        runfolder.describe(folder, recipe)
        for name in ("metrics.jsonl", "bad.jsonl"):  # a new run keeps nothing, not even what came before its first step
            runfolder.cut_lines_after(folder / name, start or -1)
    start_trackers(accelerator)
    say(accelerator, plan(trainer, start, checks), *told)
    counts = {name: state.get(name, 0) for name in ("bad", "skipped", "in_a_row")}
    ledger = Ledger(folder / "bad.jsonl", recipe.data.batch_size, recipe.data.max_bad, **counts)
    return Begun(folder, start, batches, ledger, checks)


def _loop(trainer: Trainer, begun: Begun, stop: StopSignal) -> Outcome:
    folder, start, batches, ledger, checks = begun
    recipe, accelerator, steps = trainer.recipe, trainer.accelerator, trainer.steps

    def save(done: int, check: Check | None) -> None:
        source = trainer.source
        facts = {"fingerprint": source.fingerprint, "columns": source.shapes, "world": distributed.world()}
        facts |= {"held_out": check.held_out} if check else {}
        with _one_writes(accelerator) as writer:
            if writer:
                more = {matching.FILE: trainer.matching.state()} if trainer.matching else {}
                state = {**facts, **ledger.counts()}
                checkpoint.save_checkpoint(
                    folder, done, trainer.model, trainer.optimizer, state, recipe.train.keep, more
                )

    def look(done: int) -> Check | None:
        with log.paused():
            found = checks(done, log.last, lambda: stop.received is not None)
        if found is not None:
            log.check(done, found.values, found.verdict, found.told)
        return found

    log = Log(
        accelerator, folder, start=start, steps=steps, every=recipe.train.log_every, batch_size=recipe.data.batch_size
    )
    done, check, asked = start, None, False
    with log:
        if checks.owed(start):
            check = look(start)
            asked = check is None
            if check and start:
                save(start, check)
        for done, (batch, waited) in enumerate(_timed([] if asked else batches), start + 1):
            verdict, metrics = trainer.step(batch, done - 1, stop.received is not None)
            ledger.note(done, verdict, batch.bad)
            log.add(done, metrics, verdict, waited, learning_rate(recipe.optim, done - 1, steps))
            check = look(done) if checks.due(done) else None
            asked = checks.due(done) and check is None  # to stop, in the middle of a check
            last = done % recipe.train.save_every == 0 or done == steps or asked
            if last or (check and check.best) or ledger.stop or ledger.fault:
                ledger.settle()
                save(done, check)
            if ledger.fault:
                raise DataError(ledger.fault)
            if ledger.stop or asked:
                break
    if not done and (asked or stop.received):
        raise Interrupted(TOO_EARLY, stop.code)
    if ledger.stop or asked or stop.received:
        raise Interrupted(f"stopped at step {done} of {steps}, saved; the same command goes on", stop.code)
    for tracker in accelerator.trackers:
        tracker.finish()
    return Outcome(folder, max(start, steps), log.last, check.verdict if check else None)


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
