"""From a recipe to a `Trainer`: data, views, model and optimizer.

in   a recipe, its accelerator, and optionally a map-style dataset of dicts in place of shards
out  a `Trainer` at step 0, and the checkpoint from which the run continues, if there is one
"""

import math
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from mvssl.data import ShardSource, as_source, open_shards
from mvssl.data.packing import pack, pack_destination
from mvssl.distributed import collectives
from mvssl.distributed.batch_norm import convert_batchnorm
from mvssl.distributed.devices import memory_format_for
from mvssl.errors import OutputError, RecipeError
from mvssl.model import MultiView, build_model, find_idle_parameters
from mvssl.objectives import Context
from mvssl.optim import build_optimizer
from mvssl.random import Draws
from mvssl.recipe import Data, Recipe
from mvssl.runs import folder
from mvssl.training.checkpointing import Earlier, find_earlier
from mvssl.training.guard import BufferSnapshot
from mvssl.training.step import Trainer
from mvssl.views import ViewSet, build_views, resolve_statistics


def prepare_trainer(recipe: Recipe, accelerator: Accelerator, data: Any = None) -> Trainer:
    """Return a `Trainer` with the weights of step 0, equal on every process. Raises `RecipeError`, `DataError`."""
    return prepare(recipe, accelerator, data)[0]


def prepare(recipe: Recipe, accelerator: Accelerator, data: Any = None) -> tuple[Trainer, Earlier | None]:
    """Return the `Trainer` and the newest checkpoint of the run folder, or None. The checkpoint is not loaded yet."""
    source = open_training_shards(recipe.data) if data is None else as_source(data)
    earlier = find_earlier(Path(recipe.train.out))
    known = folder.with_statistics(recipe, earlier.recipe if earlier else None)
    recipe = recipe.model_copy(update={"views": resolve_statistics(known.views, source.shapes, source)})
    views = build_views(recipe.views, source.shapes)
    torch.manual_seed(recipe.train.seed)
    built = build_model(recipe, views.shapes, start_weights=earlier is None).to(accelerator.device)
    refuse_single_candidates(built, recipe.data.batch_size)
    frozen = freeze_unreached(built, views, accelerator.device)
    model = convert_batchnorm(built, accelerator.device, rows_absent=bool(source.optional))
    model.to(memory_format=memory_format_for(model, accelerator.device))
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch renames DDP's broadcast_buffers
        wrapped = accelerator.prepare(model).train()
    optimizer = build_optimizer(model, recipe.optim)
    steps = recipe.train.steps or math.ceil((recipe.train.epochs or 0) * len(source) / recipe.data.batch_size)
    trainer = Trainer(
        recipe=recipe, source=source, views=views, model=model, device=accelerator.device, steps=steps,
        accelerator=accelerator, wrapped=wrapped, optimizer=optimizer, buffers=BufferSnapshot(model), frozen=frozen,
    )  # fmt: skip
    return trainer, earlier


def open_training_shards(table: Data) -> ShardSource:
    """Open the shards to train on, after packing them if the recipe has `data.pack`; the main process packs."""
    if not table.train:
        raise RecipeError("data.train is empty: name shards, or call train(recipe, data=DATASET) from Python")
    main = collectives.rank() == 0

    def work() -> ShardSource:
        if table.pack and main:
            pack_once(table)
        return open_shards(table.train, table.folder, table.columns, missing=table.missing, progress=main)

    return collectives.run_main_first(work)


def pack_once(table: Data) -> None:
    """Write the shards of `data.pack` to a folder of the data folder, named after it, unless they exist."""
    destination = pack_destination(str(table.pack), table.folder)
    try:
        if not (destination / "train").is_dir():
            print("\n".join(pack(str(table.pack), destination).summary()), flush=True)
    except OutputError:
        if not (destination / "train").is_dir():  # else another run packed it meanwhile
            raise


def refuse_single_candidates(model: MultiView, batch: int) -> None:
    """Raise `RecipeError` if an objective compares samples and the batch has only one sample to compare."""
    for name, _, objective in model.terms:
        counts = objective.candidates(batch)
        if counts and max(counts.values()) < 2:
            raise RecipeError(
                f"data.batch_size: {batch} leaves the objective {name} nothing to compare a sample with, so that it "
                "cannot learn; take at least 2 samples, over all processes"
            )


def freeze_unreached(model: MultiView, views: ViewSet, device: torch.device) -> list[str]:
    """Freeze the parameters that no loss reaches, since DDP would wait for their gradients; return their names."""
    position = torch.arange(2) + 2 * collectives.rank()
    generator = torch.Generator().manual_seed(0)
    random = {name: torch.randn(2, *shape, generator=generator).to(device) for name, shape in views.shapes.items()}
    context = Context(step=0, index=position, draws=Draws(0, position, device))
    names = find_idle_parameters(model, random, context)
    for name in names:
        model.get_parameter(name).requires_grad_(False)
    return names
