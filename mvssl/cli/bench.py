"""The commands `mvssl bench VERB`; heavy imports stand inside them."""

from pathlib import Path
from typing import Annotated

import typer

from mvssl.cli.arguments import JsonFile, Overrides

QUICKSTART = Path("recipes/quickstart.yaml")
BenchRecipe = Annotated[Path, typer.Argument(metavar="[RECIPE]", help="YAML file; default: the quickstart")]

bench_app = typer.Typer(
    help="Measure speed beside other ways of doing the same. Each verb prints a table and can write JSON.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@bench_app.command("train")
def train_command(recipe: BenchRecipe = QUICKSTART, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """The training loop beside its model on random tensors."""
    from mvssl.bench.speed import bench_train
    from mvssl.recipe import load_recipe

    bench_train(load_recipe(recipe, overrides or []), json_file=json_file)


@bench_app.command("lightly")
def lightly_command(recipe: BenchRecipe = QUICKSTART, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """The training loop and its model beside lightly's SimCLR with its own transforms."""
    from mvssl.bench.rivals.lightly import bench_lightly
    from mvssl.recipe import load_recipe

    bench_lightly(load_recipe(recipe, overrides or []), json_file=json_file)


@bench_app.command("processes")
def processes_command(json_file: JsonFile = None) -> None:
    """Two CPU processes of one thread beside one process of two threads."""
    from mvssl.bench.processes.loop_processes import bench_processes

    bench_processes(json_file=json_file)


@bench_app.command("busy")
def busy_command(json_file: JsonFile = None) -> None:
    """The training loop alone and beside a process that keeps a core busy, with short spins and with torch's."""
    from mvssl.bench.processes.loop_processes import bench_busy

    bench_busy(json_file=json_file)


@bench_app.command("start")
def start_command(recipe: BenchRecipe = QUICKSTART, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """CPU seconds from the command to the first step, by phase."""
    from mvssl.bench.processes.start import bench_start
    from mvssl.recipe import load_recipe

    bench_start(load_recipe(recipe, overrides or []), json_file=json_file)


@bench_app.command("reader")
def reader_command(recipe: BenchRecipe = QUICKSTART, overrides: Overrides = None, json_file: JsonFile = None) -> None:
    """Reading and decoding shards, without training."""
    from mvssl.bench.speed import bench_reader
    from mvssl.bench.timing import show
    from mvssl.recipe import load_recipe

    show(bench_reader(load_recipe(recipe, overrides or []), json_file=json_file))


@bench_app.command("views")
def views_command(json_file: JsonFile = None) -> None:
    """Making views of images, beside kornia and torchvision."""
    from mvssl.bench.inputs.views import bench_views

    bench_views(json_file=json_file)


@bench_app.command("draws")
def draws_command(json_file: JsonFile = None) -> None:
    """Drawing the random parameters of ten views, in a worker and in the training process."""
    from mvssl.bench.inputs.drawing import bench_draws

    bench_draws(json_file=json_file)


@bench_app.command("rivals")
def rivals_command(
    recipe: BenchRecipe = QUICKSTART,
    overrides: Overrides = None,
    minutes: Annotated[float, typer.Option(help="CPU minutes for each method", min=0.01, max=100_000)] = 20.0,
    json_file: JsonFile = None,
) -> None:
    """Accuracy against CPU minutes, beside methods of lightly; the curves are drawn next to the --json file."""
    from mvssl.bench.rivals.accuracy import bench_rivals
    from mvssl.recipe import load_recipe

    bench_rivals(load_recipe(recipe, overrides or []), minutes=minutes, json_file=json_file)


@bench_app.command("growth")
def growth_command(json_file: JsonFile = None) -> None:
    """How a step's cost grows with batch, views and resolution; the curves are drawn next to the --json file."""
    from mvssl.bench.growth import bench_growth

    bench_growth(json_file=json_file)


@bench_app.command("save")
def save_command(
    parameters: Annotated[int, typer.Option(help="parameters of the network", min=1000)] = 100_000_000,
    json_file: JsonFile = None,
) -> None:
    """How long training waits for a save, beside a save that waits for its end."""
    from mvssl.bench.saving import bench_save

    bench_save(parameters=parameters, json_file=json_file)


@bench_app.command("losses")
def losses_command(
    largest: Annotated[int, typer.Option(help="samples of the largest batch of cmc, up to 65,536", min=1024)] = 16384,
    json_file: JsonFile = None,
) -> None:
    """Contrastive losses beside dense forms in torch and lightly's, with peak memory."""
    from mvssl.bench.losses import bench_losses

    bench_losses(largest=largest, json_file=json_file)


@bench_app.command("device")
def device_command(
    minutes: Annotated[float, typer.Option(help="begin no part that may end later", min=0.1)] = 8.0,
    json_file: JsonFile = None,
) -> None:
    """All that a GPU can show, in one command of some minutes; on a CPU a rehearsal with small models."""
    from mvssl.bench.devices.device import bench_device

    if bench_device(minutes=minutes, json_file=json_file)["missing"]:
        raise typer.Exit(1)


@bench_app.command("index")
def index_command(
    samples: Annotated[int, typer.Option(help="samples to index", min=10_000)] = 100_000,
    opened: Annotated[int, typer.Option(help="samples to open", min=10_000)] = 10_000_000,
    json_file: JsonFile = None,
) -> None:
    """Indexing shards beside Python's tarfile, and opening many indexed samples."""
    from mvssl.bench.inputs.indexing import bench_index

    bench_index(samples=samples, opened=opened, json_file=json_file)


@bench_app.command("decode")
def decode_command(json_file: JsonFile = None) -> None:
    """Decoding and reading JPEGs beside other libraries; the training loop from JPEGs beside decoded bytes."""
    from mvssl.bench.inputs.decoding import bench_decode

    bench_decode(json_file=json_file)
