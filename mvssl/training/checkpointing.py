"""What a run saves, and how the same command continues it.

in   a `Trainer` after a step, with the counts of its ledger and its log; or the folder of an earlier run
out  a checkpoint, written by the main process while the others wait; or the earlier weights, moments and counts
"""

import os
import time
from pathlib import Path
from typing import NamedTuple

from mvssl.checkpoints import store
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
    """Saves a run; `saved` is the step of its newest checkpoint."""

    def __init__(self, trainer: Trainer, folder: Path, ledger: FaultCounter, log: Log, watchdog: Watchdog):
        self.trainer, self.folder, self.ledger, self.log, self.watchdog = trainer, folder, ledger, log, watchdog
        self.saved = trainer.done
        self.failures = 0  # in a row
        self._warned = False

    def save(self, *, must: bool = False) -> None:
        """Save the present weights. After a failure go on and try again later, unless the step `must` be saved.

        Raises `MvsslError` on every process.
        """
        done = self.trainer.done
        self.watchdog.beat(done, "saving")
        self.ledger.read_last_vote()
        self.ledger.save_requested = False
        begin = time.perf_counter()
        try:
            collectives.run_on_main(lambda: self._write(done), share=False)
        except MvsslError as error:
            self.failures += 1
            if must or self.failures >= FAILED_SAVES:
                raise
            warn(f"{error}; training goes on and tries again ({self.failures} of {FAILED_SAVES} failures)")
            return
        self.saved, self.failures = done, 0
        self._warn_of_slow(time.perf_counter() - begin)

    def save_unsaved(self) -> None:
        """Save the present weights, unless the newest checkpoint holds them."""
        if self.trainer.done > self.saved:
            self.save(must=True)

    def record_held_out(self, held_out: store.HeldOutLoss) -> None:
        """Write the held-out loss of the newest checkpoint, by which the best one is chosen."""
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
        state |= {"world": collectives.world_size(), "interval": self.log.state(), **self.ledger.counts()}
        more = {trainer.tracker.file: trainer.tracker.state()} if trainer.tracker else {}
        store.save_checkpoint(
            self.folder, done, trainer.model, trainer.optimizer, state, recipe.train.keep, more, to_yaml(recipe)
        )

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
