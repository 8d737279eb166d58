"""The papers' own protocols: which classifier of which layer, for how long, and where ours are not theirs.

in   the name of a protocol, a subject, a number of passes over train in place of the paper's
out  `Job`s; records then say the protocol and its deviations, and what the paper calls the layer

The classifiers are in `classifiers` and `fewlabel`, as the papers' public code has them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from mvssl.encoders import Widths
from mvssl.errors import RecipeError
from mvssl.evaluate.classifiers import LINEARS, MLPS
from mvssl.evaluate.layers import heads
from mvssl.evaluate.plan import Job
from mvssl.evaluate.probes import PROBES
from mvssl.evaluate.subject import Subject
from mvssl.objectives import MIB, InfoMax
from mvssl.recipe import nearest

DRAWS = 100  # label sets per size in MIB's code
FROZEN = "the encoder is in eval mode and sees no augmentation"


class Row(NamedTuple):
    """A probe and the keywords it is called with; `epochs` and `shots` are filled in."""

    probe: str
    options: dict[str, Any]
    epochs: int | None = None


class Protocol(NamedTuple):
    """What a paper measures; `layers` gives the name of each layer by what the paper calls it."""

    source: str
    layers: Callable[[Subject], dict[str, str]]
    rows: tuple[Row, ...]
    deviations: tuple[str, ...]


def jobs_of_protocol(name: str, subject: Subject, epochs: int | None = None) -> list[Job]:
    """Layer by layer, the paper's rows. Raises `RecipeError` for a protocol that there is not, or that does not fit."""
    if name not in PROTOCOLS:
        raise RecipeError(f"no protocol {name!r}{nearest(name, PROTOCOLS)}")
    source, layers, rows, deviations = PROTOCOLS[name]
    if epochs is not None and not any(row.epochs for row in rows):
        raise RecipeError(f"--epochs: protocol {name} trains nothing by epochs; evaluate.draws shortens it")
    told = [*deviations, *_shortened(rows, epochs), *(_drawn(subject) if name == "mib" else [])]
    preset = {"name": name, "source": source, "deviations": told}
    return [
        Job(row.probe, options, layer, preset=preset, called=called if called != layer else "")
        for called, layer in layers(subject).items()
        for row in rows
        for options in _options(row, subject, epochs)
    ]


def _options(row: Row, subject: Subject, epochs: int | None) -> list[dict[str, Any]]:
    if row.epochs is None:
        draws = subject.recipe.evaluate.draws
        return [{**row.options, "shots": shots, "draws": draws} for shots in (1, 2, 5, 10, 100, 1000)]
    if row.options.get("head") is None:  # our own classifier, chosen on train
        return PROBES[row.probe].rows(subject.recipe.evaluate)
    return [{**row.options, "epochs": epochs or row.epochs, "least_steps": 1}]


def _shortened(rows: tuple[Row, ...], epochs: int | None) -> list[str]:
    papers = max((row.epochs or 0 for row in rows), default=0)
    if epochs in (None, papers):
        return []
    return [f"{epochs} epoch{'s' * (epochs > 1)} in place of {papers}, the milestones in proportion"]


def _drawn(subject: Subject) -> list[str]:
    draws = subject.recipe.evaluate.draws
    return [f"{draws} draws of labels in place of {DRAWS} (evaluate.draws)"] if draws != DRAWS else []


def _widths(subject: Subject, name: str) -> Widths:
    """Sizes of the maps and the vector, if all encoders have as many of them."""
    found = {view: subject.model.encoder_of(view).widths for view in subject.views.shapes}
    if len({tuple(math.prod(m[1:]) > 1 for m in w.maps) for w in found.values()}) > 1:
        counts = ", ".join(f"{view} {len(w.maps)}" for view, w in found.items())
        raise RecipeError(
            f"protocol {name} names layers by depth, and the encoders of this subject have other maps each ({counts}); "
            "measure them by number: --probe linear --layer N"
        )
    return next(iter(found.values()))


def _conv_fc_y(subject: Subject) -> dict[str, str]:
    """The deepest map with places; after it the last layer without, unless it is the vector; the vector."""
    maps, vector, _ = _widths(subject, "dim")
    places = [number for number, (_, h, w) in enumerate(maps) if h * w > 1]
    if not places:
        raise RecipeError(
            "protocol dim reads the last map of a convolutional encoder, and this subject's has none; "
            "--protocol amdim measures a vector"
        )
    flat = [n for n in _distinct(maps, vector) if n > places[-1]]
    return {"conv": str(places[-1])} | ({"fc": str(flat[-1])} if flat else {}) | {"Y": "vector"}


def _global(_: Subject) -> dict[str, str]:
    return {"global": "vector"}


def _all_layers(subject: Subject) -> dict[str, str]:
    """Every map, shallow to deep, and the vector."""
    maps, vector, _ = _widths(subject, "cmc")
    return {layer: layer for layer in (*map(str, _distinct(maps, vector)), "vector")}


def _distinct(maps: tuple[tuple[int, int, int], ...], vector: int) -> range:
    """The numbers of the maps, without a last one that is the vector under another name."""
    return range(len(maps) - bool(maps and maps[-1] == (vector, 1, 1)))


def _posterior_mean(subject: Subject) -> dict[str, str]:
    for layer, (_, objective) in heads(subject.model).items():
        if layer != "head" and isinstance(objective, MIB | InfoMax):
            return {"posterior mean": layer}
    raise RecipeError(
        "protocol mib reads the mean of a posterior, which the objectives mib and infomax have, and this subject has "
        "neither (an export keeps encoders alone: give the run); --probe fewlabel measures few labels on any features"
    )


PROTOCOLS = {
    "dim": Protocol(
        "arXiv:1808.06670, section 4; https://github.com/rdevon/DIM",
        _conv_fc_y,
        (
            Row("mlp", {"head": "dim", "rates": None, "standardised": False}, MLPS["dim"].epochs),
            Row("linear", {}, MLPS["dim"].epochs),
        ),
        (
            "linear is a softmax classifier with rate and weight decay chosen on part of train; the paper's is an SVM",
            "maps of more than 8,192 numbers are average-pooled",
            "the encoder is in eval mode",
        ),
    ),
    "amdim": Protocol(
        "arXiv:1906.00910, section 4; https://github.com/Philip-Bachman/amdim-public",
        _global,
        (
            Row("linear", {"head": "amdim"}, LINEARS["amdim"].epochs),
            Row("mlp", {"head": "amdim", "rates": None, "standardised": False}, MLPS["amdim"].epochs),
        ),
        (
            f"{FROZEN}; the code trains the classifiers on augmented images, with the encoder in train mode",
            "no batch norm is refreshed on test images; the code does so with 50 batches of them",
            "every test image counts; the code drops the last batch",
        ),
    ),
    "cmc": Protocol(
        "arXiv:1906.05849, section 4; https://github.com/HobbitLong/CMC",
        _all_layers,
        (Row("linear", {"head": "cmc"}, LINEARS["cmc"].epochs),),
        (
            "the rate, 0.1 (the code's for AlexNet) or 30 (for ResNets), is chosen on part of train",
            "the last epoch is tested; the code keeps the one that is best on the images it reports",
            "maps of more than 8,192 numbers are average-pooled; the code pools AlexNet's to their largest",
            f"{FROZEN}; the code trains on random crops and flips",
            "views that are joined are each standardised by train first",
        ),
    ),
    "mib": Protocol(
        "arXiv:2002.07017, section 5; https://github.com/mfederici/Multi-View-Information-Bottleneck",
        _posterior_mean,
        (Row("fewlabel", {"head": "mib"}),),
        (),
    ),
}
