"""What a frozen backbone knows: features, probes, records with their protocol. See docs/reference/probes.md.

`evaluate(run)` does everything; the probes also work alone on any features: `knn(train, test)`, `linear(train, test)`,
`fewlabel(train, test, shots=10)`, each with two `Labelled(features, labels)` and a `Result`. `mvssl.evaluation.probes`
lists all of them and says what each takes.
"""

from mvssl.evaluation.features.input_types import ByView, Dense, Live
from mvssl.evaluation.features.labelled import Labelled
from mvssl.evaluation.measure import evaluate
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
from mvssl.evaluation.results.metrics import Difference, Result, average_precision, paired
from mvssl.evaluation.results.records import compare
from mvssl.evaluation.results.tables import tables
from mvssl.evaluation.subject import Subject, open_subject

__all__ = [
    "ByView",
    "Dense",
    "Difference",
    "Labelled",
    "Live",
    "Result",
    "Subject",
    "aligned",
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
    "mlp",
    "ndm",
    "ood",
    "open_subject",
    "paired",
    "retrieval",
    "sensors",
    "spectrum",
    "tables",
]
