"""Bounds on mutual information as functions of scores and a mask.

in   scores [N, n, l]: score T of anchor i (of the N of all processes) with location q of candidate sample j (of the n
     of this process)
     mask int8, broadcastable to scores: POSITIVE (same sample), NEGATIVE (two samples) or IGNORE (neither); or `Pairs`
out  0-d value to maximise, over the pairs of all processes and equal on each of them; it is 0, with its graph kept,
     where there is no positive or (except for infonce) no negative

E_pos and E_neg are means over all positive and all negative pairs of all processes. sp is softplus.
"""

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.objectives.pairs import IGNORE, NEGATIVE, POSITIVE, MaskedScores, Pairs, log_share

__all__ = ["IGNORE", "NEGATIVE", "POSITIVE"]


class FDivergence(NamedTuple):
    """The variational bound constant + E_pos reward(T) - E_neg penalty(T) on an f-divergence of joint and product.

    Nowozin et al., 2016, arXiv:1606.00709. `log_ratio` turns the best critic's T into the log density ratio.
    """

    reward: Callable[[Tensor], Tensor]
    penalty: Callable[[Tensor], Tensor]
    log_ratio: Callable[[Tensor], Tensor]
    constant: float = 0.0

    def __call__(self, scores: Tensor | Pairs, mask: Tensor | None = None) -> Tensor:
        """Return the bound, in one exchange between processes."""
        return compute_bounds(as_pairs(scores, mask), self)[0]

    def by_anchor(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """Return what each anchor adds to the bound, [n], from scores [n] and [n, m]; for one process."""
        return self.constant + self.reward(positive) - self.penalty(negatives).mean(1)


def as_pairs(scores: Tensor | Pairs, mask: Tensor | None = None) -> Pairs:
    """Return scores and their mask as `Pairs`; `Pairs` are returned as they are. Raise `TypeError` without a mask."""
    if isinstance(scores, Tensor) and mask is None:
        raise TypeError("scores need a mask: int8, POSITIVE, NEGATIVE or IGNORE for each pair")
    return scores if isinstance(scores, Pairs) else MaskedScores(scores, mask)  # pyright: ignore[reportArgumentType]


def compute_bounds(pairs: Pairs, form: FDivergence, *others: FDivergence) -> list[Tensor]:
    """Return constant + E_pos reward(T) - E_neg penalty(T) of each form, in one pass over the pairs and one exchange.

    Only the first has a gradient.
    """
    forms = form, *others
    negatives = pairs.sum_negatives(*(f.penalty for f in forms))
    positives = [pairs.sum_positives(f.reward) for f in forms]
    (first, *rest) = (torch.stack(sums) for sums in zip(positives, negatives, strict=True))
    sums, counts = _total(pairs, *first, *(value for both in rest for value in both.detach()))
    means, has_both = sums.view(-1, 2) / counts.clamp(min=1), (counts > 0).all()
    return [(f.constant + positive - negative) * has_both for f, (positive, negative) in zip(forms, means, strict=True)]


def _total(pairs: Pairs, *sums: Tensor) -> tuple[Tensor, Tensor]:
    """The sums over all processes, [s], and the numbers of positive and of negative pairs, [2], in one exchange."""
    counts = (pairs.count(kind).sum() for kind in (POSITIVE, NEGATIVE))
    total, counts = collectives.sum_over_processes(torch.stack([*sums, *counts])).split([len(sums), 2])
    return total, counts.detach()


F_DIVERGENCES = {
    # 2 ln 2 - E_pos sp(-T) - E_neg sp(T) <= 2 JSD <= 2 ln 2. Not in nats: see `in_nats`. Deep InfoMax minimises its
    # negative. The Multi-View Information Bottleneck and DIM's "GAN" leave out 2 ln 2: a blind critic reads -2 ln 2.
    "jsd": FDivergence(lambda t: -F.softplus(-t), F.softplus, lambda t: t, constant=2 * math.log(2)),
    "gan": FDivergence(lambda t: -F.softplus(-t), F.softplus, lambda t: t),
    # E_pos T - E_neg e^(T-1) <= I, tight at T = 1 + log ratio. Nguyen, Wainwright, Jordan, 2010, arXiv:0809.0853.
    # Unbiased, with a variance that grows like e^I. Also called `nwj`.
    "kl": FDivergence(lambda t: t, lambda t: (t - 1).exp(), lambda t: t - 1),
    # - E_pos e^-T - E_neg (T - 1) <= KL(product, joint)
    "reverse_kl": FDivergence(lambda t: -(-t).exp(), lambda t: t - 1, lambda t: t),
    # E_pos (1 - e^-T) - E_neg (e^T - 1) <= squared Hellinger distance, the integral of (sqrt p - sqrt q)^2
    "hellinger": FDivergence(lambda t: -torch.expm1(-t), torch.expm1, lambda t: 2 * t),
    # E_pos T - E_neg (T + T^2 / 4) <= Pearson's chi squared. Deep InfoMax's public code has the opposite sign.
    "chi2": FDivergence(lambda t: t, lambda t: t + t.square() / 4, lambda t: torch.log1p((t / 2).clamp(min=-0.999))),
    # E_pos T - E_neg T, a distance only for a Lipschitz critic. It contains no log ratio; T is used.
    "wasserstein": FDivergence(lambda t: t, lambda t: t, lambda t: t),
}
jsd, nwj = F_DIVERGENCES["jsd"], F_DIVERGENCES["kl"]


def dv(scores: Tensor | Pairs, mask: Tensor | None = None) -> Tensor:
    """Return E_pos T - log E_neg e^T <= I, the mean taken over all negatives of all processes.

    Donsker and Varadhan, 1983. Tight at T = log ratio + any constant. The log of a batch's mean is biased: the value
    is too high where negatives are few. The gradient of `mine` has no such bias.
    """
    positive, log_mean_exp, has_both = _measure(as_pairs(scores, mask))
    return (positive - log_mean_exp) * has_both


def _measure(pairs: Pairs, f: Callable[[Tensor], Tensor] = lambda t: t) -> tuple[Tensor, Tensor, Tensor]:
    """E_pos T; log E_neg e^f(T) over the negatives of all processes; whether there are both. 0 without such pairs."""
    log_sum = collectives.logsumexp(collectives.safe_logsumexp(pairs.log_sum_negatives(f), 0))
    (positive,), counts = _total(pairs, pairs.sum_positives(lambda t: t))
    positives, negatives = counts.clamp(min=1)
    log_mean_exp = log_sum.masked_fill(counts[1] == 0, 0) - negatives.log()
    return positive / positives, log_mean_exp, (counts > 0).all()


def dv_by_anchor(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return what each anchor adds to `dv`, [n], from scores [n] and [n, m]; for one process.

    The mean is `dv` itself. The logarithm is of one mean over everything, so each value is a first-order influence.
    """
    level = negatives.flatten().logsumexp(0) - math.log(negatives.numel())
    return positive - level - ((negatives - level).exp().mean(1) - 1)


def smile(scores: Tensor | Pairs, mask: Tensor | None = None, clip: float = 5.0) -> Tensor:
    """Return E_pos T - log E_neg e^T', with T' the score clipped to +-`clip`. Song, Ermon, 2020, arXiv:1910.06222.

    The value is near I for a critic that equals the log ratio. The clip lowers the variance of E_neg e^T', but the
    value is no bound: it is above I where the clip cuts off much of e^T. Without a clip it is `dv`. The authors train
    on `jsd` instead, and so does `estimate`.
    """
    positive, clipped, has_both = _measure(as_pairs(scores, mask), lambda t: t.clamp(-clip, clip))
    return (positive - clipped) * has_both


def infonce(scores: Tensor | Pairs, mask: Tensor | None = None, mask_value: float | None = None) -> Tensor:
    """Return E_pos [T - log(e^T + sum of e^T' over the anchor's negatives)] + `ceiling` <= I.

    van den Oord et al., 2018, arXiv:1807.03748. Every positive (anchor, candidate, location) has a softmax of its own,
    without the other positives of its anchor. With `mask_value` each positive of the anchor is also a candidate with
    that score, as in Deep InfoMax's public code (-10).
    """
    pairs = as_pairs(scores, mask)
    return _mean_log_share(pairs, mask_value) + ceiling(pairs)


def infonce_by_anchor(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return what each anchor adds to `infonce`, [n], from scores [n] and [n, m]; for one process."""
    candidates = torch.cat([positive[:, None], negatives], 1)
    return positive - candidates.logsumexp(1) + math.log(candidates.shape[1])


def ceiling(scores: Tensor | Pairs, mask: Tensor | None = None) -> Tensor:
    """Return the largest value of `infonce` in nats: the mean over positives of log(number of candidates)."""
    pairs = as_pairs(scores, mask)
    negatives, own = pairs.count(NEGATIVE), pairs.count(POSITIVE)
    candidates = torch.log1p(collectives.sum_over_processes(negatives))  # [N]
    return collectives.mean((candidates * own).sum(), own.sum())


def mine(scores: Tensor | Pairs, mask: Tensor | None, log_average: Tensor, rate: float = 0.01) -> tuple[Tensor, Tensor]:
    """Return `dv` with the gradient E_pos dT - E_neg e^T dT / average, and the log of the average after this batch.

    Belghazi et al., 2018, arXiv:1801.04062, section 3.2. The gradient of log E_neg e^T is a ratio. A batch's own mean
    in the denominator makes it biased; a moving average of E_neg e^T is nearly constant. This batch enters the average
    with weight `rate` before the division. `log_average` is 0-d, and -inf before the first batch, which then is the
    average. It stays where there is no positive or no negative.
    """
    positive, denominator, has_both = _measure(as_pairs(scores, mask))
    now, log_average = denominator.detach(), log_average.to(denominator)
    moved = torch.where(has_both, _moved(log_average, now, rate), log_average)
    weight = torch.where(has_both, (now - moved).exp(), 0)  # at most 1 / rate
    denominator = now + weight * (denominator - now)
    return (positive - denominator) * has_both, moved


class MineByAnchor:
    """`mine` for one process, with its memory: from scores [n] and [n, m] to values [n] whose mean is `dv`."""

    def __init__(self, rate: float = 0.01):
        self.rate, self.log_average = rate, torch.tensor(-math.inf)

    def __call__(self, positive: Tensor, negatives: Tensor) -> Tensor:
        denominator = negatives.flatten().logsumexp(0) - math.log(negatives.numel())
        now = denominator.detach()
        self.log_average = _moved(self.log_average.to(denominator), now, self.rate)
        weight = (now - self.log_average).exp()
        return positive - (now + weight * (denominator - now))


def _moved(log_average: Tensor, now: Tensor, rate: float) -> Tensor:
    later = torch.logaddexp(log_average + math.log1p(-rate), now + math.log(rate))
    return torch.where(log_average.isneginf(), now, later)


BOUNDS = {"infonce": infonce, "dv": dv, "nwj": nwj, "kl": nwj}  # on I itself, in nats
ESTIMATORS: dict[str, Callable[..., Tensor]] = BOUNDS | {"smile": smile} | F_DIVERGENCES
EstimatorName = Literal[
    "jsd", "infonce", "dv", "mine", "smile", "nwj", "gan", "kl", "reverse_kl", "hellinger", "chi2", "wasserstein"
]  # the keys of ESTIMATORS and `mine`, which has a memory; written out so that recipes are checked against them
AverageRate = Annotated[float, Field(gt=0, lt=1)]


def in_nats(name: str, scores: Tensor | Pairs, mask: Tensor | None = None) -> Tensor:
    """Return a lower bound on I in nats, from the scores of a critic trained with estimator `name`.

    infonce, dv, nwj and kl are such bounds. For the others `nwj` reads the log ratio, as MIB does with its JSD critic.
    The log ratio is capped at 50: a capped critic gives a bound too, and one that stays finite.
    """
    return BOUNDS[name](scores, mask) if name in BOUNDS else _read_in_nats(name)(scores, mask)


def _read_in_nats(name: str) -> FDivergence:
    """`nwj` of the capped log ratio."""
    log_ratio = F_DIVERGENCES["jsd" if name == "smile" else name].log_ratio

    def capped(t: Tensor) -> Tensor:
        return log_ratio(t).clamp(max=50)

    return FDivergence(lambda t: 1 + capped(t), lambda t: capped(t).exp(), log_ratio)


def estimate(
    name: str, scores: Tensor | Pairs, mask: Tensor | None = None, **options: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of estimator `name` and its metrics: `bound` in nats, and `ceiling` or the estimator's own value.

    The loss is the negative value. For infonce it is ceiling - bound, the cross-entropy, which is never negative; for
    smile it is that of `jsd`. `mine` needs a memory: see `Estimator`.
    """
    pairs = as_pairs(scores, mask)
    if name == "infonce":
        share, top = _mean_log_share(pairs, **options), ceiling(pairs)
        return -share, {"bound": share.detach() + top, "ceiling": top}
    if name in BOUNDS:
        value = BOUNDS[name](pairs)
        return -value, {"bound": value.detach()}
    value, nats = compute_bounds(pairs, F_DIVERGENCES["jsd" if name == "smile" else name], _read_in_nats(name))
    with torch.no_grad():
        own = smile(pairs, **options) if name == "smile" else value.detach()
    return -value, {"bound": nats, name: own}


def contrast(
    positive: Tensor, against: Tensor, ceiling: Tensor, present: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what `estimate` returns for infonce, from the positive pairs of the samples of this process alone.

    `positive` are T [n, m]; `against`, broadcastable to them, the log-sums of all negatives of their anchors; `ceiling`
    the mean log of the number of candidates, 0-d; `present` bool [n], or None for all.
    """
    share = log_share(positive, against)
    if present is None:
        mean = collectives.sum_over_processes(share.mean()) / collectives.world_size()
    else:
        count = collectives.sum_over_processes(present.sum().to(share)) * share.shape[1]
        sums = collectives.sum_over_processes(share.masked_fill(~present[:, None], 0).sum())
        mean, ceiling = sums / count.clamp(min=1), ceiling * (count > 0)
    return -mean, {"bound": mean.detach() + ceiling, "ceiling": ceiling}


class Estimator(nn.Module):
    """An estimator by its name in a recipe, for several sets of scores, one `key` each.

    For `mine` each key has a moving average. It is a buffer, so checkpoints hold it and a vetoed step restores it; only
    training mode moves it. `clip` is an option of smile, `rate` of mine, `mask_value` of infonce.
    """

    def __init__(
        self,
        name: EstimatorName,
        keys: Iterable[str],
        *,
        clip: float = 5.0,
        rate: float = 0.01,
        mask_value: float | None = None,
    ):
        super().__init__()
        options: dict[str, dict[str, Any]] = {"smile": {"clip": clip}, "infonce": {"mask_value": mask_value}}
        self.name, self.rate, self.options = name, rate, options.get(name, {})
        for key in keys if name == "mine" else ():
            self.register_buffer(f"log_average/{key}", torch.tensor(-math.inf))

    def forward(self, key: str, scores: Tensor | Pairs, mask: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics as `estimate` does."""
        if self.name != "mine":
            return estimate(self.name, scores, mask, **self.options)
        average = self.get_buffer(f"log_average/{key}")
        value, moved = mine(scores, mask, average, self.rate)
        if self.training:
            average.copy_(moved)
        return -value, {"bound": value.detach()}


def _mean_log_share(pairs: Pairs, mask_value: float | None = None) -> Tensor:
    """E_pos [T - log(e^T + sum of e^T' over the anchor's negatives)], the part of `infonce` that depends on scores."""
    against = collectives.logsumexp(pairs.log_sum_negatives())  # [N]
    own = pairs.count(POSITIVE)
    if mask_value is not None:
        against = torch.logaddexp(against, mask_value + collectives.sum_over_processes(own).log())
    return collectives.mean(pairs.sum_log_shares(against), own.sum())
