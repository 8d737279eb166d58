"""Cross-modal retrieval: given one view of a sample, find the other view of it among those of all samples.

in   embeddings of two views of the same samples, [n, d] each, in a space where they can be compared; labels, if any
out  recall at 1, 5 and 10 of the sample's own other view, and mean average precision: of everything of the same label
     where there is one label per sample, else of the own other view (then it is the mean reciprocal rank)

Similarity is the cosine. Candidates of equal similarity are in random order: recall and reciprocal rank are
expectations over these orders, so embeddings that are all alike give exactly chance. For precision by label equal
candidates enter together, as in scikit-learn.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.features.labelled import unit
from mvssl.evaluation.probes.base import ByViewProbe
from mvssl.evaluation.probes.spectrum import comparable
from mvssl.evaluation.results.metrics import (
    MEAN_AVERAGE_PRECISION,
    SAMPLES,
    Metric,
    Result,
    average_precision,
    error_at_edge,
    expected_precision,
)

RANKS = (1, 5, 10)
SHUFFLED = "expectation over random orders of equal candidates"
CELLS = 2**22  # similarities held at once; sorting takes several times 32 MB


class Place(NamedTuple):
    """Where a query's own candidate stands: how many are more similar, and how many equally so, itself included."""

    better: Tensor  # int64 [n]
    equal: Tensor  # int64 [n]


def similarities(queries: Tensor, candidates: Tensor) -> Iterator[Tensor]:
    """Cosines of [n, d] with [m, d], [rows, m] at a time; what differs by less than rounding is made equal."""
    keys = unit(candidates)
    for part in queries.split(max(1, CELLS // len(keys))):
        yield (unit(part) @ keys.T).round(decimals=6)


def place(queries: Tensor, candidates: Tensor) -> Place:
    """Of query i, the place of candidate i among all: [n, d] twice."""
    better, equal, start = [], [], 0
    for similarity in similarities(queries, candidates):
        own = similarity.diagonal(start)[:, None]
        better.append((similarity > own).sum(1))
        equal.append((similarity == own).sum(1))
        start += len(similarity)
    return Place(torch.cat(better), torch.cat(equal))


def recall(found: Place, k: int) -> Tensor:
    """[n], the chance that a query's own candidate is among the first k."""
    return ((k - found.better) / found.equal).clamp(0, 1).double()


def reciprocal_rank(found: Place) -> Tensor:
    """[n], the expectation of 1 / rank: the average precision of a query with one right candidate."""
    most = int((found.better + found.equal).max())
    steps = torch.arange(1, most + 1, device=found.better.device, dtype=torch.float64)
    harmonic = F.pad((1 / steps).cumsum(0), (1, 0))
    return (harmonic[found.better + found.equal] - harmonic[found.better]) / found.equal


def precision_by_label(queries: Tensor, candidates: Tensor, labels: Tensor) -> Tensor:
    """[n], the average precision of each query over all candidates, where those of its label are right."""
    found, start = [], 0
    for similarity in similarities(queries, candidates):
        own = labels[start : start + len(similarity)]
        found.append(average_precision(similarity.T, labels[:, None] == own))
        start += len(similarity)
    return torch.cat(found)


def retrieval(train: ByView, test: ByView, *, seed: int = 0) -> list[Result]:
    """Every view from every other, both ways, among the samples of test; nothing is fitted and train is not used.

    Views whose features differ in width have no common space: `NotPossible` where no two views do.
    """
    return [
        result._replace(what=f"{one} to {other}")
        for pair in comparable(test)
        for one, other in (pair, pair[::-1])
        for result in both(test.features[one], test.features[other], test.labels)
    ]


def both(queries: Tensor, candidates: Tensor, labels: Tensor | None = None) -> list[Result]:
    """Recall at each of RANKS and mean average precision: [n, d] twice, row i of both is one sample."""
    n, found = len(queries), place(queries, candidates)
    own = "the same sample's other view"
    results = [_mean(Metric(f"recall_at_{k}"), recall(found, k), n, own, min(k / n, 1)) for k in RANKS]
    if labels is not None and labels.ndim == 1 and len(labels):
        precision = precision_by_label(queries, candidates, labels)
        share = torch.bincount(labels).double() / n
        right, ties = "the other view of any sample of the same label", "equal candidates enter together"
        chance = sum(s.item() * expected_precision(round(s.item() * n), n) for s in share if s)
    else:
        precision, right, ties = reciprocal_rank(found), own, SHUFFLED
        chance = expected_precision(1, n)
    return [*results, _mean(MEAN_AVERAGE_PRECISION, precision, n, right, chance, ties)]


def _mean(metric: Metric, parts: Tensor, n: int, right: str, chance: float, ties: str = SHUFFLED) -> Result:
    parts = parts.double().cpu()
    value, error = parts.mean().item(), parts.std().item() / n**0.5 if n > 1 else 0.0
    error = error_at_edge(n) if value in (0.0, 1.0) else error
    protocol = {
        "candidates": n,
        "right": right,
        "similarity": "cosine",
        "ties": ties,
        "chosen": "nothing is fitted",
        "standard_error": "std over queries / sqrt(queries)",
    }
    return Result(value, metric, protocol, error, parts, SAMPLES, chance=chance)


class Retrieval(ByViewProbe):
    """`retrieval`."""

    function = retrieval
    needs_labels = False
