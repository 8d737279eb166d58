"""The loop: batches in, checkpoints and metrics out, one optimizer step at a time.

A run goes on where its newest checkpoint stands. Sample order and draws are functions of the step, so a run that was
interrupted is the run that was not.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mvssl.checkpoints import store
from mvssl.data import Batch, Loader
from mvssl.distributed import collectives
from mvssl.errors import DataError, HangError, Interrupted, StorageError
from mvssl.monitoring import matching
from mvssl.monitoring.check import Check, Checks
from mvssl.monitoring.diagnosis import Verdict
from mvssl.monitoring.held_out import open_held_out
from mvssl.optim import learning_rate
from mvssl.process.signals import BEFORE_FIRST_STEP, StopSignal, stop_signals
from mvssl.process.stderr import forgiving_stderr
from mvssl.recipe import Recipe, load_recipe, to_yaml, with_overrides
from mvssl.runs import folder as runfolder
from mvssl.runs.line_files import cut_lines_after
from mvssl.text import warn
from mvssl.training import afterwards, resume
from mvssl.training.ledger import Ledger
from mvssl.training.log import Log, say
from mvssl.training.step import Trainer, arithmetic_of, make_accelerator
from mvssl.training.summary import plan
from mvssl.training.trackers import start_trackers
from mvssl.training.watchdog import FOR_DATA, IN_A_CHECK, Watchdog

AFTER_LAST_STEP = "stopped in train.then; all steps are done and saved, and the same command goes on with the rest"
FAILED_SAVES = 3  # in a row, after which a run ends; until then it goes on and tries again


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
    interval: dict[str, Any] | None  # what the log of an earlier process had of an interval that is not over


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
    after SIGTERM, SIGHUP or Ctrl-C, with all saved.
    """
    recipe = with_overrides(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)
    if then and data is not None:
        afterwards.refuse_without_shards(recipe)
    folder, launcher = Path(recipe.train.out), os.getppid()
    with forgiving_stderr(), arithmetic_of(recipe), stop_signals() as stop, runfolder.errors_explained(stop):
        with stop.at_once(BEFORE_FIRST_STEP):
            accelerator = make_accelerator(recipe)
        with runfolder.claimed(folder), runfolder.exit_recorded(folder, stop):
            with stop.at_once(BEFORE_FIRST_STEP):
                trainer = Trainer.prepare(recipe, accelerator, data)
                if then and data is None:
                    afterwards.check(recipe, folder)
                    afterwards.check_layer(recipe, trainer.model)
                begun = _begin(trainer, folder, val)
            with stop.deferred():
                outcome = _loop(trainer, begun, stop, launcher)
            if then:
                with stop.at_once(AFTER_LAST_STEP):
                    afterwards.finish(recipe, folder)
            return outcome


def _begin(trainer: Trainer, folder: Path, val: Any) -> Begun:
    """Go back to the newest checkpoint, if there is one, and say what follows."""
    recipe, accelerator = trainer.recipe, trainer.accelerator
    if recipe.train.check_every != 0:
        trainer.matching = matching.start(recipe.views, len(trainer.source), accelerator.device)
    state, lines = resume.resume(
        folder, trainer.earlier, recipe, trainer.source.fingerprint, trainer.model, trainer.optimizer, trainer.matching
    )
    start = state["step"]
    batches = trainer.batches(start, trainer.steps)
    checks = Checks(trainer, folder, open_held_out(trainer, val) if recipe.train.check_every != 0 else None)

    def write() -> None:
        runfolder.describe(folder, recipe)
        for name in ("metrics.jsonl", "bad.jsonl"):  # a new run keeps nothing, not even what came before its first step
            cut_lines_after(folder / name, start or -1)

    collectives.run_on_main(write)
    start_trackers(accelerator)
    say(accelerator, plan(trainer, start, checks), *lines)
    counts = {name: state.get(name, 0) for name in ("bad", "skipped", "in_a_row")}
    ledger = Ledger(folder / "bad.jsonl", recipe.data.batch_size, recipe.data.max_bad, **counts)
    return Begun(folder, start, batches, ledger, checks, state.get("interval"))


def _loop(trainer: Trainer, begun: Begun, stop: StopSignal, launcher: int) -> Outcome:
    folder, start, batches, ledger, checks, interval = begun
    recipe, accelerator, steps = trainer.recipe, trainer.accelerator, trainer.steps
    log = Log(
        accelerator, folder, start=start, steps=steps, every=recipe.train.log_every, batch_size=recipe.data.batch_size
    )
    if interval:
        log.restore(interval)
    watch = Watchdog(folder, recipe.train.hang_timeout, stop, launcher)
    save = _Saver(trainer, folder, ledger, log, watch, saved=start)
    # Alone, a process need not wait for a batch once it is asked to stop. Several must stop at the same step.
    alone = collectives.world() == 1
    batches.stopped = lambda: alone and stop.received is not None
    waiting, done, check, asked = _timed(batches), start, None, False

    def stopped() -> bool:
        watch.beat(done, IN_A_CHECK)
        return stop.received is not None

    def check_now() -> Check | None:
        with log.paused():
            found = checks(done, log.last, stopped)
        if found is None:  # asked to stop in the middle of it
            return None
        log.check(done, found.values, found.verdict, found.told)
        if found.best and save.saved != done:
            save(done)
        if found.held_out and save.saved == done > 0:
            save.record(found.held_out)
        return found

    with log, watch:
        try:
            if checks.owed(start):
                check = check_now()
                asked = check is None
            while done < steps and not (asked or ledger.stop):
                watch.beat(done, FOR_DATA)
                batch, waited = next(waiting)
                if batch is None:  # asked to stop while it waited
                    break
                watch.beat(done, "in the model")
                save_asked, stop.save_asked = stop.save_asked, False
                votes, metrics = trainer.step(batch, done, stop.received is not None, save_asked)
                done += 1
                ledger.note(done, votes, batch.bad)
                log.add(done, metrics, votes, waited, learning_rate(recipe.optim, done - 1, steps))
                last = done == steps or ledger.stop or bool(ledger.fault)
                if last or ledger.save or done % recipe.train.save_every == 0:
                    save(done, must=last)
                if ledger.fault:
                    raise DataError(ledger.fault)
                if checks.due(done):
                    check = check_now()
                    asked = check is None
        except StorageError as error:  # of the loader processes, in training or in a check
            if alone and done > save.saved:  # the weights are those of a whole step
                save(done, must=True)
            raise HangError(watch.loader_hang) if watch.loader_hang else error from None
        asked = _any_process(stop.received is not None, accelerator.device)
        if asked and done > save.saved:
            save(done, must=True)
    if asked:
        saved = f"stopped at step {done} of {steps}, saved; the same command goes on" if done else BEFORE_FIRST_STEP
        raise Interrupted(saved, stop.code)
    for tracker in accelerator.trackers:
        tracker.finish()
    return Outcome(folder, max(start, steps), log.last, check.verdict if check else None)


def _timed(batches: Iterable[Batch]) -> Iterator[tuple[Batch | None, float]]:
    """Each batch with the seconds that the loop waited for it; None after the last."""
    iterator = iter(batches)
    while True:
        before = time.perf_counter()
        batch = next(iterator, None)
        yield batch, time.perf_counter() - before


def _any_process(value: bool, device: torch.device) -> bool:
    """Whether it is true on any process; all must ask."""
    return collectives.total(torch.tensor(float(value), device=device)).item() > 0


class _Saver:
    """Writes checkpoints on the main process; the others wait for it, and fail with it."""

    def __init__(self, trainer: Trainer, folder: Path, ledger: Ledger, log: Log, watch: Watchdog, saved: int):
        self.trainer, self.folder, self.ledger, self.log, self.watch = trainer, folder, ledger, log, watch
        self.saved = saved  # step of the newest checkpoint
        self.failures = 0  # in a row
        self.slow = False

    def __call__(self, done: int, must: bool = False) -> None:
        """Save after step number `done`; where it fails, go on and try again later, unless it `must` be saved now.

        Raises `StorageError` on every process.
        """
        self.watch.beat(done, "saving")
        self.ledger.settle()
        self.ledger.save = False
        begin, error = time.perf_counter(), None
        if collectives.rank() == 0:
            try:
                self._write(done)
            except StorageError as raised:
                error = raised
        if not _any_process(error is not None, self.trainer.accelerator.device):
            self.saved, self.failures = done, 0
            self._warn_of_slow(time.perf_counter() - begin)
            return
        self.failures += 1
        if must or self.failures >= FAILED_SAVES:
            raise error or StorageError("the main process could not write the checkpoint")
        if error is not None:
            warn(f"{error}; training goes on and tries again ({self.failures} of {FAILED_SAVES} failures)")

    def record(self, held_out: dict[str, Any]) -> None:
        """Keep the held-out loss of the newest checkpoint, for the choice of the best."""
        if collectives.rank() == 0:
            try:
                store.record_held_out(self.folder, self.saved, held_out)
            except StorageError as error:
                warn(f"{error}; the held-out loss of step {self.saved} is not kept")

    def _write(self, done: int) -> None:
        if not self.folder.is_dir():
            raise StorageError(f"run folder {self.folder} is gone; was it removed?")
        trainer, recipe = self.trainer, self.trainer.recipe
        state = {"fingerprint": trainer.source.fingerprint, "columns": trainer.source.shapes}
        state |= {"world": collectives.world(), "interval": self.log.state(), **self.ledger.counts()}
        more = {matching.FILE: trainer.matching.state()} if trainer.matching else {}
        store.save_checkpoint(
            self.folder, done, trainer.model, trainer.optimizer, state, recipe.train.keep, more, to_yaml(recipe)
        )

    def _warn_of_slow(self, seconds: float) -> None:
        """A launcher kills its processes some time after SIGTERM, in the middle of a save that takes longer."""
        if self.slow or "TORCHELASTIC_RUN_ID" not in os.environ:
            return
        allowed = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")
        if allowed.isdecimal() and seconds > 0.8 * int(allowed):
            self.slow = True
            warn(
                f"saving took {seconds:.0f} s, and the launcher kills this run {allowed} s after SIGTERM; start it "
                f"with TORCH_ELASTIC_SHUTDOWN_TIMEOUT={max(60, round(3 * seconds))}"
            )
