"""Continues a run from its newest checkpoint.

in   the run folder
out  the checkpoint that verifies, with its recipe; weights, moments and counts as they were
"""

from pathlib import Path
from typing import Any, NamedTuple

from mvssl.checkpoints import store
from mvssl.distributed import collectives
from mvssl.errors import RecipeError
from mvssl.recipe import Recipe
from mvssl.runs import folder as runfolder
from mvssl.training.step import Trainer

NEW_RUN: dict[str, Any] = {"step": 0, "bad": 0, "skipped": 0, "in_a_row": 0}


class Earlier(NamedTuple):
    """The checkpoint from which a run continues, and the recipe that it was trained with."""

    checkpoint: Path
    recipe: Recipe


def find_earlier(folder: Path) -> Earlier | None:
    """Return the newest checkpoint of a run that verifies; None for a new run.

    The same on every process. Raises `DataError`, `StorageError`, and `RecipeError` where processes see other folders.
    """
    agreed = collectives.run_on_main(lambda: _identify(store.newest(folder)))
    if agreed is None:
        return None
    checkpoint, digest = agreed
    if store.digest(checkpoint) != digest:
        raise RecipeError(
            f"process {collectives.rank()} does not find the main process's {checkpoint}: put the run folder where "
            "every node sees it"
        )
    return Earlier(checkpoint, runfolder.recipe_of(folder, checkpoint))


def _identify(checkpoint: Path | None) -> tuple[Path, str] | None:
    return None if checkpoint is None else (checkpoint, store.digest(checkpoint))


def restore(trainer: Trainer, earlier: Earlier | None) -> tuple[dict[str, Any], list[str]]:
    """Restore weights, moments and step count; return the state of the checkpoint and lines to print.

    Raises `RecipeError` where the recipe or the data differ in what changes samples, model or loss.
    """
    if earlier is None:
        return NEW_RUN, []
    folder, checkpoint = Path(trainer.recipe.train.out), earlier.checkpoint
    changed = runfolder.refuse_changes(folder, earlier.recipe, trainer.recipe)
    state = store.load_state(checkpoint)
    before, now = state.get("fingerprint", ""), trainer.source.fingerprint
    if before != now:
        raise RecipeError(
            f"{folder} was trained on other data (fingerprint {before[:12]}, now {now[:12]}): "
            "give it the shards that it had, or start a new run with train.out=FOLDER"
        )
    store.restore(checkpoint, trainer.model, trainer.optimizer)
    if trainer.observer:
        trainer.observer.restore(checkpoint)
    trainer.done = state["step"]
    lines = [f"continues {checkpoint} at step {state['step']}", *(f"  changed {line}" for line in changed)]
    lines += runfolder.other_versions(folder)
    world = state.get("world", collectives.world())
    if world != collectives.world():
        lines.append(f"  processes: {world} -> {collectives.world()}; same samples and draws, other rounding")
    return state, lines
