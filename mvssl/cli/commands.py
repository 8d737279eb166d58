"""The verbs of the command line, except those for shards (`mvssl.cli.data`); heavy imports stand inside them."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from mvssl.cli.data import index, pack, verify
from mvssl.errors import OutputError
from mvssl.files import PICTURE, SCHEMA, check_output, write_file

app = typer.Typer(
    help="Distributed multi-view self-supervised training.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file; see recipes/ and `mvssl schema`")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[TABLE.KEY=VALUE]...", help="like optim.lr=1e-3")]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="run folder: train.out of the recipe")]
Trust = Annotated[list[str] | None, typer.Option("--trust", metavar="PACKAGE", help="allow classes from this package")]
Checkpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="last|best|STEP", help="best: the lowest held-out loss of the run")
]
PROBE_NAMES = (
    "knn, linear, mlp, fewlabel, cluster, spectrum, ndm, ood, dense, finetune, sensors, retrieval, aligned, "
    "information, inputs; or package.module:Class; may be given several times"
)
OVERRIDE = re.compile(r"[\w.-]+=")  # shards whose path begins so are written ./split=train
QUICKSTART = Path("recipes/quickstart.yaml")
SubjectName = Annotated[str, typer.Argument(metavar="SUBJECT", help="run folder, export folder, or timm:NAME")]
DataRecipe = Annotated[
    Path | None, typer.Option("--recipe", help="recipe with data and views, for exports and timm:NAME")
]
Weights = Annotated[str | None, typer.Option(help="weights of timm:NAME: pretrained, a run, a folder or a file")]
Layer = Annotated[str | None, typer.Option(help="vector, head or head:OBJECTIVE, or the number of a map")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="write the result here as well")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("mvssl"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Distributed multi-view self-supervised training."""


@app.command()
def train(recipe: RecipePath, overrides: Overrides = None) -> None:
    """Train a run, or continue it: the same command continues an existing run at its newest checkpoint.

    Works alone and under `accelerate launch --config_file launch/cpu_2.yaml -m mvssl train RECIPE`.
    """
    from mvssl.process.signals import BEFORE_FIRST_STEP, stop_signals

    with stop_signals() as stop, stop.interruptible(BEFORE_FIRST_STEP):
        from mvssl.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or [])  # a mistake in it shows before torch is imported

        from mvssl.distributed import collectives
        from mvssl.pipeline.api import train as run_training

    run_training(loaded)
    collectives.close()


@app.command()
def evaluate(
    subject: SubjectName,
    overrides: Overrides = None,
    recipe: DataRecipe = None,
    weights: Weights = None,
    probe: Annotated[list[str] | None, typer.Option(metavar="NAME", help=PROBE_NAMES)] = None,
    view: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a view's name, or all; may be given several times")
    ] = None,
    layer: Layer = None,
    protocol: Annotated[str | None, typer.Option(help="protocol of a paper: dim, amdim, cmc or mib")] = None,
    epochs: Annotated[int | None, typer.Option(help="override the protocol's number of epochs", min=1)] = None,
    data: Annotated[
        list[str] | None, typer.Option(metavar="SHARDS", help="labelled shards to fit on; default: data.train")
    ] = None,
    test: Annotated[
        list[str] | None, typer.Option(metavar="SHARDS", help="labelled shards to measure on; default: data.val")
    ] = None,
    other: Annotated[
        list[str] | None, typer.Option(metavar="SHARDS", help="shards of another distribution, for probe ood")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="also measure the untrained encoder and raw pixels")] = True,
    seed: Annotated[int, typer.Option(metavar="N", help="seed of draws, splits and fits; not of the encoder")] = 0,
    json_file: JsonFile = None,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Evaluate a backbone against the untrained encoder and raw inputs, on any number of processes."""
    from mvssl.distributed import collectives
    from mvssl.evaluation import evaluate as measure

    measure(
        subject, recipe=recipe, overrides=overrides or (), weights=weights, probes=probe, views=view, layer=layer,
        protocol=protocol, epochs=epochs, data=data, test=test, other=other, baselines=baselines, seed=seed,
        json_file=json_file, checkpoint=checkpoint, trust=trust or (),
    )  # fmt: skip
    collectives.close()


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, or files that --json wrote")],
    json_file: JsonFile = None,
) -> None:
    """Compare evaluated runs in one table; runs that differ only by seed become one row with mean and spread."""
    from mvssl.evaluation.results.comparison import show

    show(runs, json_file)


@app.command()
def embed(
    subject: SubjectName,
    out: Annotated[Path, typer.Option(metavar="FILE|FOLDER", help=".npz, .parquet, or a new folder of shards")],
    given: Annotated[list[str] | None, typer.Argument(metavar="SHARDS|KEY=VALUE", help="default: data.val")] = None,
    recipe: DataRecipe = None,
    weights: Weights = None,
    view: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="a view's name; may be given several times")
    ] = None,
    layer: Layer = None,
    half: Annotated[bool, typer.Option("--half", help="float16 in place of float32")] = False,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Write features, keys and labels of every sample to a file, on any number of processes."""
    from mvssl.distributed import collectives
    from mvssl.embedding import embed as write
    from mvssl.embedding import summary_lines

    overrides = [word for word in given or () if OVERRIDE.match(word)]
    shards = [word for word in given or () if word not in overrides]
    made = write(
        subject, out, data=shards, recipe=recipe, overrides=overrides, weights=weights, views=view, layer=layer,
        half=half, checkpoint=checkpoint, trust=trust or (),
    )  # fmt: skip
    collectives.close()
    for line in summary_lines(made) if made else ():
        print(line)


@app.command()
def export(
    run: RunPath,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="new folder")],
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Export the encoders of a run as timm / Hugging Face folders; each is reloaded and compared."""
    from mvssl.exporting import export as write

    for report in write(run, destination, checkpoint=checkpoint, trust=trust or ()):
        print(report)


@app.command()
def report(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="default: RUN/report.html")] = None,
    samples: Annotated[
        int, typer.Option(help="samples to encode and draw; 0: only what the run folder holds", min=0)
    ] = 1000,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Write a report on a run as one HTML page, also while it still trains."""
    from mvssl.reporting import report as write

    written = write(run, out, samples=samples, checkpoint=checkpoint, trust=trust or ())
    print(f"wrote {written.file}")
    for part in written.absent:
        print(f"  without {part.title}: {part.why}")
    for damage in written.left_out:
        print(f"  left out: {damage}")


@app.command()
def views(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="PNG file")] = Path("sheet.png"),
    samples: Annotated[int, typer.Option(help="rows of the sheet", min=1)] = 8,
) -> None:
    """Draw samples beside their views, as training draws them."""
    from mvssl.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_output(out, PICTURE)

    from mvssl.pipeline.pictures import draw_views

    draw_views(loaded, out, samples)
    print(f"wrote {out}")


@app.command()
def segments(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="PNG file")] = Path("segments.png"),
    samples: Annotated[int, typer.Option(help="images", min=1)] = 8,
    data: Annotated[list[str] | None, typer.Option(help="shards; default: data.val, else data.train")] = None,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Draw which component of an AMDIM mixture is assigned to each place of held-out images."""
    from mvssl.figures.segments import draw_segments
    from mvssl.runs.load import load_run

    for line in draw_segments(load_run(run, trust or (), checkpoint), out, samples=samples, data=data):
        print(f"  {line}")
    print(f"wrote {out}")


for verb in (pack, index, verify):
    app.command()(verb)


@app.command()
def bench(
    what: Annotated[
        Literal["train", "reader", "views", "rivals"],
        typer.Argument(help="the full training loop, shards only, views only, or a recipe beside methods of lightly"),
    ],
    recipe: Annotated[Path, typer.Argument(metavar="[RECIPE]", help="for train and reader")] = QUICKSTART,
    overrides: Overrides = None,
    minutes: Annotated[float, typer.Option(help="CPU minutes for each method of rivals", min=0.01, max=100_000)] = 20.0,
    json_file: JsonFile = None,
) -> None:
    """Measure samples per second; `train` compares the loop with its model on random tensors.

    `rivals` measures kNN accuracy against CPU minutes, and draws it beside the --json file.
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


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="file; default: standard output")] = None,
) -> None:
    """Print the JSON schema of recipes, for editors and for reading."""
    from mvssl.cli.json_schema import schema as build

    text = json.dumps(build(), indent=2)
    if out is None:
        print(text)
        return
    check_output(out, SCHEMA)
    write_file(out, text, OutputError, SCHEMA.hint)
