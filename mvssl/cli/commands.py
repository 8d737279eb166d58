"""The commands of `mvssl`, by their names. Their modules import nothing heavy, so `mvssl --help` is quick."""

import importlib.metadata
from typing import Annotated

import typer

from mvssl.cli.bench import bench_app
from mvssl.cli.data import index_command, pack_command, verify_command
from mvssl.cli.evaluation import compare_command, embed_command, evaluate_command
from mvssl.cli.outputs import export_command, report_command, schema_command, segments_command, views_command
from mvssl.cli.training import train_command

COMMANDS = {
    "train": train_command,
    "evaluate": evaluate_command,
    "compare": compare_command,
    "embed": embed_command,
    "export": export_command,
    "report": report_command,
    "views": views_command,
    "segments": segments_command,
    "pack": pack_command,
    "index": index_command,
    "verify": verify_command,
    "schema": schema_command,
}

app = typer.Typer(
    help="Distributed multi-view self-supervised training.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(bench_app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("mvssl"))
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Distributed multi-view self-supervised training."""
