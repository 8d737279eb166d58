"""The commands `export`, `report`, `views`, `segments` and `schema`; heavy imports stand inside them."""

import json
from pathlib import Path
from typing import Annotated

import typer

from mvssl.cli.arguments import Checkpoint, Overrides, RecipePath, RunPath, Trust
from mvssl.errors import OutputError
from mvssl.files import PICTURE, SCHEMA, check_output, write_file


def export_command(
    run: RunPath,
    destination: Annotated[Path, typer.Argument(metavar="DEST", help="new folder")],
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Export the encoders of a run as folders for timm and Hugging Face. Each is loaded again and compared."""
    from mvssl.exporting import export

    for exported in export(run, destination, checkpoint=checkpoint, trust=trust or ()):
        print(exported)


def report_command(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="default: RUN/report.html")] = None,
    samples: Annotated[
        int, typer.Option(help="number of samples to encode and draw; 0: only the content of the run folder", min=0)
    ] = 1000,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Write a report on a run as one HTML page. The run may still train."""
    from mvssl.reporting import report

    written = report(run, out, samples=samples, checkpoint=checkpoint, trust=trust or ())
    print(f"wrote {written.file}")
    for part in written.absent:
        print(f"  without {part.title}: {part.why}")
    for damage in written.left_out:
        print(f"  left out: {damage}")


def views_command(
    recipe: RecipePath,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="PNG file")] = Path("sheet.png"),
    samples: Annotated[int, typer.Option(help="rows of the sheet", min=1)] = 8,
) -> None:
    """Draw samples and their views, as training draws them."""
    from mvssl.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    check_output(out, PICTURE)

    from mvssl.pipeline.pictures import draw_views

    draw_views(loaded, out, samples)
    print(f"wrote {out}")


def segments_command(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="PNG file")] = Path("segments.png"),
    samples: Annotated[int, typer.Option(help="number of images", min=1)] = 8,
    data: Annotated[list[str] | None, typer.Option(help="shards; default: data.val, else data.train")] = None,
    checkpoint: Checkpoint = "last",
    trust: Trust = None,
) -> None:
    """Draw which component of an AMDIM mixture is assigned to each place of held-out images."""
    from mvssl.figures.mixture_segments import draw_segments
    from mvssl.runs.load import load_run

    for line in draw_segments(load_run(run, trust or (), checkpoint), out, samples=samples, data=data):
        print(f"  {line}")
    print(f"wrote {out}")


def schema_command(
    out: Annotated[Path | None, typer.Option(help="file; default: standard output")] = None,
) -> None:
    """Print the JSON schema of recipes, for editors and for reading."""
    from mvssl.cli.json_schema import build_json_schema

    text = json.dumps(build_json_schema(), indent=2)
    if out is None:
        print(text)
        return
    check_output(out, SCHEMA)
    write_file(out, text, OutputError, SCHEMA.hint)
