"""Probes: what can be measured of the features of an encoder.

in   the name of a probe in a recipe or on the command line: a key of PROBES, or package.module:Class
out  the `Probe` class. `mvssl.evaluation.probes.base` has the contract, with all that a probe may need

Each probe is a function in a file of its own. To add one: write the function, add its line to PROBES, its name to
PROBE_NAMES in mvssl/cli/evaluation.py, and its section to docs/reference/probes.md.
"""

from mvssl.errors import RecipeError
from mvssl.evaluation.probes import (
    classifiers,
    clustering,
    dense,
    few_label,
    fine_tune,
    information,
    knn,
    linear,
    ood,
    retrieval,
    spectrum,
)  # fmt: skip
from mvssl.evaluation.probes.base import FunctionProbe, Probe
from mvssl.recipe.messages import nearest
from mvssl.recipe.options import find_class

PROBES: dict[str, type[Probe]] = {
    "fewlabel": few_label.FewLabels,
    "knn": FunctionProbe.of(knn.knn),
    "linear": FunctionProbe.of(linear.linear),
    "mlp": FunctionProbe.of(classifiers.mlp_probe),
    "cluster": FunctionProbe.of(clustering.cluster),
    "spectrum": FunctionProbe.of(spectrum.spectrum, needs_labels=False),
    "ndm": FunctionProbe.of(information.ndm, needs_labels=False),
    "sensors": FunctionProbe.of(linear.view_ablation, runs_on="all views"),
    "retrieval": FunctionProbe.of(retrieval.retrieval, runs_on="all views", needs_labels=False),
    "aligned": FunctionProbe.of(spectrum.alignment_probe, runs_on="all views", needs_labels=False),
    "information": FunctionProbe.of(information.information, runs_on="all views", needs_labels=False),
    "inputs": FunctionProbe.of(
        information.input_information, runs_on="all views", needs_labels=False, needs_clean_views=True
    ),
    "ood": ood.OOD,
    "dense": dense.Dense,
    "finetune": fine_tune.FineTuning,
}


def find_probe(name: str, where: str) -> type[Probe]:
    """Return the class for the name of a probe. Raise `RecipeError` that names `where` it stands."""
    if name not in PROBES and ":" not in name:
        raise RecipeError(f"{where}: no probe {name!r}{nearest(name, [*PROBES, 'package.module:Class'])}")
    probe = find_class(name, PROBES, where)
    if not issubclass(probe, Probe):
        raise RecipeError(f"{where}: {name!r} is no probe; it must be a subclass of mvssl.evaluation.Probe")
    return probe
