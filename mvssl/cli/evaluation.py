"""The commands `evaluate`, `compare` and `embed`; heavy imports stand inside them."""

import re
from pathlib import Path
from typing import Annotated

import typer

from mvssl.cli.arguments import (
    Checkpoint,
    DataRecipe,
    JsonFile,
    Layer,
    Overrides,
    SubjectName,
    Trust,
    ViewNames,
    Weights,
)

# the keys of evaluation.probes.PROBES, whose import would load torch
PROBE_NAMES = (
    "knn, linear, mlp, fewlabel, cluster, spectrum, ndm, ood, dense, finetune, sensors, retrieval, aligned, "
    "information, inputs"
)
OVERRIDE = re.compile(r"[\w.-]+=")  # a shard whose path begins so is written ./split=train


def evaluate_command(
    subject: SubjectName,
    overrides: Overrides = None,
    recipe: DataRecipe = None,
    weights: Weights = None,
    probe: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"{PROBE_NAMES}, or package.module:Class; may be given several times. Default: evaluate.probes",
        ),
    ] = None,
    view: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="name of a view, or all; may be given several times")
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
        list[str] | None, typer.Option(metavar="SHARDS", help="shards of another distribution, for the probe ood")
    ] = None,
    baselines: Annotated[bool, typer.Option(help="also measure the untrained encoder and raw pixels")] = True,
    seed: Annotated[int, typer.Option(metavar="N", help="seed of draws, splits and fits, but not of the encoder")] = 0,
    json_file: JsonFile = None,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Evaluate a backbone against the untrained encoder and raw inputs, on any number of processes."""
    from mvssl.process.imports import uncollected_imports

    with uncollected_imports():
        from mvssl.distributed import collectives
        from mvssl.evaluation import evaluate

    evaluate(
        subject, recipe=recipe, overrides=overrides or (), weights=weights, probes=probe, views=view, layer=layer,
        protocol=protocol, epochs=epochs, data=data, test=test, other=other, baselines=baselines, seed=seed,
        json_file=json_file, checkpoint=checkpoint, trust=trust or (),
    )  # fmt: skip
    collectives.close()


def compare_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, or files that --json wrote")],
    json_file: JsonFile = None,
) -> None:
    """Compare evaluated runs in one table. Runs that differ only by seed become one row with mean and spread."""
    from mvssl.evaluation.results.comparison import show

    show(runs, json_file)


def embed_command(
    subject: SubjectName,
    out: Annotated[Path, typer.Option(metavar="FILE|FOLDER", help=".npz, .parquet, or a new folder of shards")],
    given: Annotated[list[str] | None, typer.Argument(metavar="SHARDS|KEY=VALUE", help="default: data.val")] = None,
    recipe: DataRecipe = None,
    weights: Weights = None,
    view: ViewNames = None,
    layer: Layer = None,
    half: Annotated[bool, typer.Option("--half", help="write float16 instead of float32")] = False,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Write features, keys and labels of every sample to a file, on any number of processes."""
    from mvssl.process.imports import uncollected_imports

    with uncollected_imports():
        from mvssl.distributed import collectives
        from mvssl.embedding import embed, summary_lines

    overrides = [word for word in given or () if OVERRIDE.match(word)]
    shards = [word for word in given or () if word not in overrides]
    embedded = embed(
        subject, out, data=shards, recipe=recipe, overrides=overrides, weights=weights, views=view, layer=layer,
        half=half, checkpoint=checkpoint, trust=trust or (),
    )  # fmt: skip
    collectives.close()
    for line in summary_lines(embedded) if embedded else ():
        print(line)
