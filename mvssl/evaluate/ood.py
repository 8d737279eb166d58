"""Out-of-distribution detection: do features tell samples of another origin from those of the same?

in   features of train, of test samples of the same origin and of samples of another one
out  for two scores of strangeness the AUROC: the share of pairs (one stranger, one test sample) in which the stranger
     is the stranger one; 0.5 by chance, 1 where a threshold parts them
Lee et al., NeurIPS 2018, https://arxiv.org/abs/1807.03888 (Mahalanobis); Sun et al., ICML 2022,
https://arxiv.org/abs/2204.06507 (distance to the k-th neighbour)
"""

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from mvssl.evaluate.features import Labelled
from mvssl.evaluate.metrics import BOOTSTRAP, Metric, Result, resampled

AUROC = Metric("auroc")
CELLS = 2**24  # numbers held at once: 64 MB of distances, 128 MB of features in double precision


def mahalanobis(train: Labelled, features: Tensor) -> Tensor:
    """Squared distance to the nearest class mean of train, in the covariance about these means: [n, d] -> [n].

    The covariance is shrunk towards a multiple of the identity (Ledoit and Wolf, 2004), so that fewer samples than
    dimensions do no harm. Multi-hot labels are not used: one mean of all.
    """
    x, groups = train.features, train.labels
    groups = groups if groups.ndim == 1 else torch.zeros(len(x), dtype=torch.int64, device=x.device)
    _, groups = groups.unique(return_inverse=True)
    counts, d = torch.bincount(groups).double()[:, None], x.shape[1]
    size = max(1, CELLS // max(d, len(counts)))  # rows at a time: no copy of all of train, whatever its size
    means, spread = (torch.zeros(k, d, dtype=torch.float64, device=x.device) for k in (len(counts), d))
    for part, own in zip(x.split(size), groups.split(size), strict=True):
        means.index_add_(0, own, part.double())
    means /= counts
    fourth = torch.zeros((), dtype=torch.float64, device=x.device)
    for part, own in zip(x.split(size), groups.split(size), strict=True):
        within = part.double() - means[own]
        spread += within.T @ within
        fourth += within.square().sum(1).square().sum()
    factor = torch.linalg.cholesky(shrunk(spread / len(x), fourth / len(x), len(x)))
    centres = torch.linalg.solve_triangular(factor, means.T, upper=False).T
    return torch.cat([_distance(factor, centres, part.double()) for part in features.split(size)])


def shrunk(covariance: Tensor, fourth: Tensor, n: int) -> Tensor:
    """Ledoit and Wolf's: [d, d] of n samples, and the mean of the fourth power of their length, to positive [d, d]."""
    d, square, level = len(covariance), covariance.square().sum(), covariance.trace() / len(covariance)
    share = (((fourth - square) / n) / (square - d * level.square())).nan_to_num(0).clamp(0, 1)
    found = (1 - share) * covariance
    found.diagonal().add_(share * level + 1e-9 * level + 1e-30)
    return found


def _distance(factor: Tensor, centres: Tensor, x: Tensor) -> Tensor:
    white = torch.linalg.solve_triangular(factor, x.T, upper=False).T
    return torch.cdist(white, centres).square().amin(1)


def neighbour(train: Labelled, features: Tensor, *, k: int = 50) -> Tensor:
    """Distance of unit vectors to the k-th nearest of train (k at most a tenth of it): [n, d] -> [n]; no labels."""
    keys, lengths = train.features, train.features.norm(dim=1).clamp(min=1e-12)
    k = max(1, min(k, len(keys) // 10))
    parts = features.split(max(1, CELLS // len(keys)))
    found = [(F.normalize(part, dim=1) @ keys.T / lengths).topk(k, dim=1).values[:, -1] for part in parts]
    return (2 - 2 * torch.cat(found)).clamp(min=0).sqrt()


def auroc(scores: Tensor, strange: Tensor, weights: Tensor | None = None) -> Tensor:
    """P(a stranger's score is higher than a test sample's) + half of P(equal); scores [n], strange bool [n].

    `weights` [b, n] counts each sample that often and gives [b].
    """
    w = torch.ones(1, len(scores)) if weights is None else weights
    _, level = scores.unique(return_inverse=True)
    level, w = level.cpu(), w.cpu().double()
    counts = torch.zeros(2, len(w), int(level.max()) + 1, dtype=torch.float64)
    for kind in (0, 1):
        counts[kind].index_add_(1, level, w * (strange.cpu() == bool(kind)))
    same, other = counts
    below = same.cumsum(1) - same / 2
    area = (other * below).sum(1) / (other.sum(1) * same.sum(1))
    return area[0] if weights is None else area


def ood(train: Labelled, test: Labelled, *, other: Tensor, k: PositiveInt = 50, seed: int = 0) -> list[Result]:
    """AUROC of both scores between test and the strangers `other` [m, d]; nothing is fitted to either."""
    both = torch.cat([test.features, other])
    strange = torch.arange(len(both)) >= len(test.features)
    generator = torch.Generator().manual_seed(seed)
    counts = torch.cat([resampled(n, generator) for n in (len(test.features), len(other))], 1)
    shared = {"n_in": len(test.features), "n_out": len(other), "chosen": "fixed beforehand"}
    labels = "nearest class mean" if train.labels.ndim == 1 else "one mean: multi-hot labels are not used"
    found = {
        "mahalanobis": (mahalanobis(train, both), {"means": labels, "covariance": "pooled, Ledoit-Wolf"}),
        "neighbour": (
            neighbour(train, both, k=k),
            {"k": max(1, min(k, len(train.labels) // 10)), "scaling": "unit length"},
        ),
    }
    results = []
    for name, (scores, how) in found.items():
        parts = torch.cat([auroc(scores, strange, part) for part in counts.split(20)])
        value = auroc(scores, strange).item()
        protocol = {"score": name, **how, **shared}
        results.append(Result(value, AUROC, protocol, parts.std().item(), parts, BOOTSTRAP, name, chance=0.5))
    return results
