"""Statistics of the feature distribution: effective rank, spread, alignment and uniformity.

in   features [n, d], of one view, or of two views of the same samples; no labels are needed
out  0-d or [d] tensors on the device of the features, without a host sync; probes `spectrum` and `alignment_probe`

Roy and Vetterli, EUSIPCO 2007 (effective rank); Garrido et al., ICML 2023, https://arxiv.org/abs/2210.02885 (RankMe);
Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242; Chen and He, CVPR 2021, https://arxiv.org/abs/2011.10566
"""

import itertools
import math

import torch
from torch import Tensor

from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.features.labelled import Labelled, unit_rows
from mvssl.evaluation.results.metrics import Metric, NotPossible, Result, mean_over_samples

RANK = Metric("effective_rank", "", high=math.inf)
SPREAD = Metric("spread", "")
UNIFORMITY = Metric("uniformity", "", higher_is_better=False, low=-math.inf, high=0.0)
ALIGNMENT = Metric("alignment", "", higher_is_better=False, high=4.0)
CELLS = 2**22  # distances in memory at once: 32 MB in double precision


def singular_values(features: Tensor, *, centred: bool = True) -> Tensor:
    """Return the min(n, d) singular values of [n, d], ascending, float64. `centred` subtracts the mean first."""
    x = features.detach().double()
    x = x - x.mean(0) if centred else x
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()


def effective_rank(features: Tensor, *, centred: bool = True) -> Tensor:
    """Return e^H, where H is the entropy of the singular values divided by their sum.

    It is from 1 to min(n, d), and 0 for constant features. It is d for a white Gaussian, and k if k directions vary
    equally and the others are constant. RankMe is `centred=False`: a large mean then counts as a direction.
    """
    values = singular_values(features, centred=centred)
    # rounding leaves about 1e-16 of the largest square, so smaller values are not directions
    scale = features.detach().double().square().sum().sqrt()
    values = torch.where(values > 1e-7 * scale, values, 0)
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    entropy = -torch.xlogy(share, share).sum()
    return torch.where(values.sum() > 0, entropy.exp(), 0)


def spread(features: Tensor) -> Tensor:
    """Return the standard deviation [d] of each dimension of the unit vectors, times sqrt(d), float64.

    It is 1 in every dimension for uniform directions, and 0 if all directions are equal. The mean of the squares is
    1 - |mean unit vector|^2, which is at most 1. The mean over dimensions is the curve in figure 2 of Chen and He.
    """
    z = unit_rows(features.detach().double())
    return z.std(0, correction=0) * z.shape[1] ** 0.5


def alignment(one: Tensor, other: Tensor) -> Tensor:
    """Return the mean squared distance of the unit vectors of two views [n, d]: from 0 (equal) to 4, 2 by chance."""
    return squared_distances(one, other).mean()


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """Return the squared distance of the unit vectors, row by row: float64 [n]."""
    one, other = (unit_rows(x.detach().double()) for x in (one, other))
    return (one - other).square().sum(1)


def uniformity(features: Tensor, *, t: float = 2.0) -> Tensor:
    """Return the log of the mean of e^(-t |x - y|^2) over all pairs of different samples, as unit vectors.

    It is 0 if all directions are equal, and lower for more uniform directions. With t = 2, uniform directions in many
    dimensions give about -4.
    """
    z = unit_rows(features.detach().double())
    n, total = len(z), z.new_zeros(())
    rows = max(1, CELLS // n)
    for start in range(0, n, rows):
        part = z[start : start + rows]
        kernel = (-t * (2 - 2 * part @ z.T)).exp()
        kernel.diagonal(start).zero_()  # a sample is not paired with itself
        total = total + kernel.sum()
    return (total / (n * (n - 1))).log()


def spectrum(train: Labelled, test: Labelled, *, seed: int = 0) -> list[Result]:
    """Return effective rank, mean spread and uniformity of the test features, without scaling. Train is not used."""
    x, n = test.features, len(test.features)
    if n < 2:
        raise NotPossible("test has one sample; a spread needs at least two")
    shared = {"samples": n, "chosen": "nothing is fitted"}
    return [
        Result(effective_rank(x).item(), RANK, {**shared, "of": "deviations from the mean"}),
        Result(spread(x).mean().item(), SPREAD, {**shared, "of": "unit vectors, times sqrt(width)"}),
        Result(uniformity(x).item(), UNIFORMITY, {**shared, "of": "unit vectors", "t": 2}),
    ]


def alignment_probe(train: ByView, test: ByView, *, seed: int = 0) -> list[Result]:
    """Return the alignment of every pair of views on test. Raise `NotPossible` if no two views have equal width."""
    protocol = {
        "of": "unit vectors",
        "chosen": "nothing is fitted",
        "standard_error": "std over samples / sqrt(samples)",
    }
    results = []
    for one, other in pairs_of_equal_width(test):
        if len(test.features[one]) < 2:
            raise NotPossible("test has one sample; alignment needs at least two")
        parts = squared_distances(test.features[one], test.features[other]).cpu()
        results.append(mean_over_samples(parts, ALIGNMENT, protocol, what=f"{one} and {other}", chance=2.0))
    return results


def pairs_of_equal_width(test: ByView) -> list[tuple[str, str]]:
    """Return the pairs of views whose features have equal width. Raise `NotPossible` if there are none."""
    widths = {view: x.shape[1] for view, x in test.features.items()}
    pairs = [(one, other) for one, other in itertools.combinations(widths, 2) if widths[one] == widths[other]]
    if len(widths) < 2:
        raise NotPossible("there is one view, and its draws are equal without augmentation")
    if not pairs:
        raise NotPossible("no two views have features of equal width; with most objectives, --layer head has")
    return pairs
