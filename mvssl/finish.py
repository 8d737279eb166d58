"""What follows the last step: contact sheet, what was learned, exported backbone, and what one would type next."""

from pathlib import Path

from rich.console import Console

from mvssl import distributed
from mvssl.data import loader
from mvssl.recipe import Recipe
from mvssl.run import load_run
from mvssl.views import build_views, resolve_statistics


def finish(recipe: Recipe, folder: Path) -> None:
    """Do what `train.then` lists, on the main process, and say where everything lies."""
    if distributed.rank() != 0:
        return
    then, places = recipe.train.then, {"checkpoint": folder / "checkpoints"}
    packages = [name.partition(":")[0].partition(".")[0] for name in _named(recipe)]  # the user named them just now
    loaded = load_run(folder, packages)
    places["checkpoint"] = loaded.checkpoint
    if "evaluate" in then:
        from mvssl.evaluate import evaluate

        evaluate(loaded)
    if "views" in then:
        places["contact sheet"] = draw_views(recipe, folder / "views.png")
    if "export" in then:
        from mvssl.export import export

        places["backbone"] = folder / "backbone"
        export(loaded, places["backbone"])
    console = Console(stderr=True)
    for name, place in places.items():
        console.print(f"{name:14} {place}", highlight=False)
    console.print("next:", *_next(folder, "export" in then), sep="\n  ", highlight=False, soft_wrap=True)


def draw_views(recipe: Recipe, out: Path, samples: int = 8) -> Path:
    """Draw the views of the first batch of the run, by the path that training takes."""
    from mvssl.startup import open_training
    from mvssl.views.sheet import contact_sheet

    source = open_training(recipe.data)
    views = build_views(resolve_statistics(recipe.views, source.shapes, source), source.shapes)
    rows = min(samples, len(source))
    batch = next(iter(loader(source, batch_size=rows, seed=recipe.train.seed, stop_step=1)))
    contact_sheet(views, batch, out, seed=recipe.train.seed)
    return out


def _named(recipe: Recipe) -> list[str]:
    return [table.name for table in (*recipe.views.values(), *recipe.objective) if ":" in table.name]


def _next(folder: Path, exported: bool) -> list[str]:
    load = f"python -c \"import mvssl, timm; print(timm.create_model('local-dir:{folder}/backbone', pretrained=True))\""
    return [
        f"mvssl evaluate {folder} --probe linear",
        load if exported else f"mvssl export {folder} {folder}/backbone",
        f"tensorboard --logdir {folder}",
    ]
