"""mvssl: distributed multi-view self-supervised training.

in   a recipe, and shards or a dataset of Python
out  a run folder; of it records, exported encoders, embeddings and a report

From a shard to a loss, in four steps:

    shards --data--> Batch --views--> Views --encoders--> Features by view --objectives--> loss, metrics

A user calls seven functions: `train`, `evaluate`, `export`, `embed`, `report`, `load_run` and `load_recipe`. Each takes
what its command takes. An option that may be given several times is a list under its plural: `--probe knn` is
`probes=["knn"]`. The file of `--json` is `json_file`.

`import mvssl` registers the networks of `mvssl.encoders` with timm, as soon as timm itself is imported. Nothing heavy
is imported before it is used: torch and timm take seconds, and `mvssl --help` needs neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from mvssl.embedding import embed
    from mvssl.evaluation import evaluate
    from mvssl.exporting import export
    from mvssl.pipeline.api import train
    from mvssl.recipe import load_recipe
    from mvssl.reporting import report
    from mvssl.runs.load import load_run

__all__ = ["embed", "evaluate", "export", "load_recipe", "load_run", "report", "train"]
__version__ = "0.1.0"

_MODULES = {
    "embed": "mvssl.embedding",
    "evaluate": "mvssl.evaluation",
    "export": "mvssl.exporting",
    "load_recipe": "mvssl.recipe",
    "load_run": "mvssl.runs.load",
    "report": "mvssl.reporting",
    "train": "mvssl.pipeline.api",
}


def __getattr__(name: str) -> Any:
    """A public function is imported when it is first used."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'mvssl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])


@wrapt.when_imported("timm")
def _register_networks(_: Any) -> None:
    importlib.import_module("mvssl.encoders")
