"""Out-of-distribution detection: do features separate samples of another distribution from test samples?

in   features of train, of test samples of the same distribution, and of samples of another one (outliers)
out  for two outlier scores the AUROC: the share of pairs (one outlier, one test sample) in which the outlier has the
     higher score; 0.5 by chance, 1 where a threshold separates them
Lee et al., NeurIPS 2018, https://arxiv.org/abs/1807.03888 (Mahalanobis); Sun et al., ICML 2022,
https://arxiv.org/abs/2204.06507 (distance to the k-th neighbour)
"""

from collections.abc import Callable, Iterable

import torch
from pydantic import PositiveInt
from torch import Tensor

from mvssl.evaluation.features.inputs import ProbeInputs
from mvssl.evaluation.features.labelled import Labelled, nonzero_lengths, unit_rows
from mvssl.evaluation.probes.base import FunctionProbe
from mvssl.evaluation.results.metrics import BOOTSTRAP, Metric, Result, resampled

AUROC = Metric("auroc")
CELLS = 2**24  # numbers in memory at once: 64 MB of distances, 128 MB of features in double precision


def mahalanobis(train: Labelled, features: Tensor) -> Tensor:
    """Return the squared distance [n] to the nearest class mean of train, in the covariance about the means.

    The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004), so it is invertible even with
    fewer samples than dimensions. Multi-hot labels are not used: there is one mean.
    """
    x, groups = train.features, train.labels
    groups = groups if groups.ndim == 1 else torch.zeros(len(x), dtype=torch.int64, device=x.device)
    _, groups = groups.unique(return_inverse=True)
    counts, d = torch.bincount(groups).double()[:, None], x.shape[1]
    size = max(1, CELLS // max(d, len(counts)))  # rows at a time: no copy of all of train, whatever its size
    means = torch.zeros(len(counts), d, dtype=torch.float64, device=x.device)
    for part, own in zip(x.split(size), groups.split(size), strict=True):
        means.index_add_(0, own, part.double())
    means /= counts
    parts = (part.double() - means[own] for part, own in zip(x.split(size), groups.split(size), strict=True))
    white = whitening(parts, len(x), d)
    center = means.mean(0)  # subtracted before distances are computed from products, which lose digits to a large mean
    centres = white(means - center)
    return torch.cat([torch.cdist(white(p.double() - center), centres).square().amin(1) for p in features.split(size)])


def whitening(within: Iterable[Tensor], n: int, d: int) -> Callable[[Tensor], Tensor]:
    """Return a map of [m, d] to coordinates whose Euclidean distance is Mahalanobis', in the shrunk covariance.

    `within` are n deviations from a class mean, float64 [k, d] at a time. Where d exceeds n, no [d, d] is made: the
    covariance is then a multiple of the identity outside the span of the deviations.
    """
    if d > n:
        w = torch.cat(list(within))
        square = w @ w.T / n
        share, level = shrinkage(square, w.square().sum(1).square().sum() / n, n, d)
        values, vectors = torch.linalg.eigh(square)
        kept = values > 1e-12 * values[-1]
        basis = w.T @ vectors[:, kept] * (n * values[kept]).rsqrt()  # [d, r], orthonormal
        spread = ((1 - share) * values[kept] + level).rsqrt()

        def white(x: Tensor) -> Tensor:
            inside = x @ basis
            return torch.cat([inside * spread, (x - inside @ basis.T) * level.rsqrt()], 1)

        return white
    square, fourth = torch.zeros(()), torch.zeros(())
    for part in within:
        square = square.to(part) + part.T @ part / n
        fourth = fourth.to(part) + part.square().sum(1).square().sum() / n
    share, level = shrinkage(square, fourth, n, d)
    covariance = (1 - share) * square
    covariance.diagonal().add_(level)
    factor = torch.linalg.cholesky(covariance)
    return lambda x: torch.linalg.solve_triangular(factor, x.T, upper=False).T


def shrinkage(covariance: Tensor, fourth: Tensor, n: int, d: int) -> tuple[Tensor, Tensor]:
    """Return Ledoit and Wolf's share, and what to add to the diagonal of (1 - share) times the covariance [d, d].

    `fourth` is the mean of the fourth power of the lengths of the n samples. The matrix [n, n] of their products over n
    gives the same: it has the same trace and the same sum of squares.
    """
    square, level = covariance.square().sum(), covariance.trace() / d
    share = (((fourth - square) / n) / (square - d * level.square())).nan_to_num(0).clamp(0, 1)
    return share, torch.where(level > 0, (share + 1e-9) * level, 1.0)


def cap_k(k: int, train: Labelled) -> int:
    """Return k, but at most a tenth of the samples of train."""
    return max(1, min(k, len(train.features) // 10))


def neighbour_distance(train: Labelled, features: Tensor, *, k: int = 50) -> Tensor:
    """Return the distance [n] of unit vectors to the k-th nearest of train, with `cap_k`. It needs no labels."""
    keys, norms, k = train.features, nonzero_lengths(train.features), cap_k(k, train)
    parts = features.split(max(1, CELLS // len(keys)))
    similar = [(unit_rows(part) @ keys.T / norms).topk(k, dim=1).values[:, -1] for part in parts]
    return (2 - 2 * torch.cat(similar)).clamp(min=0).sqrt()


def auroc(scores: Tensor, outlier: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return P(score of an outlier > score of a test sample) + half of P(equal), [1]; scores [n], outlier bool [n].

    `weights` [b, n] count each sample several times and give [b].
    """
    level = scores.unique(return_inverse=True)[1].cpu()
    weights = torch.ones(1, len(scores)) if weights is None else weights.cpu()
    counts = torch.zeros(2, len(weights), int(level.max()) + 1, dtype=torch.float64)
    for kind in (0, 1):
        counts[kind].index_add_(1, level, weights.double() * (outlier.cpu() == bool(kind)))
    same, other = counts
    below = same.cumsum(1) - same / 2
    return (other * below).sum(1) / (other.sum(1) * same.sum(1))


def ood(train: Labelled, test: Labelled, *, other: Tensor, k: PositiveInt = 50, seed: int = 0) -> list[Result]:
    """Return the AUROC of both scores between test and `other` [m, d]. Neither is used for fitting."""
    features = torch.cat([test.features, other])
    outlier = torch.arange(len(features)) >= len(test.features)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.cat([resampled(n, generator) for n in (len(test.features), len(other))], 1)
    shared = {"n_in": len(test.features), "n_out": len(other), "chosen": "fixed beforehand"}
    means = "nearest class mean" if train.labels.ndim == 1 else "one mean: multi-hot labels are not used"
    results = []
    for name, scores, how in (
        ("mahalanobis", mahalanobis(train, features), {"means": means, "covariance": "pooled, Ledoit-Wolf"}),
        ("neighbour", neighbour_distance(train, features, k=k), {"k": cap_k(k, train), "scaling": "unit length"}),
    ):
        parts = torch.cat([auroc(scores, outlier, part) for part in counts.split(20)])
        value, error, protocol = auroc(scores, outlier).item(), parts.std().item(), {"score": name, **how, **shared}
        results.append(Result(value, AUROC, protocol, error, parts, BOOTSTRAP, name, chance=0.5))
    return results


class OOD(FunctionProbe):
    """`ood`."""

    function = ood
    needs_other = True

    def run(self, inputs: ProbeInputs) -> list[Result]:
        return ood(*inputs.labelled(), other=inputs.other(), seed=inputs.seed, **self.keywords)
