"""The evaluation protocols of papers: their classifiers, layers and epochs, and how ours deviate.

in   the name of a protocol, a subject, a number of epochs in place of the paper's
out  `PlannedProbe`s. Records hold the protocol, its deviations, and the paper's name of the layer

`probes.classifiers` and `probes.few_label` hold the classifiers of the papers' public code.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from mvssl.encoders import Widths
from mvssl.errors import RecipeError
from mvssl.evaluation.features.layers import head_layers
from mvssl.evaluation.plan import PlannedProbe
from mvssl.evaluation.probes import PROBES
from mvssl.evaluation.probes.classifiers import LINEARS, MLPS
from mvssl.evaluation.subject import Subject
from mvssl.recipe.messages import nearest
from mvssl.text import counted

FROZEN = "the encoder is in eval mode and sees no augmentation"

ONE_RATE = {"rates": None, "standardised": False}  # the rate of the paper, and features as they are


class Protocol(NamedTuple):
    """What a paper measures, and with which settings."""

    source: str
    layers: Callable[[Subject], dict[str, str]]  # the paper's name of a layer -> our name
    probes: tuple[tuple[str, dict[str, Any]], ...]  # names of probes, with their options
    deviations: tuple[str, ...]  # differences from the paper, for people
    epochs: int | None = None  # the paper's passes over train; None: nothing is trained by epochs
    draws: int | None = None  # the paper's label sets of each size


def plan_protocol(name: str, subject: Subject, epochs: int | None = None) -> list[PlannedProbe]:
    """Plan the probes of a protocol. Raise `RecipeError` if it is unknown or does not fit the subject."""
    if name not in PROTOCOLS:
        raise RecipeError(f"no protocol {name!r}{nearest(name, PROTOCOLS)}")
    paper, draws = PROTOCOLS[name], subject.recipe.evaluate.draws
    if epochs is not None and paper.epochs is None:
        raise RecipeError(f"--epochs: protocol {name} has no epochs; use evaluate.draws to shorten it")
    epochs = epochs or paper.epochs
    shared = {"epochs": epochs, "least_steps": 1} if paper.epochs else {"draws": draws}
    deviations = [*paper.deviations]
    if epochs != paper.epochs:
        deviations.append(f"{counted(epochs or 0, 'epoch')} in place of {paper.epochs}, the milestones in proportion")
    if paper.draws and draws != paper.draws:
        deviations.append(f"{draws} draws of labels in place of {paper.draws} (evaluate.draws)")
    preset = {"name": name, "source": paper.source, "deviations": deviations}
    return [
        PlannedProbe(
            probe, PROBES[probe], options | (shared if "head" in options else {}), layer, preset,
            paper_layer=called if called != layer else "",
        )
        for called, layer in paper.layers(subject).items()
        for probe, options in paper.probes
    ]  # fmt: skip


def _widths(subject: Subject, name: str) -> Widths:
    """Return the sizes of the maps and the vector. Raise `RecipeError` if the encoders differ in their maps."""
    by_view = {view: subject.model.encoder_of(view).widths for view in subject.views.shapes}
    if len({tuple(math.prod(m[1:]) > 1 for m in w.maps) for w in by_view.values()}) > 1:
        counts = ", ".join(f"{view} {len(w.maps)}" for view, w in by_view.items())
        raise RecipeError(
            f"protocol {name} names layers by depth, but the encoders of this subject have different maps ({counts}); "
            "name a layer by its number instead: --probe linear --layer N"
        )
    return next(iter(by_view.values()))


def _conv_fc_y(subject: Subject) -> dict[str, str]:
    """Return DIM's layers: `conv`, `fc` and `Y`.

    `conv` is the deepest map with more than one place, and `Y` is the vector. `fc` is the last map of one place after
    `conv`. It is left out if there is none, or if it is the vector.
    """
    maps, vector, _ = _widths(subject, "dim")
    places = [number for number, (_, h, w) in enumerate(maps) if h * w > 1]
    if not places:
        raise RecipeError(
            "protocol dim reads the last map of a convolutional encoder, but this subject has no such map; "
            "use --protocol amdim to measure a vector"
        )
    flat = [n for n in _distinct(maps, vector) if n > places[-1]]
    return {"conv": str(places[-1])} | ({"fc": str(flat[-1])} if flat else {}) | {"Y": "vector"}


def _all_layers(subject: Subject) -> dict[str, str]:
    """Return every map, shallow to deep, and the vector."""
    maps, vector, _ = _widths(subject, "cmc")
    return {layer: layer for layer in (*map(str, _distinct(maps, vector)), "vector")}


def _distinct(maps: tuple[tuple[int, int, int], ...], vector: int) -> range:
    """Return the numbers of the maps. A last map that equals the vector is left out."""
    return range(len(maps) - bool(maps and maps[-1] == (vector, 1, 1)))


def _posterior_mean(subject: Subject) -> dict[str, str]:
    for layer, (_, objective) in head_layers(subject.model).items():
        if layer != "head" and objective.has_posterior:
            return {"posterior mean": layer}
    raise RecipeError(
        "protocol mib reads the mean of a posterior, but no objective of this subject has one. The objectives mib and "
        "infomax have one; an export has none, so give the run. --probe fewlabel measures few labels on any features"
    )


PROTOCOLS = {
    "dim": Protocol(
        "arXiv:1808.06670, section 4; https://github.com/rdevon/DIM",
        _conv_fc_y,
        (("mlp", {"head": "dim", **ONE_RATE}), ("linear", {})),
        (
            "linear is a softmax classifier with rate and weight decay chosen on part of train; the paper's is an SVM",
            "maps of more than 8,192 numbers are average-pooled",
            "the encoder is in eval mode",
        ),
        epochs=MLPS["dim"].epochs,
    ),
    "amdim": Protocol(
        "arXiv:1906.00910, section 4; https://github.com/Philip-Bachman/amdim-public",
        lambda _: {"global": "vector"},
        (("linear", {"head": "amdim"}), ("mlp", {"head": "amdim", **ONE_RATE})),
        (
            f"{FROZEN}; the code trains the classifiers on augmented images, with the encoder in train mode",
            "no batch norm is refreshed on test images; the code does so with 50 batches of them",
            "every test image counts; the code drops the last batch",
            "length and milestones are the code's for CIFAR and STL-10, 80 and 110 of 120 epochs, on any data; the "
            "code has 15 and 25 of 30 for ImageNet, 7 and 12 of 15 for Places205",
        ),
        epochs=MLPS["amdim"].epochs,
    ),
    "cmc": Protocol(
        "arXiv:1906.05849, section 4; https://github.com/HobbitLong/CMC",
        _all_layers,
        (("linear", {"head": "cmc"}),),
        (
            "the rate, 0.1 (the code's for AlexNet) or 30 (for ResNet v1 and v2), is chosen on part of train; 50 (for "
            "ResNet v3) is not tried",
            "the last epoch is tested; the code keeps the one that is best on the images it reports",
            "maps of more than 8,192 numbers are average-pooled; the code pools AlexNet's to their largest",
            f"{FROZEN}; the code trains on random crops and flips",
        ),
        epochs=LINEARS["cmc"].epochs,
    ),
    "mib": Protocol(
        "arXiv:2002.07017, section 5; https://github.com/mfederici/Multi-View-Information-Bottleneck",
        _posterior_mean,
        tuple(("fewlabel", {"head": "mib", "shots": shots}) for shots in (1, 2, 5, 10, 100, 1000)),
        (),
        draws=100,
    ),
}
