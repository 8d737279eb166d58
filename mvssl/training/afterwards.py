"""What follows the last step: contact sheet, what was learned, exported backbone, and what one would type next."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from mvssl.data import loader, open_shards
from mvssl.distributed import collectives
from mvssl.errors import MvsslError, RecipeError
from mvssl.files import write_picture
from mvssl.recipe import Recipe
from mvssl.runs.load import load_run, packages
from mvssl.training.next_commands import next_commands
from mvssl.views import build_views, resolve_statistics

if TYPE_CHECKING:
    from mvssl.model import MultiView


def check_layer(recipe: Recipe, model: "MultiView") -> None:
    """Raise `RecipeError` now where `finish` is to evaluate a layer that `model` does not have."""
    from mvssl.evaluation.features.layers import refuse_layer

    for view in recipe.views if "evaluate" in recipe.train.then else ():
        refuse_layer(model, view, recipe.evaluate.layer, len(model.encoder_of(view).widths.maps))


def refuse_without_shards(recipe: Recipe) -> None:
    """Raise `RecipeError` where `finish` would read the recipe's shards, in whose place a dataset is given."""
    for name in ("evaluate", "views"):
        if name in recipe.train.then:
            raise RecipeError(
                f"train.then: {name} reads the shards of the recipe, and data= is given in their place; pass "
                "then=False, or remove it from train.then"
            )


def check(recipe: Recipe, folder: Path) -> None:
    """Raise now what `finish` would raise for a wrong probe, no labels, no shards to test on, no place to export to.

    The main process looks, all raise: call it on every process, when the data is packed. Nothing but headers and a few
    samples is read. Raises `RecipeError`, `DataError`, `OutputError`.
    """

    def look() -> None:
        if "evaluate" in recipe.train.then:
            from mvssl.evaluation.features.splits import open_splits
            from mvssl.evaluation.plan import need_labels, need_segments, plan_probes, refuse_impossible

            said = recipe.evaluate
            refuse_impossible(said)
            jobs = plan_probes(said, said.probes, said.layer)
            open_splits(recipe, labels=need_labels(jobs), segments=need_segments(jobs))
        if "export" in recipe.train.then:
            from mvssl.exporting.exporting import folders_of

            folders_of(list(recipe.encoder), folder / "backbone")

    collectives.run_on_main(look)


def finish(recipe: Recipe, folder: Path) -> None:
    """Do what `train.then` lists and say where everything lies. Call it on every process: all of them evaluate."""
    then, reports = recipe.train.then, []
    failed: MvsslError | None = None
    if collectives.rank() and "evaluate" not in then:
        return
    trust = packages(recipe)  # the user named them just now
    loaded = load_run(folder, trust)
    if "evaluate" in then:
        from mvssl.evaluation import evaluate

        try:
            evaluate(loaded)
        except MvsslError as error:  # what else was asked for is done all the same
            failed = error
    if collectives.rank():
        if failed:
            raise failed
        return
    places = {"checkpoint": loaded.checkpoint}
    if "views" in then:
        places["contact sheet"] = draw_views(recipe, folder / "views.png")
    if "curves" in then:
        from mvssl.figures import curves

        places |= {file.stem: file for file in curves.save_curves(folder)}
    if "export" in then:
        from mvssl.exporting.exporting import export

        places["backbone"] = folder / "backbone"
        reports = export(loaded, places["backbone"])
    if "report" in then:  # last, as it shows what the others found
        from mvssl.reporting import report

        places["report"] = report(folder, trust=trust).file
    console = Console(stderr=True)
    for name, place in places.items():
        console.print(f"{name:14} {place}", highlight=False, markup=False, soft_wrap=True)
    lines = next_commands(loaded, [report.load for report in reports], failed is not None)
    console.print("next:", *lines, sep="\n  ", highlight=False, markup=False, soft_wrap=True)
    if failed:
        raise failed


def draw_views(recipe: Recipe, out: Path, samples: int = 8) -> Path:
    """Draw the views of the first batch of the run, by the path that training takes."""
    from mvssl.figures.contact_sheet import draw_contact_sheet
    from mvssl.training.resume import pack_once

    table = recipe.data
    if table.pack:
        pack_once(table)
    # not `open_training`, in which every process takes part: after a run the main process is alone
    source = open_shards(table.train, table.folder, table.columns, missing=table.missing)
    views = build_views(resolve_statistics(recipe.views, source.shapes, source), source.shapes)
    rows = min(samples, len(source))
    batch = next(iter(loader(source, batch_size=rows, seed=recipe.train.seed, stop_step=1)))
    rates = {name: column.rate for name, column in table.columns.items()}
    return write_picture(draw_contact_sheet(views, batch, seed=recipe.train.seed, rates=rates), out)
