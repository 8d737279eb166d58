"""What happens before the first step: data opened, idle parameters frozen, an earlier run resumed."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from mvssl.checkpoints import store as checkpoint
from mvssl.data import ShardSource, open_shards, pack, pack_destination
from mvssl.distributed import collectives
from mvssl.errors import OutputError, RecipeError
from mvssl.model import MultiView, find_idle_parameters
from mvssl.monitoring.matching import Matching
from mvssl.objectives import Context
from mvssl.random import Draws
from mvssl.recipe import Data, Recipe
from mvssl.runs import folder as runfolder
from mvssl.views import ViewSet


def open_training(table: Data) -> ShardSource:
    """The shards to train on, packed first where the recipe says from what; the main process does it for all."""
    if not table.train:
        raise RecipeError("data.train is empty: name shards, or call train(recipe, data=DATASET) from Python")
    main = collectives.rank() == 0

    def work() -> ShardSource:
        if table.pack and main:
            pack_once(table)
        return open_shards(table.train, table.folder, table.columns, missing=table.missing, progress=main)

    return collectives.run_main_first(work)


def pack_once(table: Data) -> None:
    """Make the shards of `data.pack` in a folder of the data folder, named after it, unless they are there."""
    destination = pack_destination(str(table.pack), table.folder)
    try:
        if not (destination / "train").is_dir():
            print("\n".join(pack(str(table.pack), destination).summary()), flush=True)
    except OutputError:
        if not (destination / "train").is_dir():  # else another run packed it meanwhile
            raise


def refuse_lonely(model: MultiView, batch: int) -> None:
    """Raise `RecipeError` where an objective that compares samples would meet one alone and learn nothing."""
    for name, _, objective in model.terms:
        counts = objective.candidates(batch)
        if counts and max(counts.values()) < 2:
            raise RecipeError(
                f"data.batch_size: {batch} leaves the objective {name} nothing to compare a sample with, so that it "
                "cannot learn; take at least 2 samples, over all processes"
            )


def freeze_unreached(model: MultiView, views: ViewSet, device: torch.device) -> list[str]:
    """Freeze the parameters that no loss reaches, which DDP would wait for, and name them."""
    position = torch.arange(2) + 2 * collectives.rank()
    some = torch.Generator().manual_seed(0)
    seen = {name: torch.randn(2, *shape, generator=some).to(device) for name, shape in views.shapes.items()}
    context = Context(step=0, index=position, draws=Draws(0, position, device))
    names = find_idle_parameters(model, seen, context)
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return names


class Earlier(NamedTuple):
    """Where a run goes on from."""

    checkpoint: Path
    recipe: Recipe  # that it was trained with


def find_earlier(folder: Path) -> Earlier | None:
    """The newest checkpoint of a run that verifies, and its recipe; None for a new run.

    The same on every process. Raises `DataError`, `StorageError`, and `RecipeError` where processes see other folders.
    """
    agreed = collectives.run_on_main(lambda: _identified(checkpoint.newest(folder)))
    if agreed is None:
        return None
    found, digest = agreed
    if checkpoint.digest(found) != digest:
        raise RecipeError(
            f"process {collectives.rank()} does not find the main process's {found}: put the run folder where every "
            "node sees it"
        )
    return Earlier(found, runfolder.recipe_of(folder, found))


def _identified(found: Path | None) -> tuple[Path, str] | None:
    return None if found is None else (found, checkpoint.digest(found))


def resume(
    folder: Path,
    earlier: Earlier | None,
    recipe: Recipe,
    fingerprint: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    matching: Matching | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The state of an earlier checkpoint, with weights and moments restored, and lines to print; step 0 without one.

    Raises `RecipeError` where the recipe or the data differ in what alters samples, model or loss.
    """
    if earlier is None:
        return {"step": 0, "bad": 0, "skipped": 0, "in_a_row": 0}, []
    found = earlier.checkpoint
    changed = runfolder.refuse_changes(folder, earlier.recipe, recipe)
    state = checkpoint.load_state(found)
    before = state.get("fingerprint", "")
    if before != fingerprint:
        raise RecipeError(
            f"{folder} was trained on other data (fingerprint {before[:12]}, now {fingerprint[:12]}): "
            "give it the shards that it had, or start a new run with train.out=FOLDER"
        )
    checkpoint.restore(found, model, optimizer)
    if matching:
        matching.restore(found)
    lines = [f"continues {found} at step {state['step']}", *(f"  changed {line}" for line in changed)]
    lines += runfolder.other_versions(folder)
    world = state.get("world", collectives.world())
    if world != collectives.world():
        lines.append(f"  processes: {world} -> {collectives.world()}; same samples and draws, other rounding")
    return state, lines
