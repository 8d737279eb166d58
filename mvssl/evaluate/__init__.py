"""What a frozen backbone knows: features, probes, records with their protocol. See docs/evaluate.md.

`evaluate(run)` does everything; the probes also work alone on any features: `knn(train, test)`, `linear(train, test)`,
`fewlabel(train, test, shots=10)`, each with two `Labelled(features, labels)` and a `Result`. `mvssl.evaluate.probes`
lists all of them and says what each takes.
"""

from mvssl.evaluate.classifiers import mlp
from mvssl.evaluate.cluster import cluster
from mvssl.evaluate.dense import dense
from mvssl.evaluate.features import Labelled
from mvssl.evaluate.fewlabel import fewlabel
from mvssl.evaluate.finetune import finetune
from mvssl.evaluate.handed import ByView, Dense, Live
from mvssl.evaluate.information import information, input_information
from mvssl.evaluate.knn import knn
from mvssl.evaluate.linear import linear
from mvssl.evaluate.measure import evaluate
from mvssl.evaluate.metrics import Difference, Result, average_precision, paired
from mvssl.evaluate.ndm import ndm
from mvssl.evaluate.ood import ood
from mvssl.evaluate.records import compare
from mvssl.evaluate.retrieval import retrieval
from mvssl.evaluate.sensors import sensors
from mvssl.evaluate.spectrum import aligned, spectrum
from mvssl.evaluate.subject import Subject, open_subject
from mvssl.evaluate.tables import tables

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
