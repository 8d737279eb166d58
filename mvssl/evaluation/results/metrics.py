"""How good scores are, how sure of that we may be, and how two encoders compare on the same samples.

in   scores [n, c], labels [n] (class numbers) or [n, c] (multi-hot)
out  a `Result`: a value with its metric, its standard error, and the parts from which a paired difference is made

Only paired parts are subtracted: both encoders saw the same test samples, or the same draws of labels, so what is hard
for both cancels (McNemar's argument) and the error of the difference is far smaller than the two errors added.
"""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from scipy.stats import t as student
from torch import Tensor

RESAMPLES = 200  # bootstrap resamples of the test set; the error of the error is then about 5 %
FEW_RESAMPLES = 50  # where each of many draws of labels is resampled: about 10 %
DRAWS, SAMPLES, BOOTSTRAP = "draws of labels", "test samples", "bootstrap resamples of the test set"
NOTHING = "nothing"


class Metric(NamedTuple):
    """What a number is: shares are kept as 0 to 1 and shown in per cent (`unit`)."""

    name: str
    unit: str = "%"
    higher_is_better: bool = True
    low: float = 0.0  # no value lies below, nor any interval
    high: float = 1.0


ACCURACY, MEAN_AVERAGE_PRECISION = Metric("accuracy"), Metric("mean_average_precision")


class Result(NamedTuple):
    """One number and what stands behind it; what has no error has no parts."""

    value: float
    metric: Metric
    protocol: dict[str, Any]  # settings, equal for everything that this number may be compared with
    standard_error: float | None = None
    parts: Tensor | None = None  # right or not per test sample, or the value per draw or resample; [draws, those]
    paired_over: str = NOTHING  # what a part, or a column of parts, belongs to: DRAWS, SAMPLES or BOOTSTRAP
    what: str = ""  # tells it from the probe's other numbers: "10 labels/class", "rgb to depth"
    chosen: Mapping[str, Any] = MappingProxyType(
        {}
    )  # what the data decided: the learning rate of this encoder, its held-out score
    chance: float | None = None  # the value of features that know nothing, where it is known
    draws: Tensor | None = None  # float64 [draws], the value of each draw of labels or seed
    also: Mapping[str, Any] = MappingProxyType({})  # what else the same scores say, for the record


class NotPossible(Exception):
    """A probe cannot be done on these data; its text says why. The evaluation notes it and goes on."""


class Difference(NamedTuple):
    """How far one encoder is ahead of another, over the same parts; without parts it has no error."""

    difference: float
    standard_error: float | None
    paired_over: str


def average_precision(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Area under the precision-recall steps of each class: [n, c], [n, c] -> float64 [c]; NaN without a positive.

    Samples of equal score enter together, as in scikit-learn. `weights` [b, n] counts each sample that often and
    gives [b, c].
    """
    order = scores.argsort(dim=0, descending=True)
    ranked, positive = scores.gather(0, order), labels.gather(0, order).double()
    last = _end_of_ties(ranked)
    if weights is None:
        return _area(positive, torch.ones_like(positive), last)
    return torch.stack([_area(positive, w.double()[order], last) for w in weights])


def _end_of_ties(ranked: Tensor) -> Tensor:
    """For each place of a descending column, the last place with the same score: [n, c] -> int64 [n, c]."""
    n = len(ranked)
    place = torch.arange(n, device=ranked.device)[:, None].expand_as(ranked)
    changes = torch.ones_like(ranked, dtype=torch.bool)
    changes[:-1] = ranked[:-1] != ranked[1:]
    return torch.where(changes, place, n).flip(0).cummin(0).values.flip(0)


def _area(positive: Tensor, weight: Tensor, last: Tensor) -> Tensor:
    hits = positive * weight
    precision = (hits.cumsum(0) / weight.cumsum(0).clamp(min=1e-12)).gather(0, last)
    return (hits * precision).sum(0) / hits.sum(0)


def mean_average_precision(scores: Tensor, labels: Tensor) -> float:
    """Mean over the classes that have a positive; scores, labels [n, c]."""
    return average_precision(scores, labels).nanmean().item()


def expected_precision(right: int, n: int) -> float:
    """Average precision of `right` of n candidates in random order: (r - 1) / (n - 1) + H_n (n - r) / (n (n - 1))."""
    if n == 1:
        return 1.0
    harmonic = (1 / torch.arange(1, n + 1, dtype=torch.float64)).sum().item()
    return (right - 1) / (n - 1) + harmonic * (n - right) / (n * (n - 1))


def metric_of(labels: Tensor) -> Metric:
    """What a classifier is measured by: `accuracy`, or `mean_average_precision` for multi-hot labels."""
    return ACCURACY if labels.ndim == 1 else MEAN_AVERAGE_PRECISION


def score(scores: Tensor, labels: Tensor) -> float:
    """Share of samples whose best class is right, or mean average precision; scores [n, c]."""
    if labels.ndim == 1:
        return (scores.argmax(1) == labels).double().mean().item()
    return mean_average_precision(scores, labels)


def judge(
    scores: Tensor,
    labels: Tensor,
    protocol: dict[str, Any],
    seed: int = 0,
    *,
    what: str = "",
    chosen: dict[str, Any] | None = None,
) -> Result:
    """Score a whole test set [n, c]; the standard error is binomial, or of a mean average precision bootstrapped.

    Where all samples are right, or none is, it is `at_the_edge`.
    """
    value, metric, over = score(scores, labels), metric_of(labels), SAMPLES if labels.ndim == 1 else BOOTSTRAP
    parts = _parts(scores, labels, _counts(labels, RESAMPLES, seed)).double().cpu()
    # the binomial error, not its estimate from n - 1: the same but for a factor near 1
    error = math.sqrt(value * (1 - value) / len(labels)) or at_the_edge(len(labels)) if over == SAMPLES else None
    error = _error(parts, over) if error is None else error
    more = classwise(scores, labels) if labels.ndim == 1 else {}
    return Result(value, metric, protocol, error, parts, over, what, chosen or {}, also=more)


def classwise(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """What an accuracy hides where classes are uneven or many; scores [n, c], labels [n].

    `recall_per_class` in the order of the classes, None for one that test does not show; `balanced_accuracy` is its
    mean; `macro_f1` the mean over classes that test shows or that were said; `top_5` where there are more than five.
    """
    kinds, said = max(scores.shape[1], int(labels.max()) + 1), scores.argmax(1)  # test may show what train never did
    table = torch.bincount(labels * kinds + said, minlength=kinds**2).view(kinds, kinds).double()
    right, there, told = table.diagonal(), table.sum(1), table.sum(0)
    recall, f1 = right / there, 2 * right / (there + told)  # NaN where there is none
    found: dict[str, Any] = {"balanced_accuracy": recall.nanmean().item(), "macro_f1": f1.nanmean().item()}
    if scores.shape[1] > 5:
        found["top_5"] = (scores.topk(5, dim=1).indices == labels[:, None]).any(1).double().mean().item()
    return {**found, "recall_per_class": [None if r != r else r for r in recall.tolist()]}


def judge_draws(
    scored: Iterable[Tensor], labels: Tensor, protocol: dict[str, Any], seed: int = 0, *, what: str = ""
) -> Result:
    """The mean over classifiers, each fitted to another draw of labels, that gave `scored` [n, c] on one test set.

    The standard error is of the draws and of the test samples together: each alone says nothing of the other's luck.
    """
    values, parts = [], []
    over, counts = (SAMPLES, None) if labels.ndim == 1 else (BOOTSTRAP, _counts(labels, FEW_RESAMPLES, seed))
    for scores in scored:
        values.append(score(scores, labels))
        parts.append(_parts(scores, labels, counts).cpu())
    value, whole = sum(values) / len(values), torch.stack(parts)
    error = _error(whole, over) or at_the_edge(len(labels))
    draws = torch.tensor(values, dtype=torch.float64)
    return Result(value, metric_of(labels), protocol, error, whole, over, what, draws=draws)


def _counts(labels: Tensor, resamples: int, seed: int) -> Tensor | None:
    """For multi-hot labels how often each sample is in each bootstrap resample, by the seed alone."""
    if labels.ndim == 1:
        return None
    return resampled(len(labels), torch.Generator().manual_seed(seed), resamples).to(labels.device)


def _parts(scores: Tensor, labels: Tensor, counts: Tensor | None) -> Tensor:
    """bool [n], which samples are right; or float64 [resamples], the mean average precision of each."""
    if counts is None:
        return scores.argmax(1) == labels
    return average_precision(scores, labels, counts).nanmean(dim=1)


def at_the_edge(n: int, z: float = 1.0) -> float:
    """How far from a share of 0 or 1 of n samples Wilson's interval of z standard errors reaches.

    The usual error is 0 there, as if no other sample could be otherwise. Wilson, JASA 1927: the shares p with
    (share - p)^2 <= z^2 p (1 - p) / n, which for a share of 1 are those of at least n / (n + z^2).
    """
    return z * z / (n + z * z)


def resampled(n: int, generator: torch.Generator, resamples: int = RESAMPLES) -> Tensor:
    """How often each of n samples is drawn in each bootstrap resample, [resamples, n]; one seed for all encoders."""
    drawn = torch.randint(n, (resamples, n), generator=generator)
    return torch.zeros(resamples, n).scatter_add_(1, drawn, torch.ones(resamples, n))


def over_draws(scores: list[float], protocol: dict[str, Any], metric: Metric = ACCURACY, what: str = "") -> Result:
    """The mean over draws of a seed; its standard error is std / sqrt(draws), and says nothing of the test samples."""
    parts = torch.tensor(scores, dtype=torch.float64)
    return Result(parts.mean().item(), metric, protocol, _error(parts, DRAWS), parts, DRAWS, what, draws=parts)


def interval(result: Result) -> tuple[float, float] | None:
    """95 % interval: Student's t over draws, the normal approximation otherwise; within what the metric can be.

    Of samples that are all right, or all wrong, it is Wilson's.
    """
    if result.standard_error is None:
        return None
    if result.paired_over == SAMPLES and result.metric.unit == "%" and result.value in (0.0, 1.0):
        half = at_the_edge(result.parts.shape[-1], 1.96) if result.parts is not None else 0.0
        return (1.0 - half, 1.0) if result.value else (0.0, half)
    draws = 0 if result.draws is None else len(result.draws)
    wide = student.ppf(0.975, draws - 1) if draws else 1.96
    half = float(wide) * result.standard_error if result.standard_error else 0.0
    return max(result.value - half, result.metric.low), min(result.value + half, result.metric.high)


def paired(ahead: Result, behind: Result) -> Difference:
    """`ahead` minus `behind` with the standard error of the paired difference.

    Both must come from the same test samples and draws. Raises `ValueError` where they cannot.
    """
    difference, parts, others = ahead.value - behind.value, ahead.parts, behind.parts
    if (ahead.paired_over, ahead.metric) != (behind.paired_over, behind.metric):
        raise ValueError("results of different kinds have no paired difference")
    if parts is None or others is None:
        return Difference(difference, None, NOTHING)
    if parts.shape != others.shape:
        raise ValueError("results of different samples or draws have no paired difference")
    return Difference(difference, _error(parts.double() - others.double(), ahead.paired_over), ahead.paired_over)


def _error(parts: Tensor, paired_over: str) -> float:
    parts = parts.double()
    if parts.ndim == 2:
        return _error_of_both(parts, paired_over)
    if len(parts) < 2:
        return 0.0
    # a bootstrap's spread is the standard error already
    return parts.std().item() / (1 if paired_over == BOOTSTRAP else math.sqrt(len(parts)))


def _error_of_both(parts: Tensor, paired_over: str) -> float:
    """Of a mean over draws and samples, [draws, samples or resamples]: both are others another time.

    The variances of the two means are added, and what depends on draw and sample at once, which is in both, taken away
    once (the two-way layout with random effects; Scheffe, The Analysis of Variance, 1959, chapter 7).
    """
    draws, columns = parts.shape
    of_draws, of_columns = _error(parts.mean(1), DRAWS) ** 2, _error(parts.mean(0), paired_over) ** 2
    if draws < 2 or columns < 2:
        return math.sqrt(of_draws + of_columns)
    rest = parts - parts.mean(1, keepdim=True) - parts.mean(0, keepdim=True) + parts.mean()
    of_rest = rest.square().sum().item() / ((draws - 1) * (columns - 1))
    twice = of_rest / (draws if paired_over == BOOTSTRAP else draws * columns)
    return math.sqrt(max(of_draws + of_columns - twice, of_draws, of_columns))
