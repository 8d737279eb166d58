"""What happens before the first step: data opened, idle parameters frozen, an earlier run resumed."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvssl import checkpoint, distributed, runfolder
from mvssl.checks.matching import Matching
from mvssl.data import Shards, open_shards
from mvssl.draws import Draws
from mvssl.errors import OutputError, RecipeError
from mvssl.model import MultiView, unreached
from mvssl.objectives import Context
from mvssl.recipe import Data, Recipe
from mvssl.views import ViewSet


def open_training(table: Data) -> Shards:
    """The shards to train on, packed first where the recipe says from what; the main process does it for all."""
    if not table.train:
        raise RecipeError("data.train is empty: name shards, or call train(recipe, data=DATASET) from Python")
    main = distributed.rank() == 0

    def work() -> Shards:
        if table.pack and main:
            pack_once(table)
        return open_shards(table.train, table.folder, table.columns, missing=table.missing, progress=main)

    return distributed.main_first(work)


def pack_once(table: Data) -> None:
    """Make the shards of `data.pack` in a folder of the data folder, named after it, unless they are there."""
    from mvssl.data.pack import destination_of, pack

    destination = destination_of(str(table.pack), table.folder)
    try:
        if not (destination / "train").is_dir():
            pack(str(table.pack), destination)
    except OutputError:
        if not (destination / "train").is_dir():  # else another run packed it meanwhile
            raise


def refuse_lonely(model: MultiView, batch: int) -> None:
    """Raise `RecipeError` where an objective that compares samples would meet one alone and learn nothing."""
    for name, term in zip(model.labels, model.objective, strict=True):
        counts = getattr(term, "candidates", lambda _: {})(batch)
        if counts and max(counts.values()) < 2:
            raise RecipeError(
                f"data.batch_size: {batch} leaves the objective {name} nothing to compare a sample with, so that it "
                "cannot learn; take at least 2 samples, over all processes"
            )


def freeze_unreached(model: MultiView, views: ViewSet, device: torch.device) -> list[str]:
    """Freeze the parameters that no loss reaches, which DDP would wait for, and name them."""
    position = torch.arange(2) + 2 * distributed.rank()
    some = torch.Generator().manual_seed(0)
    seen = {name: torch.randn(2, *shape, generator=some).to(device) for name, shape in views.shapes.items()}
    names = unreached(model, seen, Context(step=0, index=position, present={}, draws=Draws(0, position, device)))
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return names


def resume(
    folder: Path,
    recipe: Recipe,
    fingerprint: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    matching: Matching | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The state of the run in `folder`, with weights and moments restored, and what to tell of it; step 0 if it is new.

    Raises `RecipeError` where the recipe or the data differ in what alters samples, model or loss.
    """
    found = distributed.from_main(lambda: _agreed(checkpoint.newest(folder)))
    if found is None:
        return {"step": 0, "bad": 0, "skipped": 0, "in_a_row": 0}, []
    found, digest = found
    if not found.is_dir() or _agreed(found)[1] != digest:  # pyright: ignore[reportOptionalSubscript]
        raise RecipeError(
            f"process {distributed.rank()} does not find the main process's {found}: put the run folder where every "
            "node sees it"
        )
    changed = runfolder.refuse_changes(folder, recipe)
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
    told = [f"continues {found} at step {state['step']}", *(f"  changed {line}" for line in changed)]
    told += runfolder.other_versions(folder)
    world = state.get("world", distributed.world())
    if world != distributed.world():
        told.append(f"  processes: {world} -> {distributed.world()}; same samples and draws, other rounding")
    return state, told


def _agreed(found: Path | None) -> tuple[Path, str] | None:
    """A checkpoint and what identifies it, so that processes on several nodes can tell that they see the same one."""
    return None if found is None else (found, checkpoint.digest(found))
