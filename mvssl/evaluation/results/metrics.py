"""Metrics of scores, their standard errors, and paired differences of two encoders.

in   scores [n, c], labels [n] (class numbers) or [n, c] (multi-hot)
out  a `Result`: a value with its metric, its standard error, and the parts for a paired difference

Parts are subtracted in pairs, because both encoders have the same test samples, or the same draws of labels. Samples
that are hard for both cancel (McNemar's argument). So the error of the difference is far smaller than the two errors
added.
"""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from scipy.special import stdtrit
from torch import Tensor

RESAMPLES = 200  # bootstrap resamples of the test set; they estimate the standard error to about 5 %
FEW_RESAMPLES = 50  # if each of many draws of labels is resampled; about 10 %
DRAWS, SAMPLES, BOOTSTRAP = "draws of labels", "test samples", "bootstrap resamples of the test set"
NOTHING = "nothing"


class Metric(NamedTuple):
    """The kind of a number. With unit %, records hold values from 0 to 1, and tables show per cent."""

    name: str
    unit: str = "%"
    higher_is_better: bool = True
    low: float = 0.0  # the smallest possible value, also of an interval
    high: float = 1.0


ACCURACY, MEAN_AVERAGE_PRECISION = Metric("accuracy"), Metric("mean_average_precision")


class Result(NamedTuple):
    """One number, its error, and its settings. Without an error there are no parts."""

    value: float
    metric: Metric
    protocol: dict[str, Any]  # settings; they must be equal for numbers that are compared
    standard_error: float | None = None
    parts: Tensor | None = None  # correct or not by sample, or values by draw or resample; or [draws, those]
    paired_over: str = NOTHING  # the kind of the last dimension of parts: DRAWS, SAMPLES or BOOTSTRAP
    what: str = ""  # distinguishes several numbers of one probe: "10 labels/class", "rgb to depth"
    chosen: Mapping[str, Any] = MappingProxyType({})  # settings that the data decided: learning rate, held-out score
    chance: float | None = None  # the value of features without information, if it is known
    draws: Tensor | None = None  # float64 [draws], the value of each draw of labels or seed
    also: Mapping[str, Any] = MappingProxyType({})  # further metrics of the same scores, for the record


class NotPossible(Exception):
    """A probe cannot measure these data. The message states the reason. The evaluation notes it and continues."""


class Difference(NamedTuple):
    """The difference of two encoders on the same parts. Without parts there is no error."""

    difference: float
    standard_error: float | None
    paired_over: str


def average_precision(scores: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the average precision of each class, float64 [c], for scores and labels [n, c]. NaN without a positive.

    Samples of equal score are counted together, as in scikit-learn. `weights` [b, n] say how often each sample counts.
    The result is then [b, c].
    """
    order = scores.argsort(dim=0, descending=True)
    ranked, positive = scores.gather(0, order), labels.gather(0, order).double()
    last = _end_of_ties(ranked)
    if weights is None:
        return _area(positive, torch.ones_like(positive), last)
    return torch.stack([_area(positive, w.double()[order], last) for w in weights])


def _end_of_ties(ranked: Tensor) -> Tensor:
    """Return for each place of a descending column the last place with the same score: [n, c] -> int64 [n, c]."""
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
    """Return the mean over the classes that have a positive; scores and labels are [n, c]."""
    return average_precision(scores, labels).nanmean().item()


def expected_precision(right: int, n: int) -> float:
    """Return the expected average precision if `right` of n candidates, in random order, are correct.

    With r for `right` it is (r - 1) / (n - 1) + H_n (n - r) / (n (n - 1)).
    """
    if n == 1:
        return 1.0
    harmonic = (1 / torch.arange(1, n + 1, dtype=torch.float64)).sum().item()
    return (right - 1) / (n - 1) + harmonic * (n - right) / (n * (n - 1))


def metric_of(labels: Tensor) -> Metric:
    """Return the metric of a classifier: `accuracy`, or `mean_average_precision` for multi-hot labels."""
    return ACCURACY if labels.ndim == 1 else MEAN_AVERAGE_PRECISION


def classifier_score(scores: Tensor, labels: Tensor) -> float:
    """Return the accuracy, or the mean average precision for multi-hot labels; scores are [n, c]."""
    if labels.ndim == 1:
        return (scores.argmax(1) == labels).double().mean().item()
    return mean_average_precision(scores, labels)


def score_classifier(
    scores: Tensor,
    labels: Tensor,
    protocol: dict[str, Any],
    seed: int = 0,
    *,
    what: str = "",
    chosen: dict[str, Any] | None = None,
) -> Result:
    """Return the result of a classifier with scores [n, c] on the test set.

    The standard error of an accuracy is binomial, or `wilson_error_at_0_or_1` if all samples are correct, or none.
    For a mean average precision it is bootstrapped.
    """
    value, parts = classifier_score(scores, labels), _parts(scores, labels, _counts(labels, RESAMPLES, seed))
    parts = parts.double().cpu()
    if labels.ndim == 2:
        error = _error(parts, BOOTSTRAP)
        return Result(value, MEAN_AVERAGE_PRECISION, protocol, error, parts, BOOTSTRAP, what, chosen or {})
    # the binomial error; an estimate from n - 1 differs by a factor near 1
    error = math.sqrt(value * (1 - value) / len(labels)) or wilson_error_at_0_or_1(len(labels))
    more = classwise(scores, labels)
    return Result(value, ACCURACY, protocol, error, parts, SAMPLES, what, chosen or {}, also=more)


def classwise(scores: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return more metrics for imbalanced or many classes; scores [n, c], labels [n].

    `recall_per_class` is in the order of the classes, with None for a class that test lacks. `balanced_accuracy` is its
    mean. `macro_f1` is the mean over classes that are true or predicted. `top_5` needs more than five classes.
    """
    predicted = scores.argmax(1)
    kinds = max(scores.shape[1], int(labels.max()) + 1)  # test may have classes that train lacks
    table = torch.bincount(labels * kinds + predicted, minlength=kinds**2).view(kinds, kinds).double()
    right, of_class, of_prediction = table.diagonal(), table.sum(1), table.sum(0)
    recall, f1 = right / of_class, 2 * right / (of_class + of_prediction)  # NaN for an empty class
    metrics: dict[str, Any] = {"balanced_accuracy": recall.nanmean().item(), "macro_f1": f1.nanmean().item()}
    if scores.shape[1] > 5:
        metrics["top_5"] = (scores.topk(5, dim=1).indices == labels[:, None]).any(1).double().mean().item()
    return {**metrics, "recall_per_class": [None if r != r else r for r in recall.tolist()]}


def score_draws(
    scored: Iterable[Tensor], labels: Tensor, protocol: dict[str, Any], seed: int = 0, *, what: str = ""
) -> Result:
    """Return the mean over classifiers, each fitted to another draw of labels. `scored` yields their scores [n, c].

    The standard error covers both the draws and the test samples.
    """
    values, parts = [], []
    over, counts = (SAMPLES, None) if labels.ndim == 1 else (BOOTSTRAP, _counts(labels, FEW_RESAMPLES, seed))
    for scores in scored:
        values.append(classifier_score(scores, labels))
        parts.append(_parts(scores, labels, counts).cpu())
    value, stacked = sum(values) / len(values), torch.stack(parts)
    error = _error(stacked, over) or wilson_error_at_0_or_1(len(labels))
    draws = torch.tensor(values, dtype=torch.float64)
    return Result(value, metric_of(labels), protocol, error, stacked, over, what, draws=draws)


def _counts(labels: Tensor, resamples: int, seed: int) -> Tensor | None:
    """Return how often each sample is in each bootstrap resample; None unless labels are multi-hot."""
    if labels.ndim == 1:
        return None
    return resampled(len(labels), torch.Generator().manual_seed(seed), resamples).to(labels.device)


def _parts(scores: Tensor, labels: Tensor, counts: Tensor | None) -> Tensor:
    """Return whether each sample is correct, bool [n], or the mean average precision of each resample, float64."""
    if counts is None:
        return scores.argmax(1) == labels
    return average_precision(scores, labels, counts).nanmean(dim=1)


def wilson_error_at_0_or_1(n: int, z: float = 1.0) -> float:
    """Return how far Wilson's interval extends when a share is 0 or 1.

    `n` is the number of samples and `z` the number of standard errors. The usual binomial error is 0 for these shares.
    This is too small. Wilson (JASA 1927) takes all p with
    (share - p)^2 <= z^2 p (1 - p) / n. For a share of 1 this is p >= n / (n + z^2).
    """
    return z * z / (n + z * z)


def resampled(n: int, generator: torch.Generator, resamples: int = RESAMPLES) -> Tensor:
    """Return how often each of n samples is in each bootstrap resample, [resamples, n]."""
    drawn = torch.randint(n, (resamples, n), generator=generator)
    return torch.zeros(resamples, n).scatter_add_(1, drawn, torch.ones(resamples, n))


def mean_over_draws(scores: list[float], protocol: dict[str, Any], metric: Metric = ACCURACY, what: str = "") -> Result:
    """Return the mean over seeds or draws. Its error, std / sqrt(draws), does not cover the choice of test samples."""
    parts = torch.tensor(scores, dtype=torch.float64)
    return Result(parts.mean().item(), metric, protocol, _error(parts, DRAWS), parts, DRAWS, what, draws=parts)


def mean_over_samples(parts: Tensor, metric: Metric, protocol: dict[str, Any], **more: Any) -> Result:
    """Return the mean of one value per test sample, with std / sqrt(samples) as its error; `more` are other fields."""
    return Result(parts.mean().item(), metric, protocol, _error(parts, SAMPLES), parts, SAMPLES, **more)


def confidence_interval(result: Result) -> tuple[float, float] | None:
    """Return the 95 % interval within the bounds of the metric, or None without a standard error.

    It is Student's t over draws, Wilson's interval for a share of 0 or 1, and else the normal approximation.
    """
    if result.standard_error is None:
        return None
    if result.paired_over == SAMPLES and result.metric.unit == "%" and result.value in (0.0, 1.0):
        half = wilson_error_at_0_or_1(result.parts.shape[-1], 1.96) if result.parts is not None else 0.0
        return (1.0 - half, 1.0) if result.value else (0.0, half)
    draws = 0 if result.draws is None else len(result.draws)
    quantile = float(stdtrit(draws - 1, 0.975)) if draws else 1.96
    half = float(quantile) * result.standard_error if result.standard_error else 0.0
    return max(result.value - half, result.metric.low), min(result.value + half, result.metric.high)


def paired(ahead: Result, behind: Result) -> Difference:
    """Return `ahead` minus `behind` with the standard error of the paired difference.

    Raise `ValueError` if they were not measured on the same test samples and draws.
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
        return _two_way_error(parts, paired_over)
    if len(parts) < 2:
        return 0.0
    # the standard deviation over resamples is already the standard error
    return parts.std().item() / (1 if paired_over == BOOTSTRAP else math.sqrt(len(parts)))


def _two_way_error(parts: Tensor, paired_over: str) -> float:
    """Return the standard error of a mean over random draws and random samples, [draws, samples or resamples].

    The variances of the two means are added. Both contain the variance of the interaction, so it is subtracted once.
    This is the two-way layout with random effects (Scheffe, The Analysis of Variance, 1959, chapter 7).
    """
    draws, columns = parts.shape
    of_draws, of_columns = _error(parts.mean(1), DRAWS) ** 2, _error(parts.mean(0), paired_over) ** 2
    if draws < 2 or columns < 2:
        return math.sqrt(of_draws + of_columns)
    interaction = parts - parts.mean(1, keepdim=True) - parts.mean(0, keepdim=True) + parts.mean()
    of_interaction = interaction.square().sum().item() / ((draws - 1) * (columns - 1))
    twice = of_interaction / (draws if paired_over == BOOTSTRAP else draws * columns)
    return math.sqrt(max(of_draws + of_columns - twice, of_draws, of_columns))
