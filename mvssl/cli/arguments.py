"""Arguments and options that several commands share, with their help texts."""

from pathlib import Path
from typing import Annotated

import typer

RecipePath = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file; see recipes/ and `mvssl schema`")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[TABLE.KEY=VALUE]...", help="changes to the recipe, such as optim.lr=1e-3"),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="run folder: train.out of the recipe")]
SubjectName = Annotated[str, typer.Argument(metavar="SUBJECT", help="run folder, export folder, or timm:NAME")]
DataRecipe = Annotated[
    Path | None, typer.Option("--recipe", help="recipe with data and views, for exports and timm:NAME")
]
Weights = Annotated[str | None, typer.Option(help="weights of timm:NAME: pretrained, a run, a folder or a file")]
ViewNames = Annotated[
    list[str] | None, typer.Option("--view", metavar="NAME", help="name of a view; may be given several times")
]
Layer = Annotated[str | None, typer.Option(help="vector, head or head:OBJECTIVE, or the number of a map")]
Checkpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="last|best|STEP", help="best: the lowest held-out loss of the run")
]
Trust = Annotated[list[str] | None, typer.Option("--trust", metavar="PACKAGE", help="allow classes from this package")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="also write the result to this file")]
