"""The loop: batches in, checkpoints and metrics out, one optimizer step at a time.

A run continues from its newest checkpoint. Sample order and draws are functions of the step, so an interrupted run and
an uninterrupted one have the same weights.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import Accelerator

from mvssl.distributed import collectives
from mvssl.errors import DataError, HangError, Interrupted, StorageError
from mvssl.monitoring.check import Checker
from mvssl.monitoring.diagnosis import Diagnosis
from mvssl.monitoring.held_out import open_held_out
from mvssl.monitoring.mispairing import start_tracking
from mvssl.process.signals import BEFORE_FIRST_STEP, StopRequest, stop_signals
from mvssl.process.streams import tolerant_stderr
from mvssl.recipe import Recipe
from mvssl.runs import exit_record
from mvssl.runs import folder as runfolder
from mvssl.training.accelerator import arithmetic_of, make_accelerator, start_trackers
from mvssl.training.checkpointing import Earlier, Saver, resume_trainer
from mvssl.training.fault_counts import REQUESTED, FaultCounter, StopReason
from mvssl.training.log import Log
from mvssl.training.step import Trainer, run_steps
from mvssl.training.summary import summarize
from mvssl.training.watchdog import Watchdog


class Session(NamedTuple):
    """A command that trains: its processes, its requests to stop, and the number of the process that launched it."""

    accelerator: Accelerator
    stop: StopRequest
    launcher: int


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
    ledger: FaultCounter
    log: Log
    checks: Checker
    saver: Saver
    watchdog: Watchdog
    stop: StopRequest
    diagnosis: Diagnosis | None = None  # of the last check


@contextlib.contextmanager
def open_session(recipe: Recipe) -> Iterator[Session]:
    """Join the processes of the run, and inside the block lock its folder and handle signals.

    Errors of the machine become errors of mvssl, and exit.json gets the way in which the block ends.
    """
    folder, launcher = Path(recipe.train.out), os.getppid()
    with tolerant_stderr(), arithmetic_of(recipe), stop_signals() as stop, exit_record.errors_explained(stop):
        with stop.interruptible(BEFORE_FIRST_STEP):
            accelerator = make_accelerator(recipe)
        with runfolder.claimed(folder), exit_record.exit_recorded(folder, stop):
            yield Session(accelerator, stop, launcher)


def start_run(trainer: Trainer, earlier: Earlier | None, session: Session, val: Any = None) -> Run:
    """Restore the earlier checkpoint, open what the loop reads and writes, and print what the run will do.

    `val` is a dataset in place of data.val.
    """
    recipe, table, stop, folder = trainer.recipe, trainer.recipe.train, session.stop, Path(trainer.recipe.train.out)
    if table.check_every != 0:
        trainer.tracker = start_tracking(recipe.views, len(trainer.source), trainer.device)
    state, lines = resume_trainer(trainer, earlier)
    batches = trainer.batches(trainer.done, trainer.steps, draw_seed=recipe.train.seed, is_stopped=stop.is_requested)
    checks = Checker(trainer, folder, open_held_out(trainer, val) if table.check_every != 0 else None)
    collectives.run_on_main(lambda: runfolder.describe(folder, recipe, trainer.done))
    start_trackers(trainer.accelerator)
    ledger = FaultCounter(folder, recipe.data, state)
    log = Log(
        trainer.accelerator, folder, start=trainer.done, steps=trainer.steps, every=table.log_every,
        batch_size=recipe.data.batch_size, interval=state.interval,
    )  # fmt: skip
    if trainer.accelerator.is_main_process:
        log.console.print(summarize(trainer, checks), *lines, sep="\n", highlight=False, markup=False)
    watchdog = Watchdog(folder, table.hang_timeout, stop, session.launcher, trainer.done)
    saver = Saver(trainer, folder, ledger, log, watchdog)
    steps = run_steps(trainer, batches, ledger, log, stop, watchdog.enter)
    return Run(trainer, folder, steps, ledger, log, checks, saver, watchdog, stop)


def finish_run(run: Run) -> Outcome:
    """Take the steps that are left and return the outcome, or raise the reason why the run stopped before."""
    trainer, saver = run.trainer, run.saver
    with run.log, run.watchdog, run.saver:
        try:
            reason = _take_steps(run)
        except StorageError as error:  # often of loader processes, in training or in a check
            if collectives.world_size() == 1:
                saver.save_unsaved()
            raise HangError(run.watchdog.loader_hang) if run.watchdog.loader_hang else error from None
        if reason is None and collectives.is_any(run.stop.is_requested(), trainer.device):
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
    if run.checks.is_missing(trainer.done) and not _check(run):
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
    """Check the present weights and keep the results; return False if a process was asked to stop meanwhile."""
    done, saver = run.trainer.done, run.saver
    with run.log.paused():
        check = run.checks(done, run.log.last, run.watchdog.is_stop_asked)
    if check is None:
        return False
    run.log.check(done, check.values, check.diagnosis, check.lines)
    if check.held_out:
        saver.keep_held_out(check.held_out)
    run.diagnosis = check.diagnosis
    return True
