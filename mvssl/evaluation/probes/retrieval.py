"""Cross-modal retrieval: given one view of a sample, find its other view among those of all samples.

in   embeddings of two views of the same samples, [n, d] each, in a space where they can be compared; labels, if any
out  recall at 1, 5 and 10, and mean average precision, for every ordered pair of views

The positive of a query is the other view of the same sample. Mean average precision uses labels where every sample has
one class: all candidates of the same label are then correct. Otherwise only the positive is correct, and it is the mean
reciprocal rank.

Similarity is the cosine. Candidates of equal similarity are in random order. Recall and reciprocal rank are
expectations over these orders, so equal embeddings score exactly chance. For precision by label, equal candidates enter
together, as in scikit-learn.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.features.labelled import unit_rows
from mvssl.evaluation.probes.spectrum import pairs_of_equal_width
from mvssl.evaluation.results.metrics import (
    MEAN_AVERAGE_PRECISION,
    SAMPLES,
    Metric,
    Result,
    average_precision,
    expected_precision,
    wilson_error_at_0_or_1,
)

RANKS = (1, 5, 10)
SHUFFLED = "expectation over random orders of equal candidates"
CELLS = 2**22  # similarities in memory at once; sorting takes several times 32 MB


class Ranks(NamedTuple):
    """The rank of the positive of each of n queries."""

    better: Tensor  # int64 [n], candidates that are more similar than the positive
    equal: Tensor  # int64 [n], candidates that are equally similar, with the positive itself


def similarities(queries: Tensor, candidates: Tensor) -> Iterator[Tensor]:
    """Yield the cosines [rows, m] of [n, d] with [m, d], rounded: candidates that are equal have equal cosines."""
    keys = unit_rows(candidates)
    for part in queries.split(max(1, CELLS // len(keys))):
        yield (unit_rows(part) @ keys.T).round(decimals=6)


def rank_positives(queries: Tensor, candidates: Tensor) -> Ranks:
    """Return the rank of candidate i for query i; both are [n, d]."""
    better, equal, start = [], [], 0
    for similarity in similarities(queries, candidates):
        own = similarity.diagonal(start)[:, None]
        better.append((similarity > own).sum(1))
        equal.append((similarity == own).sum(1))
        start += len(similarity)
    return Ranks(torch.cat(better), torch.cat(equal))


def recall(ranks: Ranks, k: int) -> Tensor:
    """Return the probability [n] that the positive is among the first k candidates."""
    return ((k - ranks.better) / ranks.equal).clamp(0, 1).double()


def reciprocal_rank(ranks: Ranks) -> Tensor:
    """Return the expectation [n] of 1 / rank. It is the average precision of a query with one correct candidate."""
    most = int((ranks.better + ranks.equal).max())
    steps = torch.arange(1, most + 1, device=ranks.better.device, dtype=torch.float64)
    harmonic = F.pad((1 / steps).cumsum(0), (1, 0))
    return (harmonic[ranks.better + ranks.equal] - harmonic[ranks.better]) / ranks.equal


def precision_by_label(queries: Tensor, candidates: Tensor, labels: Tensor) -> Tensor:
    """Return the average precision [n] of each query. The candidates of the same label are correct."""
    parts, start = [], 0
    for similarity in similarities(queries, candidates):
        own = labels[start : start + len(similarity)]
        parts.append(average_precision(similarity.T, labels[:, None] == own))
        start += len(similarity)
    return torch.cat(parts)


def retrieval(train: ByView, test: ByView, *, seed: int = 0) -> list[Result]:
    """Return the results of every ordered pair of views on test. Nothing is fitted, and train is not used.

    Views are compared only if their features have the same width. Raise `NotPossible` if no two views do.
    """
    return [
        result._replace(what=f"{one} to {other}")
        for pair in pairs_of_equal_width(test)
        for one, other in (pair, pair[::-1])
        for result in score_retrieval(test.features[one], test.features[other], test.labels)
    ]


def score_retrieval(queries: Tensor, candidates: Tensor, labels: Tensor | None = None) -> list[Result]:
    """Return recall at each of RANKS and mean average precision.

    Queries and candidates are [n, d]; row i of both belongs to one sample. `labels` are [n] or [n, c].
    """
    n, ranks = len(queries), rank_positives(queries, candidates)
    own = "the same sample's other view"
    results = [_mean(Metric(f"recall_at_{k}"), recall(ranks, k), n, own, min(k / n, 1)) for k in RANKS]
    if labels is not None and labels.ndim == 1 and len(labels):
        precision = precision_by_label(queries, candidates, labels)
        share = torch.bincount(labels).double() / n
        right, ties = "the other view of any sample of the same label", "equal candidates enter together"
        chance = sum(s.item() * expected_precision(round(s.item() * n), n) for s in share if s)
    else:
        precision, right, ties = reciprocal_rank(ranks), own, SHUFFLED
        chance = expected_precision(1, n)
    return [*results, _mean(MEAN_AVERAGE_PRECISION, precision, n, right, chance, ties)]


def _mean(metric: Metric, parts: Tensor, n: int, right: str, chance: float, ties: str = SHUFFLED) -> Result:
    parts = parts.double().cpu()
    value, error = parts.mean().item(), parts.std().item() / n**0.5 if n > 1 else 0.0
    error = wilson_error_at_0_or_1(n) if value in (0.0, 1.0) else error
    protocol = {
        "candidates": n,
        "right": right,
        "similarity": "cosine",
        "ties": ties,
        "chosen": "nothing is fitted",
        "standard_error": "std over queries / sqrt(queries)",
    }
    return Result(value, metric, protocol, error, parts, SAMPLES, chance=chance)
