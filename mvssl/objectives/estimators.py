"""Bounds on mutual information as functions of scores and a mask.

in   scores [N, n, l]: the critic's T of anchor i (of all N of all processes) with location q of candidate
     sample j (of the n of this process)
     mask int8, broadcastable to scores: POSITIVE (drawn together), NEGATIVE (drawn apart) or IGNORE (neither)
out  a 0-d value to be maximised, over the pairs of all processes and the same on each of them; 0, with its graph
     kept, where there is no positive or (infonce apart) no negative

Each mean runs over all pairs of its kind, however unevenly the processes hold them. `sp` is softplus.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.distributed import collectives

POSITIVE, NEGATIVE, IGNORE = 1, -1, 0


def jsd(scores: Tensor, mask: Tensor) -> Tensor:
    """2 ln 2 - E_pos sp(-T) - E_neg sp(T) <= 2 JSD(joint, product) <= 2 ln 2. Nowozin et al., 2016, arXiv:1606.00709.

    A divergence, no mutual information in nats: see `in_nats`. Deep InfoMax minimises its negative. The Multi-View
    Information Bottleneck and DIM's "GAN" measure leave out 2 ln 2, so that a blind critic reads -2 ln 2 there and
    0 here.
    """
    return _difference(scores, mask, lambda t: -F.softplus(-t), F.softplus, constant=2 * math.log(2))


def gan(scores: Tensor, mask: Tensor) -> Tensor:
    """- E_pos sp(-T) - E_neg sp(T): `jsd` without its constant."""
    return _difference(scores, mask, lambda t: -F.softplus(-t), F.softplus)


def nwj(scores: Tensor, mask: Tensor) -> Tensor:
    """E_pos T - E_neg e^(T-1) <= I, tight at T = 1 + log ratio; the f-divergence bound of KL.

    Nguyen, Wainwright, Jordan, 2010, arXiv:0809.0853. Unbiased, with a variance that grows like e^I.
    """
    return _difference(scores, mask, lambda t: t, lambda t: (t - 1).exp())


def reverse_kl(scores: Tensor, mask: Tensor) -> Tensor:
    """- E_pos e^-T - E_neg (T - 1) <= KL(product, joint)."""
    return _difference(scores, mask, lambda t: -(-t).exp(), lambda t: t - 1)


def hellinger(scores: Tensor, mask: Tensor) -> Tensor:
    """E_pos (1 - e^-T) - E_neg (e^T - 1) <= squared Hellinger distance, the integral of (sqrt p - sqrt q)^2."""
    return _difference(scores, mask, lambda t: -torch.expm1(-t), torch.expm1)


def chi2(scores: Tensor, mask: Tensor) -> Tensor:
    """E_pos T - E_neg (T + T^2 / 4) <= Pearson's chi squared(joint, product).

    Deep InfoMax's public code has this measure with the wrong sign, unbounded; this is Nowozin's.
    """
    return _difference(scores, mask, lambda t: t, lambda t: t + t.square() / 4)


def wasserstein(scores: Tensor, mask: Tensor) -> Tensor:
    """E_pos T - E_neg T: a distance only if the critic is kept Lipschitz by other means, and no f-divergence."""
    return _difference(scores, mask, lambda t: t, lambda t: t)


def dv(scores: Tensor, mask: Tensor) -> Tensor:
    """E_pos T - log E_neg e^T <= I, the mean taken over all negatives of all processes. Donsker, Varadhan, 1983.

    Tight at T = log ratio + any constant. The log of a mean over a batch is biased: it reads high where negatives
    are few. `mvssl.objectives.mine` has the form whose gradient is not.
    """
    return (mean(scores, mask, POSITIVE) - log_mean_exp(scores, mask)) * both_kinds(scores, mask)


def smile(scores: Tensor, mask: Tensor, clip: float = 5.0) -> Tensor:
    """E_pos T - log E_neg e^T', T' the score clipped to +-`clip`; near I for a critic that holds the log ratio.

    Song, Ermon, 2020, arXiv:1910.06222. The clip caps the spread of the partition function's estimate, and
    takes away the promise: the value is no bound, and lies above I where much of e^T is cut off. Without a clip it is
    `dv`. The authors do not train on it but on `jsd`, and so does `estimate`.
    """
    clipped = log_mean_exp(scores.clamp(-clip, clip), mask)
    return (mean(scores, mask, POSITIVE) - clipped) * both_kinds(scores, mask)


def infonce(scores: Tensor, mask: Tensor, mask_value: float | None = None) -> Tensor:
    """E_pos [T - log(e^T + sum of e^T' over the anchor's negatives)] + `ceiling` <= I.

    van den Oord et al., 2018, arXiv:1807.03748. Every positive (anchor, candidate, location) is a softmax of its
    own. Other positives of the anchor are left out of it; with `mask_value` each of the anchor's positives enters
    once more with that score, as the constant -10 does in Deep InfoMax's public code.
    """
    return _log_share(scores, mask, mask_value) + ceiling(scores, mask)


def ceiling(scores: Tensor, mask: Tensor) -> Tensor:
    """The largest value `infonce` can take, in nats: the mean over positives of the log of the number of candidates."""
    candidates = torch.log1p(collectives.total(_per_anchor(scores, mask, NEGATIVE).to(scores)))  # [N]
    own = _per_anchor(scores, mask, POSITIVE)
    return collectives.mean((candidates * own).sum(), own.sum())


class FDivergence(NamedTuple):
    """A variational bound of the table, and the log density ratio that its best critic T holds."""

    bound: Callable[[Tensor, Tensor], Tensor]
    log_ratio: Callable[[Tensor], Tensor]


F_DIVERGENCES = {
    "jsd": FDivergence(jsd, lambda t: t),
    "gan": FDivergence(gan, lambda t: t),
    "kl": FDivergence(nwj, lambda t: t - 1),
    "reverse_kl": FDivergence(reverse_kl, lambda t: t),
    "hellinger": FDivergence(hellinger, lambda t: 2 * t),
    "chi2": FDivergence(chi2, lambda t: torch.log1p((t / 2).clamp(min=-0.999))),
    "wasserstein": FDivergence(wasserstein, lambda t: t),  # holds none: read as if it did
}
BOUNDS = {"infonce": infonce, "dv": dv, "nwj": nwj, "kl": nwj}  # on I itself, in nats
ESTIMATORS = BOUNDS | {"smile": smile} | {name: f.bound for name, f in F_DIVERGENCES.items()}
Name = Literal[
    "jsd", "infonce", "dv", "mine", "smile", "nwj", "gan", "kl", "reverse_kl", "hellinger", "chi2", "wasserstein"
]  # the keys of ESTIMATORS and `mine`, which has a memory, written out so that recipes are checked against them


def in_nats(name: str, scores: Tensor, mask: Tensor) -> Tensor:
    """What a critic trained with estimator `name` says of I, as a lower bound in nats.

    infonce, dv, nwj and kl speak for themselves. Of the others the log ratio is read through `nwj`, as MIB does
    with its JSD critic. It is capped at 50: a capped critic gives a bound too, and one that stays finite.
    """
    if name in BOUNDS:
        return BOUNDS[name](scores, mask)
    return nwj(1 + F_DIVERGENCES["jsd" if name == "smile" else name].log_ratio(scores).clamp(max=50), mask)


def estimate(name: str, scores: Tensor, mask: Tensor, **options) -> tuple[Tensor, dict[str, Tensor]]:
    """(loss, metrics): what to minimise; detached: `bound` in nats, `ceiling` of infonce, or the estimator's own value.

    The loss is the negative value; of infonce it is ceiling - bound, the cross-entropy, which is never negative; of
    smile it is that of `jsd`. `mine` needs a memory: see `mvssl.objectives.mine.Estimator`.
    """
    if name == "infonce":
        log_share, top = _log_share(scores, mask, **options), ceiling(scores, mask)
        return -log_share, {"bound": log_share.detach() + top, "ceiling": top}
    value = ESTIMATORS[name](scores, mask, **options)
    if name in BOUNDS:
        return -value, {"bound": value.detach()}
    measured = {"bound": in_nats(name, scores.detach(), mask), name: value.detach()}
    return -jsd(scores, mask) if name == "smile" else -value, measured


def _difference(scores: Tensor, mask: Tensor, reward: Callable, penalty: Callable, constant: float = 0.0) -> Tensor:
    """constant + E_pos reward(T) - E_neg penalty(T), in one exchange between processes."""
    sums, counts = zip(_sum(scores, mask, POSITIVE, reward), _sum(scores, mask, NEGATIVE, penalty), strict=True)
    sums, counts = collectives.total(torch.stack([*sums, *(count.to(scores) for count in counts)])).split(2)
    means, both = sums / counts.detach().clamp(min=1), (counts > 0).all()
    return (constant + means[0] - means[1]) * both


def _log_share(scores: Tensor, mask: Tensor, mask_value: float | None = None) -> Tensor:
    """E_pos [T - log(e^T + sum of e^T' over the anchor's negatives)], what of `infonce` depends on the scores."""
    against = log_sum_negatives(scores, mask)  # [N]
    if mask_value is not None:
        own = collectives.total(_per_anchor(scores, mask, POSITIVE).to(scores))
        against = torch.logaddexp(against, mask_value + own.log())
    return mean(scores, mask, POSITIVE, lambda t: F.logsigmoid(t - against[:, None, None]))


def log_mean_exp(scores: Tensor, mask: Tensor) -> Tensor:
    """log E_neg e^T over the negatives of all processes; 0 if there are none."""
    chosen = (mask == NEGATIVE).expand_as(scores)
    log_sum = collectives.logsumexp(collectives.safe_logsumexp(scores.masked_fill(~chosen, -math.inf), (0, 1, 2)))
    count = collectives.total(chosen.sum().to(scores))
    return log_sum.masked_fill(count == 0, 0) - count.clamp(min=1).log()


def mean(scores: Tensor, mask: Tensor, kind: int, f: Callable[[Tensor], Tensor] = lambda t: t) -> Tensor:
    """Mean of f(T) over the pairs of one kind, of all processes; 0 if there are none."""
    return collectives.mean(*_sum(scores, mask, kind, f))


def _sum(scores: Tensor, mask: Tensor, kind: int, f: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Sum of f(T) over the pairs of one kind that this process has, and their number, int64."""
    chosen = (mask == kind).expand_as(scores)
    # Other pairs are taken out before f as well: an e^T that overflows there would make the gradient 0 * inf.
    terms = f(scores.masked_fill(~chosen, 0)).masked_fill(~chosen, 0)
    return terms.sum(), _per_anchor(scores, mask, kind).sum()


def _per_anchor(scores: Tensor, mask: Tensor, kind: int) -> Tensor:
    """int64 [N], the number of pairs of one kind that each anchor has on this process."""
    mask = mask.reshape((1,) * (scores.ndim - mask.ndim) + mask.shape)
    times = math.prod(scores.shape[1:]) // max(1, math.prod(mask.shape[1:]))  # an entry stands for so many pairs
    return ((mask == kind).sum(dim=(1, 2)) * times).expand(len(scores))


def both_kinds(scores: Tensor, mask: Tensor) -> Tensor:
    """1 where some process has a positive and some process has a negative, else 0."""
    found = torch.stack([(mask == POSITIVE).any(), (mask == NEGATIVE).any()])
    return (collectives.total(found.to(scores)) > 0).all().to(scores)


def log_sum_negatives(scores: Tensor, mask: Tensor) -> Tensor:
    """[N], each anchor's log-sum-exp over its negatives of all processes; -inf if it has none."""
    negatives = scores.masked_fill((mask != NEGATIVE).expand_as(scores), -math.inf)
    return collectives.logsumexp(collectives.safe_logsumexp(negatives, (1, 2)))
