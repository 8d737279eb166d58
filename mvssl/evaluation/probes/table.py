"""The table of probes: what each is called, the function behind it, and what that function is handed.

A probe is a pure function in a file of its own; it knows nothing of runs, shards, caches, processes or records. To add
one: write the function, add its line to PROBES, its metrics to its own file, its section to docs/reference/probes.md.

    handed   called as                                                once for each
    view     probe(train: Labelled, test: Labelled, *, seed, ...)     view, and `all` (the views joined, standardised)
    views    probe(train: ByView, test: ByView, *, seed, ...)         evaluation, of at least two views
    maps     probe(train: Dense, test: Dense, *, seed, device, ...)   view whose layer is a map
    model    probe(live: Live, *, seed, ...)                          view

in   features float32 and labels on the device; local maps on the CPU, memory-mapped, rows to be sent by the probe
out  one `Result` or several, each with its `Metric` and, where a probe gives several, `what` it
     is of. `Result.protocol` holds the settings and how they were chosen and must be equal for every encoder;
     `Result.chosen` holds what this encoder's data decided; both are JSON. With `parts`, differences are paired. Raise
     `NotPossible("why")` where these data do not allow it: the evaluation notes it and goes on.

The types are in `features.input_types`. `labels=False` probes run without labels too (then `labels` is empty).
`inputs=True` fills `ByView.inputs`. `other=True` adds the keyword `other: Tensor [k, d]`, features of shards of another
distribution (`--other SHARDS`). `rows` says from the recipe's `evaluate` table with which further keywords the probe is
called, once for each dict.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from mvssl.evaluation.probes.classifiers import mlp
from mvssl.evaluation.probes.clustering import cluster
from mvssl.evaluation.probes.dense import dense
from mvssl.evaluation.probes.few_label import fewlabel
from mvssl.evaluation.probes.fine_tune import finetune
from mvssl.evaluation.probes.information import information, input_information
from mvssl.evaluation.probes.knn import knn
from mvssl.evaluation.probes.linear import linear
from mvssl.evaluation.probes.ndm import ndm
from mvssl.evaluation.probes.ood import ood
from mvssl.evaluation.probes.retrieval import retrieval
from mvssl.evaluation.probes.sensors import sensors
from mvssl.evaluation.probes.spectrum import aligned, spectrum
from mvssl.evaluation.results.metrics import Result
from mvssl.recipe import Evaluate


def _once(_: Evaluate) -> list[dict[str, Any]]:
    return [{}]


def _finetunings(said: Evaluate) -> list[dict[str, Any]]:
    table = said.finetune
    shared = {"epochs": table.epochs, "augment": table.augment, "precision": said.precision}
    return [{**shared, "shots": shots} for shots in sorted(table.shots)] or [shared]


class Probe(NamedTuple):
    """How a probe is called; see the head of this file."""

    run: Callable[..., Result | Iterable[Result]]
    handed: Literal["view", "views", "maps", "model"] = "view"
    labels: bool = True
    inputs: bool = False
    other: bool = False
    rows: Callable[[Evaluate], list[dict[str, Any]]] = _once


PROBES = {
    "fewlabel": Probe(fewlabel, rows=lambda said: [{"shots": s, "draws": said.draws} for s in sorted(said.shots)]),
    "knn": Probe(knn),
    "linear": Probe(linear),
    "mlp": Probe(mlp),
    "cluster": Probe(cluster),
    "spectrum": Probe(spectrum, labels=False),
    "ndm": Probe(ndm, labels=False),
    "sensors": Probe(sensors, handed="views"),
    "retrieval": Probe(retrieval, handed="views", labels=False),
    "aligned": Probe(aligned, handed="views", labels=False),
    "information": Probe(information, handed="views", labels=False),
    "inputs": Probe(input_information, handed="views", labels=False, inputs=True),
    "ood": Probe(ood, other=True),
    "dense": Probe(dense, handed="maps", labels=False, rows=lambda said: [{"ignore": said.ignore}]),
    "finetune": Probe(finetune, handed="model", rows=_finetunings),
}
