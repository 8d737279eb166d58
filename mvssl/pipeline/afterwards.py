"""The steps in `train.then`, after training: evaluation, contact sheet, curves, exported backbone and report.

in   a recipe, and the folder of its run
out  files in the run folder; the terminal shows their paths and the next commands
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mvssl.distributed import collectives
from mvssl.errors import MvsslError, RecipeError
from mvssl.evaluation.api import evaluate
from mvssl.evaluation.features.layers import refuse_layer
from mvssl.exporting import export
from mvssl.exporting.exporting import folders_of
from mvssl.pipeline.next_commands import next_commands, open_for_probes
from mvssl.pipeline.pictures import draw_views
from mvssl.recipe import Recipe
from mvssl.runs.load import foreign_packages, load_run

if TYPE_CHECKING:
    from mvssl.model import MultiView


def refuse_then_without_shards(recipe: Recipe) -> None:
    """Raise `RecipeError` if `run_then` would read the recipe's shards, because a dataset replaces them."""
    for name in ("evaluate", "views"):
        if name in recipe.train.then:
            raise RecipeError(
                f"train.then: {name} reads the shards of the recipe, and data= is given in their place; pass "
                "then=False, or remove it from train.then"
            )


def check_then(recipe: Recipe, model: "MultiView") -> None:
    """Raise errors now that `run_then` would raise only after the last step, if they can be known before training.

    Reads headers and a few samples. Every process must call it. The main process checks, and all processes raise.
    Raises `RecipeError`, `DataError`, `OutputError`.
    """
    if "evaluate" in recipe.train.then:
        for view in recipe.views:
            refuse_layer(model, view, recipe.evaluate.layer, len(model.encoder_of(view).widths.maps))
    collectives.run_on_main(lambda: check_then_inputs(recipe))


def check_then_inputs(recipe: Recipe) -> None:
    """Raise `MvsslError` for a wrong probe, missing labels or test shards, or an export folder with other files."""
    if "evaluate" in recipe.train.then:
        open_for_probes(recipe, recipe.evaluate.probes, recipe.evaluate.layer)
    if "export" in recipe.train.then:
        folders_of(list(recipe.encoder), Path(recipe.train.out) / "backbone")


def run_then(recipe: Recipe) -> None:
    """Run the steps in `train.then` and print the paths of the results. Every process must call it: all evaluate."""
    then, folder = recipe.train.then, Path(recipe.train.out)
    if collectives.rank() and "evaluate" not in then:
        return
    trust = foreign_packages(recipe)  # the user has just named them
    run = load_run(folder, trust)
    failed: MvsslError | None = None
    if "evaluate" in then:
        try:
            evaluate(run)
        except MvsslError as error:  # raised below, after the rest is done
            failed = error
    if collectives.rank() == 0:
        places, loads = {"checkpoint": run.checkpoint}, []
        if "views" in then:
            places["contact sheet"] = draw_views(recipe, folder / "views.png")
        if "curves" in then:
            from mvssl.figures.curves import save_curves  # loads matplotlib

            places |= {file.stem: file for file in save_curves(folder)}
        if "export" in then:
            places["backbone"] = folder / "backbone"
            loads = [report.load for report in export(run, places["backbone"])]
        if "report" in then:  # last, as it shows the results of the others
            from mvssl.reporting import report  # loads matplotlib

            places["report"] = report(folder, trust=trust).file
        lines = [f"{name:14} {place}" for name, place in places.items()]
        lines += ["next:", *(f"  {command}" for command in next_commands(run, loads, failed is not None))]
        Console(stderr=True).print(*lines, sep="\n", highlight=False, markup=False, soft_wrap=True)
    if failed:
        raise failed
