"""How features fill their space: effective rank, spread of each dimension, alignment and uniformity.

in   features [n, d], of one view, or of two views of the same samples; no labels are needed
out  0-d or [d] tensors on the device of the features, without a host sync; and the probes `spectrum` and `aligned`
Roy and Vetterli, EUSIPCO 2007 (effective rank); Garrido et al., ICML 2023, https://arxiv.org/abs/2210.02885 (RankMe);
Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242; Chen and He, CVPR 2021, https://arxiv.org/abs/2011.10566
"""

import itertools
import math

import torch
from torch import Tensor

from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.features.labelled import Labelled, unit
from mvssl.evaluation.probes.base import ByViewProbe, FunctionProbe
from mvssl.evaluation.results.metrics import SAMPLES, Metric, NotPossible, Result

RANK = Metric("effective_rank", "", high=math.inf)
SPREAD = Metric("spread", "")
UNIFORMITY = Metric("uniformity", "", higher_is_better=False, low=-math.inf, high=0.0)
ALIGNMENT = Metric("alignment", "", higher_is_better=False, high=4.0)
CELLS = 2**22  # distances held at once: 32 MB in double precision


def singular_values(features: Tensor, *, centred: bool = True) -> Tensor:
    """The min(n, d) singular values of [n, d], ascending, float64; `centred` takes the mean of each dimension off."""
    x = features.detach().double()
    x = x - x.mean(0) if centred else x
    gram = x.T @ x if x.shape[1] <= len(x) else x @ x.T
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()


def effective_rank(features: Tensor, *, centred: bool = True) -> Tensor:
    """e^H of the singular values divided by their sum: from 1 to min(n, d), and 0 where the features never vary.

    d for a white Gaussian, k where k directions vary alike and the others not at all. RankMe is the same with
    `centred=False`, where a large mean counts as a direction and hides the others.
    """
    values = singular_values(features, centred=centred)
    # Rounding leaves about 1e-16 of the largest square: what is below is no direction.
    scale = features.detach().double().square().sum().sqrt()
    values = torch.where(values > 1e-7 * scale, values, 0)
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    entropy = -torch.xlogy(share, share).sum()
    return torch.where(values.sum() > 0, entropy.exp(), 0)


def spread(features: Tensor) -> Tensor:
    """[d], float64: standard deviation of each dimension of the unit vectors, times sqrt(d).

    1 in every dimension where directions are drawn evenly, 0 where all are the same. The mean of the squares is
    1 - |mean unit vector|^2, so it never exceeds 1. Its mean is the collapse curve of Chen and He, figure 2.
    """
    z = unit(features.detach().double())
    return z.std(0, correction=0) * z.shape[1] ** 0.5


def alignment(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared distance of the unit vectors of two views of a sample, [n, d] twice: 0 (alike) to 4, 2 by chance."""
    return squared_distances(one, other).mean()


def squared_distances(one: Tensor, other: Tensor) -> Tensor:
    """[n], float64: of the unit vectors of row i of both."""
    one, other = (unit(x.detach().double()) for x in (one, other))
    return (one - other).square().sum(1)


def uniformity(features: Tensor, *, t: float = 2.0) -> Tensor:
    """log of the mean of e^(-t |x - y|^2) over all pairs of different samples, as unit vectors; 0 where all are alike.

    The more negative the more even; with t = 2, evenly drawn directions in many dimensions come near -4.
    """
    z = unit(features.detach().double())
    n, total = len(z), z.new_zeros(())
    rows = max(1, CELLS // n)
    for start in range(0, n, rows):
        part = z[start : start + rows]
        kernel = (-t * (2 - 2 * part @ z.T)).exp()
        kernel.diagonal(start).zero_()  # no sample is a pair with itself
        total = total + kernel.sum()
    return (total / (n * (n - 1))).log()


def spectrum(train: Labelled, test: Labelled, *, seed: int = 0) -> list[Result]:
    """Effective rank, mean spread and uniformity of the features of test, as they are; train is not used."""
    x, n = test.features, len(test.features)
    if n < 2:
        raise NotPossible("one sample has no spread")
    shared = {"samples": n, "chosen": "nothing is fitted"}
    return [
        Result(effective_rank(x).item(), RANK, {**shared, "of": "deviations from the mean"}),
        Result(spread(x).mean().item(), SPREAD, {**shared, "of": "unit vectors, times sqrt(width)"}),
        Result(uniformity(x).item(), UNIFORMITY, {**shared, "of": "unit vectors", "t": 2}),
    ]


def aligned(train: ByView, test: ByView, *, seed: int = 0) -> list[Result]:
    """Alignment of every two views of test. Raises `NotPossible` where no two views have features of equal width."""
    protocol = {
        "of": "unit vectors",
        "chosen": "nothing is fitted",
        "standard_error": "std over samples / sqrt(samples)",
    }
    results = []
    for one, other in comparable(test):
        if len(test.features[one]) < 2:
            raise NotPossible("one sample of test is too few: its alignment has no standard error")
        parts = squared_distances(test.features[one], test.features[other]).cpu()
        error = parts.std().item() / math.sqrt(len(parts))
        what = f"{one} and {other}"
        results.append(Result(parts.mean().item(), ALIGNMENT, protocol, error, parts, SAMPLES, what, chance=2.0))
    return results


def comparable(test: ByView) -> list[tuple[str, str]]:
    """Pairs of views whose features are equally wide. Raises `NotPossible` where there are none."""
    widths = {view: x.shape[1] for view, x in test.features.items()}
    pairs = [(one, other) for one, other in itertools.combinations(widths, 2) if widths[one] == widths[other]]
    if len(widths) < 2:
        raise NotPossible("there is one view: draws of it are the same picture without their augmentation")
    if not pairs:
        raise NotPossible("no two views have features of equal width; at layer head they have, with most objectives")
    return pairs


class Spectrum(FunctionProbe):
    """`spectrum`."""

    function = spectrum
    needs_labels = False


class Alignment(ByViewProbe):
    """`aligned`."""

    function = aligned
    needs_labels = False
