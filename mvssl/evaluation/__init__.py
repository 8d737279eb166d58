"""Evaluate frozen encoders: compute features, run probes, and keep records with their protocol.

in   a run, an export or a timm model; labelled shards
out  records, kept in the run's evaluation.json, and tables of them

`evaluate(run)` does everything. Every probe also works on features from elsewhere: `knn(train, test)`,
`linear(train, test)` and `fewlabel(train, test, shots=10)` take two `Labelled(features, labels)`. `Probe` is the
contract for a probe of another package. See docs/guides/evaluate.md.
"""

from mvssl.evaluation.api import evaluate
from mvssl.evaluation.features.inputs import ByView, LocalMaps, ProbeInputs, TrainableEncoder
from mvssl.evaluation.features.labelled import Labelled
from mvssl.evaluation.opening import open_subject
from mvssl.evaluation.probes.base import Probe
from mvssl.evaluation.probes.classifiers import mlp_probe
from mvssl.evaluation.probes.clustering import cluster
from mvssl.evaluation.probes.dense import dense
from mvssl.evaluation.probes.few_label import fewlabel
from mvssl.evaluation.probes.fine_tune import finetune
from mvssl.evaluation.probes.information import information, input_information, ndm
from mvssl.evaluation.probes.knn import knn
from mvssl.evaluation.probes.linear import linear, view_ablation
from mvssl.evaluation.probes.ood import ood
from mvssl.evaluation.probes.retrieval import retrieval
from mvssl.evaluation.probes.spectrum import alignment_probe, spectrum
from mvssl.evaluation.results.metrics import Difference, Metric, NotPossible, Result, average_precision, paired
from mvssl.evaluation.results.records import Record, compare
from mvssl.evaluation.results.tables import tables
from mvssl.evaluation.subject import Subject

__all__ = [
    "ByView",
    "Difference",
    "Labelled",
    "LocalMaps",
    "Metric",
    "NotPossible",
    "Probe",
    "ProbeInputs",
    "Record",
    "Result",
    "Subject",
    "TrainableEncoder",
    "alignment_probe",
    "average_precision",
    "cluster",
    "compare",
    "dense",
    "evaluate",
    "fewlabel",
    "finetune",
    "information",
    "input_information",
    "knn",
    "linear",
    "mlp_probe",
    "ndm",
    "ood",
    "open_subject",
    "paired",
    "retrieval",
    "spectrum",
    "tables",
    "view_ablation",
]
