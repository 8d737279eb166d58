"""Probes: what can be measured of the features of an encoder.

in   the name of a probe in a recipe or on the command line: a key of PROBES, or package.module:Class
out  the `Probe` class. `mvssl.evaluation.probes.base` has the contract, with all that a probe may need

Each probe has a file with its function and its class. To add one: write the file, add its line to PROBES, and its
section to docs/reference/probes.md.
"""

from mvssl.errors import RecipeError
from mvssl.evaluation.probes.base import Probe
from mvssl.evaluation.probes.classifiers import MLP
from mvssl.evaluation.probes.clustering import Clustering
from mvssl.evaluation.probes.dense import Dense
from mvssl.evaluation.probes.few_label import FewLabels
from mvssl.evaluation.probes.fine_tune import FineTuning
from mvssl.evaluation.probes.information import NDM, Information, InputInformation
from mvssl.evaluation.probes.knn import KNN
from mvssl.evaluation.probes.linear import LinearProbe, MissingViews
from mvssl.evaluation.probes.ood import OOD
from mvssl.evaluation.probes.retrieval import Retrieval
from mvssl.evaluation.probes.spectrum import Alignment, Spectrum
from mvssl.recipe.messages import nearest
from mvssl.recipe.options import find_class

PROBES: dict[str, type[Probe]] = {
    "fewlabel": FewLabels,
    "knn": KNN,
    "linear": LinearProbe,
    "mlp": MLP,
    "cluster": Clustering,
    "spectrum": Spectrum,
    "ndm": NDM,
    "sensors": MissingViews,
    "retrieval": Retrieval,
    "aligned": Alignment,
    "information": Information,
    "inputs": InputInformation,
    "ood": OOD,
    "dense": Dense,
    "finetune": FineTuning,
}


def find_probe(name: str, where: str) -> type[Probe]:
    """Return the class for the name of a probe. Raises `RecipeError` that names `where` it stands."""
    if name not in PROBES and ":" not in name:
        raise RecipeError(f"{where}: no probe {name!r}{nearest(name, [*PROBES, 'package.module:Class'])}")
    found = find_class(name, PROBES, where)
    if not issubclass(found, Probe):
        raise RecipeError(f"{where}: {name!r} is no probe; it must be a subclass of mvssl.evaluation.Probe")
    return found
