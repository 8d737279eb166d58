"""What `train.then` lists: evaluation, contact sheet, curves, exported backbone and report, after the last step.

in   a recipe, and the folder of its run
out  files in the run folder; their places and the next commands on the terminal
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mvssl.data import loader, open_shards
from mvssl.distributed import collectives
from mvssl.errors import MvsslError, RecipeError
from mvssl.evaluation import evaluate
from mvssl.evaluation.features.layers import refuse_layer
from mvssl.evaluation.features.splits import open_splits
from mvssl.evaluation.plan import list_needs, plan_probes, refuse_impossible
from mvssl.exporting import export
from mvssl.exporting.exporting import folders_of
from mvssl.files import write_picture
from mvssl.recipe import Recipe
from mvssl.runs.load import load_run, packages
from mvssl.training.next_commands import next_commands
from mvssl.views import build_views, resolve_statistics

if TYPE_CHECKING:
    from mvssl.model import MultiView


def refuse_without_shards(recipe: Recipe) -> None:
    """Raise `RecipeError` where `run_then` would read the recipe's shards, and a dataset is given in their place."""
    for name in ("evaluate", "views"):
        if name in recipe.train.then:
            raise RecipeError(
                f"train.then: {name} reads the shards of the recipe, and data= is given in their place; pass "
                "then=False, or remove it from train.then"
            )


def check_then(recipe: Recipe, folder: Path, model: "MultiView") -> None:
    """Raise now the errors that `run_then` would raise after the last step, as far as they can be known.

    Reads headers and a few samples. Every process must call it; the main process checks and all raise. Raises
    `RecipeError`, `DataError`, `OutputError`.
    """
    if "evaluate" in recipe.train.then:
        check_layer(recipe, model)
    collectives.run_on_main(lambda: check_inputs(recipe, folder))


def check_layer(recipe: Recipe, model: "MultiView") -> None:
    """Raise `RecipeError` where the recipe evaluates a layer that `model` does not have."""
    for view in recipe.views:
        refuse_layer(model, view, recipe.evaluate.layer, len(model.encoder_of(view).widths.maps))


def check_inputs(recipe: Recipe, folder: Path) -> None:
    """Raise `MvsslError` for a wrong probe, missing labels or test shards, or an export folder that is taken."""
    if "evaluate" in recipe.train.then:
        refuse_impossible(recipe.evaluate)
        jobs = plan_probes(recipe.evaluate, recipe.evaluate.probes, recipe.evaluate.layer)
        open_splits(recipe, needs=list_needs(jobs))
    if "export" in recipe.train.then:
        folders_of(list(recipe.encoder), folder / "backbone")


def run_then(recipe: Recipe, folder: Path) -> None:
    """Do what `train.then` lists, and print where the results are. Every process must call it: all evaluate."""
    then, reports = recipe.train.then, []
    failed: MvsslError | None = None
    if collectives.rank() and "evaluate" not in then:
        return
    trust = packages(recipe)  # the user named them just now
    loaded = load_run(folder, trust)
    if "evaluate" in then:
        try:
            evaluate(loaded)
        except MvsslError as error:  # raised below, after the rest is done
            failed = error
    if collectives.rank():
        if failed:
            raise failed
        return
    places = {"checkpoint": loaded.checkpoint}
    if "views" in then:
        places["contact sheet"] = draw_views(recipe, folder / "views.png")
    if "curves" in then:
        from mvssl.figures import curves  # loads matplotlib

        places |= {file.stem: file for file in curves.save_curves(folder)}
    if "export" in then:
        places["backbone"] = folder / "backbone"
        reports = export(loaded, places["backbone"])
    if "report" in then:  # last, as it shows what the others found
        from mvssl.reporting import report  # loads matplotlib

        places["report"] = report(folder, trust=trust).file
    console = Console(stderr=True)
    for name, place in places.items():
        console.print(f"{name:14} {place}", highlight=False, markup=False, soft_wrap=True)
    lines = next_commands(loaded, [report.load for report in reports], failed is not None)
    console.print("next:", *lines, sep="\n  ", highlight=False, markup=False, soft_wrap=True)
    if failed:
        raise failed


def draw_views(recipe: Recipe, out: Path, samples: int = 8) -> Path:
    """Draw the views of the first batch of the run to `out`, with the code that training uses; return `out`."""
    from mvssl.figures.contact_sheet import draw_contact_sheet  # loads matplotlib
    from mvssl.training.preparation import pack_once

    table = recipe.data
    if table.pack:
        pack_once(table)
    # not `open_training_shards`, which every process must call: after a run the main process works alone
    source = open_shards(table.train, table.folder, table.columns, missing=table.missing)
    views = build_views(resolve_statistics(recipe.views, source.shapes, source), source.shapes)
    rows = min(samples, len(source))
    batch = next(iter(loader(source, batch_size=rows, seed=recipe.train.seed, stop_step=1)))
    rates = {name: column.rate for name, column in table.columns.items()}
    return write_picture(draw_contact_sheet(views, batch, seed=recipe.train.seed, rates=rates), out)
