"""What a run saves, and how the same command continues it.

in   a `Trainer` after a step, with the counts of its ledger and its log; or the folder of an earlier run
out  a checkpoint, written by a thread of the main process; or the earlier weights, moments and counts

A save copies all tensors to a kept buffer, and training goes on while a thread hashes and writes the copies. All
processes learn at the next save, after a check or at the end whether the checkpoint is complete. Only then it counts
as saved. A kill before that leaves the checkpoint before, as a kill during any save does.
"""

import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from mvssl.checkpoints import store
from mvssl.checkpoints.tensor_file import HostBuffer, TensorFile, buffer_size, claim_buffer
from mvssl.distributed import collectives
from mvssl.errors import MvsslError, RecipeError, StorageError
from mvssl.recipe import Recipe, to_yaml
from mvssl.runs import folder as runfolder
from mvssl.runs.versions import other_versions
from mvssl.text import warn
from mvssl.training.fault_counts import FaultCounter
from mvssl.training.log import Log
from mvssl.training.step import Trainer
from mvssl.training.watchdog import Watchdog

_STEP_COUNT, _ALIGNMENT = 4, 4096  # bytes: AdamW's count of the steps of a parameter, and gaps between files
FAILED_SAVES = 3  # in a row, after which a run ends; until then it goes on and tries again


class Earlier(NamedTuple):
    """The checkpoint from which a run continues, and the recipe that it was trained with."""

    checkpoint: Path
    recipe: Recipe


def find_earlier(folder: Path) -> Earlier | None:
    """Return the newest checkpoint of a run that verifies; None for a new run.

    The same on every process. Raises `DataError`, `StorageError`, and `RecipeError` if processes see other folders.
    """

    def find_newest() -> tuple[Path, str] | None:
        checkpoint = store.newest(folder)
        return None if checkpoint is None else (checkpoint, store.digest(checkpoint))

    agreed = collectives.run_on_main(find_newest)
    if agreed is None:
        return None
    checkpoint, digest = agreed
    if store.digest(checkpoint) != digest:
        raise RecipeError(
            f"process {collectives.rank()} does not find the main process's {checkpoint}: put the run folder where "
            "every node sees it"
        )
    return Earlier(checkpoint, runfolder.recipe_of(folder, checkpoint))


def resume_trainer(trainer: Trainer, earlier: Earlier | None) -> tuple[store.State, list[str]]:
    """Restore weights, moments and step count; return the state of the checkpoint and lines to print.

    Raises `RecipeError` if a difference of the recipe or the data changes samples, model or loss.
    """
    if earlier is None:
        return store.State(step=0), []
    folder, checkpoint, world = Path(trainer.recipe.train.out), earlier.checkpoint, collectives.world_size()
    changed = runfolder.refuse_changes(folder, earlier.recipe, trainer.recipe)
    state = store.load_state(checkpoint)
    now = trainer.source.fingerprint
    if state.fingerprint != now:
        raise RecipeError(
            f"{folder} was trained on other data (fingerprint {state.fingerprint[:12]}, now {now[:12]}): "
            "give it the shards that it had, or start a new run with train.out=FOLDER"
        )
    store.load_into(checkpoint, trainer.model, trainer.optimizer)
    if trainer.tracker:
        trainer.tracker.restore(checkpoint)
    trainer.done = state.step
    lines = [f"continues {checkpoint} at step {state.step}", *(f"  changed {line}" for line in changed)]
    lines += other_versions(folder)
    if state.world not in (None, world):
        lines.append(f"  processes: {state.world} -> {world}; same samples and draws, other rounding")
    return state, lines


class Saver:
    """Saves a run inside a `with` block, whose end waits for the last save.

    `saved` is the step of the newest complete checkpoint, equal on every process. On the main process `written` is the
    write that a thread does or did last.
    """

    def __init__(self, trainer: Trainer, folder: Path, ledger: FaultCounter, log: Log, watchdog: Watchdog):
        self.trainer, self.folder, self.ledger, self.log, self.watchdog = trainer, folder, ledger, log, watchdog
        self.saved = trainer.done
        self.failures = 0  # in a row
        self.beside: bool | None = None  # whether saves run beside the loop; None before the first save
        self._unsettled: int | None = None  # the step of a save whose outcome the other processes do not know yet
        self._buffer: HostBuffer | None = None
        self._warned = False

    def __enter__(self) -> "Saver":
        self._threads = ThreadPoolExecutor(1, "mvssl saver")
        self.written: Future[None] = self._threads.submit(self._claim_buffer)
        return self

    def __exit__(self, *_: object) -> None:
        self.watchdog.beat(self.trainer.done, "saving")
        self._threads.shutdown()  # also after an error: a checkpoint that is being written is completed
        if self._buffer is not None:
            self._buffer.close()

    def save(self, *, must: bool = False) -> None:
        """Begin to save the present weights. After a failure go on and try again, unless the step `must` be saved.

        Wait until they are saved if the step must be, if the save before failed, or if there is no room for copies.
        Raise `MvsslError` on every process.
        """
        self.settle()
        done = self.trainer.done
        self.ledger.read_last_vote()
        self.ledger.save_requested = False
        if self.beside is None:
            self.beside = collectives.run_on_main(self._has_buffer)
        if collectives.rank() == 0:
            self._begin(done)
        self._unsettled = done
        if must or self.failures or not self.beside:
            self.settle(must=must)

    def settle(self, *, must: bool = False) -> None:
        """Wait until the last save is complete, or count its failure. Every process must call it.

        Raise `MvsslError` on every process if the save failed and `must` not fail, or if too many failed in a row.
        """
        if self._unsettled is None:
            return
        step, self._unsettled = self._unsettled, None
        self.watchdog.beat(self.trainer.done, "saving")
        try:
            collectives.run_on_main(lambda: self.written.result(), share=False)
        except MvsslError as error:
            self.failures += 1
            if must or self.failures >= FAILED_SAVES:
                raise
            warn(f"{error}; training goes on and tries again ({self.failures} of {FAILED_SAVES} failures)")
            return
        self.saved, self.failures = step, 0

    def save_unsaved(self) -> None:
        """Save the present weights and wait until they are saved, unless the newest checkpoint holds them."""
        self.settle()
        if self.trainer.done > self.saved:
            self.save(must=True)

    def keep_held_out(self, held_out: store.HeldOutLoss) -> None:
        """Write the held-out loss of the present weights beside their checkpoint, by which the best one is chosen.

        If they are not saved, save them first, but only if no checkpoint has a lower loss.
        """
        self.settle()
        done = self.trainer.done
        if self.saved != done and collectives.run_on_main(lambda: store.would_be_best(self.folder, held_out)):
            self.save()
            self.settle()
        if self.saved == done > 0 and collectives.rank() == 0:
            try:
                store.record_held_out(self.folder, done, held_out)
            except StorageError as error:
                warn(f"{error}; the held-out loss of step {done} is not kept")

    def _claim_buffer(self) -> None:
        """Claim the memory for copies while the first steps run, on the main process."""
        if collectives.rank() == 0:
            self._buffer = claim_buffer(checkpoint_bytes(self.trainer), self.trainer.device)

    def _has_buffer(self) -> bool:
        """Return whether there is a buffer for the copies of this run; print a warning if there is none."""
        self.written.result()  # of `_claim_buffer`
        size = buffer_size(self._files().values())
        if self._buffer is not None and len(self._buffer.bytes) < size:
            self._buffer.close()
            self._buffer = claim_buffer(size, self.trainer.device)
        if self._buffer is None:
            warn(f"there is no room for a copy of {size / 1e6:,.0f} MB, so training waits during each save")
        return self._buffer is not None

    def _files(self) -> dict[str, TensorFile]:
        trainer = self.trainer
        more = {trainer.tracker.file: trainer.tracker.state()} if trainer.tracker else {}
        return store.tensor_files(trainer.model, trainer.optimizer, more)

    def _begin(self, done: int) -> None:
        """Copy the tensors, and let the thread write them; without a buffer it reads the live ones."""
        trainer, files = self.trainer, self._files()
        state = {"fingerprint": trainer.source.fingerprint, "columns": trainer.source.shapes}
        state |= {"world": collectives.world_size(), "interval": self.log.state(), **self.ledger.counts()}
        if self._buffer is None:
            parts = {name: file.parts() for name, file in files.items()}
        else:
            parts = self._buffer.copy(files)
        self.written = self._threads.submit(self._write, done, parts, state)

    def _write(self, done: int, parts: Mapping[str, Iterable[memoryview]], state: dict[str, Any]) -> None:
        begin, train = time.perf_counter(), self.trainer.recipe.train
        if not self.folder.is_dir():
            raise StorageError(f"run folder {self.folder} is gone; was it removed?")
        store.write_checkpoint(self.folder, done, parts, state, train.keep, to_yaml(self.trainer.recipe))
        self._warn_of_slow(time.perf_counter() - begin)

    def _warn_of_slow(self, seconds: float) -> None:
        """Warn if a save takes so long that the launcher would kill its processes during it, after SIGTERM."""
        if self._warned or "TORCHELASTIC_RUN_ID" not in os.environ:
            return
        allowed = os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30")
        if allowed.isdecimal() and seconds > 0.8 * int(allowed):
            self._warned = True
            warn(
                f"saving took {seconds:.0f} s, and the launcher kills this run {allowed} s after SIGTERM; start it "
                f"with TORCH_ELASTIC_SHUTDOWN_TIMEOUT={max(60, round(3 * seconds))}"
            )


def checkpoint_bytes(trainer: Trainer) -> int:
    """Return about how many bytes the tensors of a checkpoint have, also before the first step has made the moments."""
    tracked = trainer.tracker.state().values() if trainer.tracker else ()
    kept = sum(tensor.nbytes for tensor in (*trainer.model.state_dict().values(), *tracked))
    moments = sum(2 * p.nbytes + _STEP_COUNT for p in trainer.model.parameters() if p.requires_grad)
    return kept + moments + _ALIGNMENT
