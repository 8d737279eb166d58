"""The commands `train` and `bench`; heavy imports stand inside them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from mvssl.cli.arguments import JsonFile, Overrides, RecipePath

QUICKSTART = Path("recipes/quickstart.yaml")


def train_command(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train a run. The same command continues an existing run at its newest checkpoint.

    Works alone and under `accelerate launch --config_file launch/cpu_2.yaml -m mvssl train RECIPE`.
    """
    from mvssl.process.signals import BEFORE_FIRST_STEP, stop_signals

    with stop_signals() as stop, stop.interruptible(BEFORE_FIRST_STEP):
        from mvssl.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or [])  # a mistake in it shows before torch is imported

        from mvssl.distributed import collectives
        from mvssl.pipeline.api import train

    train(loaded)
    collectives.close()


def bench_command(
    what: Annotated[
        Literal["train", "reader", "views", "rivals"],
        typer.Argument(help="train: the full loop; reader: shards only; views: views only; rivals: methods of lightly"),
    ],
    recipe: Annotated[
        Path, typer.Argument(metavar="[RECIPE]", help="recipe for train, reader and rivals")
    ] = QUICKSTART,
    overrides: Overrides = None,
    minutes: Annotated[float, typer.Option(help="CPU minutes for each method of rivals", min=0.01, max=100_000)] = 20.0,
    json_file: JsonFile = None,
) -> None:
    """Measure samples per second; `train` compares the loop with its model on random tensors.

    `rivals` measures kNN accuracy against CPU minutes, and draws the curves next to the --json file.
    """
    from mvssl.bench import bench_reader, bench_rivals, bench_train, bench_views, show
    from mvssl.distributed import collectives
    from mvssl.recipe import load_recipe

    if what == "rivals":
        bench_rivals(load_recipe(recipe, overrides or []), minutes=minutes, json_file=json_file)
        return
    if what == "views":
        result = bench_views(json_file=json_file)
    else:
        measure = bench_train if what == "train" else bench_reader
        result = measure(load_recipe(recipe, overrides or []), json_file=json_file)
    if collectives.rank() == 0:
        show(result)
