"""Bounds on mutual information as functions of scores and a mask.

in   scores [N, n, l]: score T of anchor i (of the N of all processes) with location q of candidate sample j (of the n
     of this process)
     mask int8, broadcastable to scores: POSITIVE (same sample), NEGATIVE (two samples) or IGNORE (neither)
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

POSITIVE, NEGATIVE, IGNORE = 1, -1, 0


class FDivergence(NamedTuple):
    """The variational bound constant + E_pos reward(T) - E_neg penalty(T) on an f-divergence of joint and product.

    Nowozin et al., 2016, arXiv:1606.00709. `log_ratio` turns the best critic's T into the log density ratio.
    """

    reward: Callable[[Tensor], Tensor]
    penalty: Callable[[Tensor], Tensor]
    log_ratio: Callable[[Tensor], Tensor]
    constant: float = 0.0

    def __call__(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Return the bound, in one exchange between processes."""
        terms = _sum(scores, mask, POSITIVE, self.reward), _sum(scores, mask, NEGATIVE, self.penalty)
        sums, counts = zip(*terms, strict=True)
        sums, counts = collectives.sum_over_processes(
            torch.stack([*sums, *(count.to(scores) for count in counts)])
        ).split(2)
        means, has_both = sums / counts.detach().clamp(min=1), (counts > 0).all()
        return (self.constant + means[0] - means[1]) * has_both

    def by_anchor(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """Return what each anchor adds to the bound, [n], from scores [n] and [n, m]; for one process."""
        return self.constant + self.reward(positive) - self.penalty(negatives).mean(1)


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


def dv(scores: Tensor, mask: Tensor) -> Tensor:
    """Return E_pos T - log E_neg e^T <= I, the mean taken over all negatives of all processes.

    Donsker and Varadhan, 1983. Tight at T = log ratio + any constant. The log of a batch's mean is biased: the value
    is too high where negatives are few. The gradient of `mine` has no such bias.
    """
    return (mean_of_pairs(scores, mask, POSITIVE) - log_mean_exp(scores, mask)) * has_both_kinds(scores, mask)


def dv_by_anchor(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return what each anchor adds to `dv`, [n], from scores [n] and [n, m]; for one process.

    The mean is `dv` itself. The logarithm is of one mean over everything, so each value is a first-order influence.
    """
    level = negatives.flatten().logsumexp(0) - math.log(negatives.numel())
    return positive - level - ((negatives - level).exp().mean(1) - 1)


def smile(scores: Tensor, mask: Tensor, clip: float = 5.0) -> Tensor:
    """Return E_pos T - log E_neg e^T', with T' the score clipped to +-`clip`. Song, Ermon, 2020, arXiv:1910.06222.

    The value is near I for a critic that equals the log ratio. The clip lowers the variance of E_neg e^T', but the
    value is no bound: it is above I where the clip cuts off much of e^T. Without a clip it is `dv`. The authors train
    on `jsd` instead, and so does `estimate`.
    """
    clipped = log_mean_exp(scores.clamp(-clip, clip), mask)
    return (mean_of_pairs(scores, mask, POSITIVE) - clipped) * has_both_kinds(scores, mask)


def infonce(scores: Tensor, mask: Tensor, mask_value: float | None = None) -> Tensor:
    """Return E_pos [T - log(e^T + sum of e^T' over the anchor's negatives)] + `ceiling` <= I.

    van den Oord et al., 2018, arXiv:1807.03748. Every positive (anchor, candidate, location) has a softmax of its own,
    without the other positives of its anchor. With `mask_value` each positive of the anchor is also a candidate with
    that score, as in Deep InfoMax's public code (-10).
    """
    return _log_share(scores, mask, mask_value) + ceiling(scores, mask)


def infonce_by_anchor(positive: Tensor, negatives: Tensor) -> Tensor:
    """Return what each anchor adds to `infonce`, [n], from scores [n] and [n, m]; for one process."""
    candidates = torch.cat([positive[:, None], negatives], 1)
    return positive - candidates.logsumexp(1) + math.log(candidates.shape[1])


def ceiling(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the largest value of `infonce` in nats: the mean over positives of log(number of candidates)."""
    candidates = torch.log1p(collectives.sum_over_processes(_per_anchor(scores, mask, NEGATIVE).to(scores)))  # [N]
    own = _per_anchor(scores, mask, POSITIVE)
    return collectives.mean((candidates * own).sum(), own.sum())


def mine(scores: Tensor, mask: Tensor, log_average: Tensor, rate: float = 0.01) -> tuple[Tensor, Tensor]:
    """Return `dv` with the gradient E_pos dT - E_neg e^T dT / average, and the log of the average after this batch.

    Belghazi et al., 2018, arXiv:1801.04062, section 3.2. The gradient of log E_neg e^T is a ratio. A batch's own mean
    in the denominator makes it biased; a moving average of E_neg e^T is nearly constant. This batch enters the average
    with weight `rate` before the division. `log_average` is 0-d, and -inf before the first batch, which then is the
    average. It stays where there is no positive or no negative.
    """
    has_both = has_both_kinds(scores, mask)
    denominator = log_mean_exp(scores, mask)
    now = denominator.detach()
    moved = torch.where(has_both > 0, _moved(log_average, now, rate), log_average)
    weight = torch.where(has_both > 0, (now - moved).exp(), 0)  # at most 1 / rate
    denominator = now + weight * (denominator - now)
    return (mean_of_pairs(scores, mask, POSITIVE) - denominator) * has_both, moved


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


def in_nats(name: str, scores: Tensor, mask: Tensor) -> Tensor:
    """Return a lower bound on I in nats, from the scores of a critic trained with estimator `name`.

    infonce, dv, nwj and kl are such bounds. For the others `nwj` reads the log ratio, as MIB does with its JSD critic.
    The log ratio is capped at 50: a capped critic gives a bound too, and one that stays finite.
    """
    if name in BOUNDS:
        return BOUNDS[name](scores, mask)
    return nwj(1 + F_DIVERGENCES["jsd" if name == "smile" else name].log_ratio(scores).clamp(max=50), mask)


def estimate(name: str, scores: Tensor, mask: Tensor, **options: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of estimator `name` and its metrics: `bound` in nats, and `ceiling` or the estimator's own value.

    The loss is the negative value. For infonce it is ceiling - bound, the cross-entropy, which is never negative; for
    smile it is that of `jsd`. `mine` needs a memory: see `Estimator`.
    """
    if name == "infonce":
        log_share, top = _log_share(scores, mask, **options), ceiling(scores, mask)
        return -log_share, {"bound": log_share.detach() + top, "ceiling": top}
    value = ESTIMATORS[name](scores, mask, **options)
    if name in BOUNDS:
        return -value, {"bound": value.detach()}
    measured = {"bound": in_nats(name, scores.detach(), mask), name: value.detach()}
    return -jsd(scores, mask) if name == "smile" else -value, measured


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

    def forward(self, key: str, scores: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return loss and metrics as `estimate` does."""
        if self.name != "mine":
            return estimate(self.name, scores, mask, **self.options)
        average = self.get_buffer(f"log_average/{key}")
        value, moved = mine(scores, mask, average.to(scores), self.rate)
        if self.training:
            average.copy_(moved)
        return -value, {"bound": value.detach()}


def _log_share(scores: Tensor, mask: Tensor, mask_value: float | None = None) -> Tensor:
    """E_pos [T - log(e^T + sum of e^T' over the anchor's negatives)], the part of `infonce` that depends on scores."""
    against = log_sum_negatives(scores, mask)  # [N]
    if mask_value is not None:
        own = collectives.sum_over_processes(_per_anchor(scores, mask, POSITIVE).to(scores))
        against = torch.logaddexp(against, mask_value + own.log())
    return mean_of_pairs(scores, mask, POSITIVE, lambda t: F.logsigmoid(t - against[:, None, None]))


def log_mean_exp(scores: Tensor, mask: Tensor) -> Tensor:
    """Return log E_neg e^T over the negatives of all processes; 0 if there are none."""
    chosen = (mask == NEGATIVE).expand_as(scores)
    log_sum = collectives.logsumexp(collectives.safe_logsumexp(scores.masked_fill(~chosen, -math.inf), (0, 1, 2)))
    count = collectives.sum_over_processes(chosen.sum().to(scores))
    return log_sum.masked_fill(count == 0, 0) - count.clamp(min=1).log()


def mean_of_pairs(scores: Tensor, mask: Tensor, kind: int, f: Callable[[Tensor], Tensor] = lambda t: t) -> Tensor:
    """Return the mean of f(T) over the pairs of one kind, of all processes; 0 if there are none."""
    return collectives.mean(*_sum(scores, mask, kind, f))


def _sum(scores: Tensor, mask: Tensor, kind: int, f: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Sum of f(T) over the pairs of one kind on this process, and their number, int64."""
    chosen = (mask == kind).expand_as(scores)
    # Other pairs are masked before f as well: an e^T that overflows there would make the gradient 0 * inf.
    terms = f(scores.masked_fill(~chosen, 0)).masked_fill(~chosen, 0)
    return terms.sum(), _per_anchor(scores, mask, kind).sum()


def _per_anchor(scores: Tensor, mask: Tensor, kind: int) -> Tensor:
    """int64 [N], the number of pairs of one kind that each anchor has on this process."""
    mask = mask.reshape((1,) * (scores.ndim - mask.ndim) + mask.shape)
    times = math.prod(scores.shape[1:]) // max(1, math.prod(mask.shape[1:]))  # pairs that an entry stands for
    return ((mask == kind).sum(dim=(1, 2)) * times).expand(len(scores))


def has_both_kinds(scores: Tensor, mask: Tensor) -> Tensor:
    """Return 1 where some process has a positive and some process has a negative, else 0; in the scores' type."""
    kinds = torch.stack([(mask == POSITIVE).any(), (mask == NEGATIVE).any()])
    return (collectives.sum_over_processes(kinds.to(scores)) > 0).all().to(scores)


def log_sum_negatives(scores: Tensor, mask: Tensor) -> Tensor:
    """Return each anchor's log-sum-exp over its negatives of all processes, [N]; -inf if it has none."""
    negatives = scores.masked_fill((mask != NEGATIVE).expand_as(scores), -math.inf)
    return collectives.logsumexp(collectives.safe_logsumexp(negatives, (1, 2)))
