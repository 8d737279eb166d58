"""The table of probes: what each is called, the function behind it, and what that function is handed.

A probe is a pure function in a file of its own; it knows nothing of runs, shards, caches, processes or records. To add
one: write the function, add its line to PROBES, its metrics to its own file, its section to docs/evaluate.md.

    handed   called as                                                once for each
    view     probe(train: Labelled, test: Labelled, *, seed, ...)     view, and `all` (the views joined, standardised)
    views    probe(train: ByView, test: ByView, *, seed, ...)         evaluation, of at least two views
    maps     probe(train: Dense, test: Dense, *, seed, device, ...)   view whose layer is a map
    model    probe(live: Live, *, seed, ...)                          view

in   features float32 and labels on the device; local maps on the CPU, memory-mapped, rows to be sent by the probe
out  one `mvssl.evaluate.metrics.Result` or several, each with its `Metric` and, where a probe gives several, `what` it
     is of. `Result.protocol` holds the settings and how they were chosen and must be equal for every encoder;
     `Result.chosen` holds what this encoder's data decided; both are JSON. With `parts`, differences are paired. Raise
     `NotPossible("why")` where these data do not allow it: the evaluation notes it and goes on.

`labels=False` probes run without labels too (then `labels` is empty). `inputs=True` fills `ByView.inputs`. `other=True`
adds the keyword `other: Tensor [k, d]`, features of shards of another distribution (`--other SHARDS`). `rows` says from
the recipe's `evaluate` table with which further keywords the probe is called, once for each dict.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from mvssl.encoders import Encoder
from mvssl.evaluate.features import Labelled as Labelled
from mvssl.evaluate.fewlabel import fewlabel
from mvssl.evaluate.knn import knn
from mvssl.evaluate.linear import linear
from mvssl.evaluate.metrics import Result
from mvssl.recipe import Evaluate


class ByView(NamedTuple):
    """What several views say of the same n samples."""

    features: dict[str, Tensor]  # view -> [n, d]
    labels: Tensor  # int64 [n] or multi-hot float32 [n, c]
    inputs: dict[str, Tensor]  # view -> [n, d'], the clean views themselves, flattened


class Dense(NamedTuple):
    """Local maps [n, c, h, w] of one view and the class of each pixel, uint8 or int64 [n, H, W]."""

    maps: Tensor
    segments: Tensor


@dataclass(frozen=True)
class Live:
    """One view's encoder to be trained further."""

    view: str
    classes: int
    samples: int  # of train
    device: torch.device
    encoder: Callable[[], Encoder]  # a fresh copy with the weights to start from; [n, ...] -> Features
    train: Callable[..., Iterator[tuple[Tensor, Tensor]]]  # (steps, batch_size, seed) -> augmented view, labels
    test: Callable[[], Iterable[tuple[Tensor, Tensor]]]  # clean view, labels; every sample once


def _once(_: Evaluate) -> list[dict[str, Any]]:
    return [{}]


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
}
