"""Pairs of anchors and candidates, as estimators read them: sums over positive pairs and over negative pairs.

in   scores [N, n, l] and a mask (`MaskedScores`), or what a critic gives instead (`mvssl.objectives.scoring.critics`)
out  0-d sums and counts of this process, and for each of the N anchors of all processes its counts and log-sums
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.distributed import collectives

POSITIVE, NEGATIVE, IGNORE = 1, -1, 0
Function = Callable[[Tensor], Tensor]


def log_share(positive: Tensor, against: Tensor) -> Tensor:
    """Return log e^T / (e^T + e^against), the share of a positive pair beside its negatives; elementwise."""
    return F.logsigmoid(positive - against)


class Pairs(ABC):
    """Scores T of N anchors of all processes with the candidates of this process. Results are of this process.

    Ask for the negatives first: tiled scores then give the positives from the same pass.
    """

    @abstractmethod
    def sum_negatives(self, *functions: Function) -> list[Tensor]:
        """Return for each function f the sum of f(T) over the negative pairs, 0-d."""

    @abstractmethod
    def log_sum_negatives(self, f: Function = lambda t: t) -> Tensor:
        """Return for each anchor the log of the sum of e^f(T) over its negatives, [N]; -inf if it has none."""

    @abstractmethod
    def sum_positives(self, f: Function) -> Tensor:
        """Return the sum of f(T) over the positive pairs, 0-d."""

    @abstractmethod
    def sum_log_shares(self, against: Tensor) -> Tensor:
        """Return the sum of `log_share` over the positive pairs, 0-d, with `against` [N] of their anchors."""

    @abstractmethod
    def count(self, kind: int) -> Tensor:
        """Return for each anchor its number of pairs of a kind, POSITIVE or NEGATIVE, [N], in the scores' type."""

    @abstractmethod
    def outscored_share(self) -> Tensor:
        """Return the share of negative anchors that score higher than a candidate's own anchor, [n], without gradient.

        The best value is 0. Chance gives 1/2. Equal scores count as half. The result is averaged over the l locations.
        The value is NaN if a candidate has no positive or no negatives.
        """


class MaskedScores(Pairs):
    """Scores [N, n, l] that are held in full, and their mask: int8, broadcastable to them."""

    def __init__(self, scores: Tensor, mask: Tensor):
        self.scores, self.mask = scores, mask

    def sum_negatives(self, *functions: Function) -> list[Tensor]:
        return [self._sum(NEGATIVE, f) for f in functions]

    def log_sum_negatives(self, f: Function = lambda t: t) -> Tensor:
        return collectives.safe_logsumexp(f(self.scores).masked_fill(~self._chosen(NEGATIVE), -math.inf), (1, 2))

    def sum_positives(self, f: Function) -> Tensor:
        return self._sum(POSITIVE, f)

    def sum_log_shares(self, against: Tensor) -> Tensor:
        return self._sum(POSITIVE, lambda t: log_share(t, against[:, None, None]))

    def count(self, kind: int) -> Tensor:
        scores = self.scores
        mask = self.mask.reshape((1,) * (scores.ndim - self.mask.ndim) + self.mask.shape)
        times = math.prod(scores.shape[1:]) // max(1, math.prod(mask.shape[1:]))  # pairs that an entry stands for
        return ((mask == kind).sum(dim=(1, 2)) * times).to(scores).expand(len(scores))

    @torch.no_grad()
    def outscored_share(self) -> Tensor:
        negative, own = self._chosen(NEGATIVE), self._chosen(POSITIVE)
        positive = self.scores.masked_fill(~own, 0).sum(0) / own.sum(0)  # [n, l]
        ahead = ((self.scores > positive) + 0.5 * (self.scores == positive)).masked_fill(~negative, 0).sum(0)
        return (ahead / negative.sum(0) + 0 * positive).mean(1)

    def _chosen(self, kind: int) -> Tensor:
        return (self.mask == kind).expand_as(self.scores)

    def _sum(self, kind: int, f: Function) -> Tensor:
        chosen = self._chosen(kind)
        # Other pairs are masked before f as well: an e^T that overflows there would make the gradient 0 * inf.
        return f(self.scores.masked_fill(~chosen, 0)).masked_fill(~chosen, 0).sum()
