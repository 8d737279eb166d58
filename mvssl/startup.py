"""What happens before the first step: data opened, idle parameters frozen, an earlier run resumed, the plan told."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table
from torch import nn

from mvssl import checkpoint, distributed, run
from mvssl.data import Shards, open_shards
from mvssl.draws import Draws
from mvssl.errors import OutputError, RecipeError
from mvssl.model import MultiView, unreached
from mvssl.objectives import Context
from mvssl.recipe import Data, Recipe
from mvssl.views import ViewSet

if TYPE_CHECKING:
    from mvssl.trainer import Trainer


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
    folder: Path, recipe: Recipe, fingerprint: str, model: nn.Module, optimizer: torch.optim.Optimizer
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
    changed = run.refuse_changes(folder, recipe)
    state = checkpoint.load_state(found)
    if state["fingerprint"] != fingerprint:
        raise RecipeError(
            f"{folder} was trained on other data (fingerprint {state['fingerprint'][:12]}, now {fingerprint[:12]}): "
            "give it the shards that it had, or start a new run with train.out=FOLDER"
        )
    checkpoint.restore(found, model, optimizer)
    told = [f"continues {found} at step {state['step']}", *(f"  changed {line}" for line in changed)]
    told += run.other_versions(folder)
    if state["world"] != distributed.world():
        told.append(f"  processes: {state['world']} -> {distributed.world()}; same samples and draws, other rounding")
    return state, told


def _agreed(found: Path | None) -> tuple[Path, str] | None:
    """A checkpoint and what identifies it, so that processes on several nodes can tell that they see the same one."""
    return None if found is None else (found, checkpoint.digest(found))


def plan(trainer: "Trainer", start: int) -> Table:
    """What the run will do from step `start` on, as a table: views, encoders, batch, candidates, steps, place."""
    recipe, source, views, model = trainer.recipe, trainer.source, trainer.views, trainer.model
    world, batch, samples, steps = distributed.world(), recipe.data.batch_size, len(source), trainer.steps
    rows = {"run": f"{recipe.train.out}, seed {recipe.train.seed}"}
    rows["samples"] = f"{samples:,}" + (f" ({source.dropped:,} that lack a column left out)" if source.dropped else "")
    rows["views"] = ", ".join(f"{name} {list(shape)}" for name, shape in views.shapes.items())
    for group, encoder in model.encoders.items():
        rows[f"encoder {group}"] = f"{encoder.name}, {_millions(encoder)} parameters"
    for name, term in zip(model.labels, model.objective, strict=True):
        rows[f"objective {name}"] = f"{_millions(term)} parameters"
        for what, count in getattr(term, "candidates", lambda _: {})(batch).items():
            rows[f"  {what}"] = f"{count:,} candidates per anchor, so at most {math.log(count):.2f} nats"
    rows["batch"] = f"{batch} over {world} process{'es' * (world > 1)}, {batch // world} on each"
    rows["batch norm"] = "over all processes" if world > 1 else "one process"
    rows["steps"] = f"{steps:,}: {steps * batch / samples:,.2f} epochs of {samples / batch:,.1f} steps"
    if start:
        rows["starts at"] = f"step {start:,}"
    rows["precision"] = recipe.train.precision
    if trainer.frozen:
        few = ", ".join(trainer.frozen[:4]) + " ..." * (len(trainer.frozen) > 4)
        rows["frozen"] = f"{len(trainer.frozen)} tensors that no loss reaches: {few}"
    if start >= steps:
        rows["nothing to do"] = "all steps are done; take more with train.steps or train.epochs"
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, text in rows.items():
        table.add_row(f"[bold]{name}", text)
    return table


def _millions(module: nn.Module) -> str:
    return f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M"
