"""What a frozen backbone knows: features, probes, records with their protocol. See docs/evaluate.md.

`evaluate(run)` does everything; the probes also work alone on any features: `knn(train, test)`, `linear(train, test)`,
`fewlabel(train, test, shots=10)`, each with two `Labelled(features, labels)` and a `Result`.
"""

from mvssl.evaluate.features import Labelled
from mvssl.evaluate.fewlabel import fewlabel
from mvssl.evaluate.knn import knn
from mvssl.evaluate.linear import linear
from mvssl.evaluate.measure import evaluate
from mvssl.evaluate.metrics import Difference, Result, average_precision, paired
from mvssl.evaluate.records import compare
from mvssl.evaluate.subject import Subject, open_subject
from mvssl.evaluate.tables import tables

__all__ = [
    "Difference",
    "Labelled",
    "Result",
    "Subject",
    "average_precision",
    "compare",
    "evaluate",
    "fewlabel",
    "knn",
    "linear",
    "open_subject",
    "paired",
    "tables",
]
