"""The loop: batches in, checkpoints and metrics out, one optimizer step at a time.

A run continues from its newest checkpoint. Sample order and draws are functions of the step, so an interrupted run and
an uninterrupted one have the same weights.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvssl.distributed import collectives
from mvssl.errors import DataError, HangError, Interrupted, StorageError
from mvssl.monitoring.check import Checks
from mvssl.monitoring.diagnosis import Diagnosis
from mvssl.monitoring.held_out import open_held_out
from mvssl.monitoring.mispairing import start_tracking
from mvssl.process.signals import BEFORE_FIRST_STEP, StopRequest, stop_signals
from mvssl.process.streams import tolerant_stderr
from mvssl.recipe import Recipe, load_recipe, with_overrides
from mvssl.runs import folder as runfolder
from mvssl.runs.line_files import cut_lines_after
from mvssl.training import afterwards
from mvssl.training.ledger import REQUESTED, Ledger, StopReason
from mvssl.training.log import Log, print_lines
from mvssl.training.preparation import arithmetic_of, make_accelerator, prepare
from mvssl.training.resume import Earlier, restore
from mvssl.training.saving import Saver
from mvssl.training.step import Trainer, run_steps
from mvssl.training.summary import plan
from mvssl.training.trackers import start_trackers
from mvssl.training.watchdog import Watchdog

AFTER_LAST_STEP = "stopped in train.then; all steps are done and saved, and the same command continues with the rest"


@dataclass(frozen=True)
class Outcome:
    """Where a run stands: its folder, the steps done, the metrics of the last interval, the last diagnosis."""

    folder: Path
    step: int
    metrics: dict[str, float | None]
    diagnosis: Diagnosis | None = None  # of the last check


@dataclass
class Run:
    """A run that is ready for its next step, with all that writes, watches and checks it."""

    trainer: Trainer
    folder: Path
    steps: Iterator[int]  # takes one step and yields how many are done
    ledger: Ledger
    log: Log
    checks: Checks
    saver: Saver
    watchdog: Watchdog
    stop: StopRequest
    diagnosis: Diagnosis | None = None  # of the last check


def train(
    recipe: Recipe | str | Path,
    overrides: Iterable[str] = (),
    *,
    data: Any = None,
    val: Any = None,
    then: bool = True,
) -> Outcome:
    """Train, or continue, the run that `recipe` describes; the same on any number of processes.

    `recipe` is a `Recipe` or the path of a file; `overrides` are as in `load_recipe`.
    `data` is any map-style dataset of dicts, used in place of the recipe's shards, and `val` one in place of data.val.
    After the last step, do what `train.then` lists, unless `then` is false; what reads shards is refused with `data`.
    Raises `RecipeError`, `DataError`, `OutputError`, `StorageError`, `HangError`, each with what to do; `Interrupted`
    after SIGTERM, SIGHUP or Ctrl-C, with all steps saved.
    """
    recipe = with_overrides(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if then and data is not None:
        afterwards.refuse_without_shards(recipe)
    folder, launcher = Path(recipe.train.out), os.getppid()
    with tolerant_stderr(), arithmetic_of(recipe), stop_signals() as stop, runfolder.errors_explained(stop):
        with stop.interruptible(BEFORE_FIRST_STEP):
            accelerator = make_accelerator(recipe)
        with runfolder.claimed(folder), runfolder.exit_recorded(folder, stop):
            with stop.interruptible(BEFORE_FIRST_STEP):
                trainer, earlier = prepare(recipe, accelerator, data)
                if then:
                    afterwards.check_then(recipe, folder, trainer.model)
                run = _start(trainer, earlier, val, stop, launcher)
            with stop.deferred():
                outcome = _loop(run)
            if then:
                with stop.interruptible(AFTER_LAST_STEP):
                    afterwards.run_then(recipe, folder)
            return outcome


def _start(trainer: Trainer, earlier: Earlier | None, val: Any, stop: StopRequest, launcher: int) -> Run:
    """Restore the earlier checkpoint, open what the loop reads and writes, and print what the run will do."""
    recipe, accelerator, folder = trainer.recipe, trainer.accelerator, Path(trainer.recipe.train.out)
    if recipe.train.check_every != 0:
        trainer.observer = start_tracking(recipe.views, len(trainer.source), accelerator.device)
    state, lines = restore(trainer, earlier)
    batches = trainer.batches(trainer.done, trainer.steps)
    # A process that is alone need not wait for a batch when it is asked to stop. Several must stop at the same step.
    batches.stopped = stop.is_requested if collectives.world() == 1 else batches.stopped
    monitored = trainer.monitored()
    checks = Checks(monitored, folder, open_held_out(monitored, val) if recipe.train.check_every != 0 else None)
    collectives.run_on_main(lambda: _write_folder(folder, recipe, trainer.done))
    start_trackers(accelerator)
    print_lines(accelerator, plan(trainer, checks), *lines)
    counts = {name: state.get(name, 0) for name in ("bad", "skipped", "in_a_row")}
    ledger = Ledger(folder / "bad.jsonl", recipe.data.batch_size, recipe.data.max_bad, **counts)
    log = Log(
        accelerator, folder, start=trainer.done, steps=trainer.steps, every=recipe.train.log_every,
        batch_size=recipe.data.batch_size, interval=state.get("interval"),
    )  # fmt: skip
    watchdog = Watchdog(folder, recipe.train.hang_timeout, stop, launcher, trainer.done)
    saver = Saver(trainer, folder, ledger, log, watchdog)
    steps = run_steps(trainer, batches, ledger, log, stop, watchdog.enter)
    return Run(trainer, folder, steps, ledger, log, checks, saver, watchdog, stop)


def _write_folder(folder: Path, recipe: Recipe, done: int) -> None:
    """Write recipe and versions, and remove what an earlier process logged after the step from which the run goes on.

    A new run keeps nothing, not even the check before its first step.
    """
    runfolder.describe(folder, recipe)
    for name in ("metrics.jsonl", "bad.jsonl"):
        cut_lines_after(folder / name, done or -1)


def _loop(run: Run) -> Outcome:
    """Take the steps that are left and return the outcome, or raise the reason why the run stopped before."""
    trainer, saver = run.trainer, run.saver
    with run.log, run.watchdog:
        try:
            reason = _take_steps(run)
        except StorageError as error:  # often of loader processes, in training or in a check
            if collectives.world() == 1:
                saver.save_unsaved()
            raise HangError(run.watchdog.loader_hang) if run.watchdog.loader_hang else error from None
        if reason is None and collectives.is_any(run.stop.is_requested(), trainer.accelerator.device):
            reason = REQUESTED
        if reason is not None:
            saver.save_unsaved()
    if reason is not None and reason.is_fault:
        raise DataError(reason.message)
    if reason is not None:
        saved = f"stopped at step {trainer.done} of {trainer.steps}, saved; the same command continues the run"
        raise Interrupted(saved if trainer.done else BEFORE_FIRST_STEP, run.stop.code)
    for tracker in trainer.accelerator.trackers:
        tracker.finish()
    return Outcome(run.folder, trainer.done, run.log.last, run.diagnosis)


def _take_steps(run: Run) -> StopReason | None:
    """Step, save and check until all steps are done; return why the run must stop before, or None."""
    trainer, table, ledger = run.trainer, run.trainer.recipe.train, run.ledger
    if run.checks.is_owed(trainer.done) and not _check(run):
        return REQUESTED
    for done in run.steps:
        run.watchdog.step = done
        last = done == trainer.steps or ledger.stop_reason is not None
        if last or ledger.save_requested or done % table.save_every == 0:
            run.saver.save(must=last)
        if ledger.stop_reason is not None:  # perhaps by the vote of this step, which saving has read
            return ledger.stop_reason
        if run.checks.is_due(done) and not _check(run):
            return REQUESTED
    return None


def _check(run: Run) -> bool:
    """Check the weights of now and keep the findings; return False where a process was asked to stop meanwhile."""
    done, saver = run.trainer.done, run.saver
    with run.log.paused():
        check = run.checks(done, run.log.last, run.watchdog.is_stop_asked)
    if check is None:
        return False
    run.log.check(done, check.values, check.diagnosis, check.lines)
    if check.best and saver.saved != done:
        saver.save()
    if check.held_out and saver.saved == done > 0:
        saver.record_held_out(check.held_out)
    run.diagnosis = check.diagnosis
    return True
