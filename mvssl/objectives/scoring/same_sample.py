"""Pairs of samples of one batch: a sample with itself is positive, two samples are negative, absent rows are ignored.

in   embeddings of anchors [N, d] and candidates [n, l, d], or the scores that a perceptron gave to some of the pairs
out  `Pairs` for the estimators
"""

import torch
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.objectives.pairs import NEGATIVE, Function, Pairs, log_share
from mvssl.objectives.scoring.masks import Present
from mvssl.objectives.scoring.reductions import Balance, LogSumNegatives, Reduction, SumNegatives
from mvssl.objectives.scoring.tiled_scores import reduce_scores


class DotPairs(Pairs):
    """Scores that are inner products times `scale`. They are reduced tile by tile; [N, n, l] is not held."""

    def __init__(self, anchors: Tensor, candidates: Tensor, scale: float, present: Present):
        self.anchors, self.candidates, self.scale, self.present = anchors, candidates, scale, present
        self.own: Tensor | None = None  # [n, l]

    def sum_negatives(self, *functions: Function) -> list[Tensor]:
        return self._reduce(*map(SumNegatives, functions))

    def log_sum_negatives(self, f: Function = lambda t: t) -> Tensor:
        return self._reduce(LogSumNegatives(f))[0]

    def sum_positives(self, f: Function) -> Tensor:
        if self.own is None:
            self._reduce()
        assert self.own is not None
        return self.present.blank(f(self.present.blank(self.own))).sum()

    def sum_log_shares(self, against: Tensor) -> Tensor:
        against = against[collectives.own_rows(len(self.candidates)), None]
        return self.sum_positives(lambda t: log_share(t, against))

    def count(self, kind: int) -> Tensor:
        n, places, _ = self.candidates.shape
        here = self.anchors.new_ones(n)
        here = here if self.present.candidates is None else self.present.candidates.to(here)
        count = here.new_zeros(len(self.anchors))
        count[collectives.own_rows(n)] = here
        count = here.sum() - count if kind == NEGATIVE else count
        return places * (count if self.present.anchors is None else count * self.present.anchors)

    @torch.no_grad()
    def outscored_share(self) -> Tensor:
        # `own` must not be kept from here, where it has no gradient
        _, (balance,) = reduce_scores(self.anchors, self.candidates, self.present, [Balance()], scale=self.scale)
        return self.present.share_outscored(balance.view(self.candidates.shape[:2]))

    def _reduce(self, *reductions: Reduction) -> list[Tensor]:
        own, results = reduce_scores(self.anchors, self.candidates, self.present, reductions, scale=self.scale)
        self.own = own[..., 0] if self.own is None else self.own
        return results


class RingPairs(Pairs):
    """Scores of each candidate with its own anchor, row 0, and with some other anchors, the rows after it: [1 + m, n].

    `anchor` holds the number of each anchor among the N of all processes, and `counted` is false where a pair lacks a
    row; both are [1 + m, n].
    """

    def __init__(self, scores: Tensor, anchor: Tensor, counted: Tensor, anchors: int):
        self.scores, self.anchor, self.counted, self.anchors = scores, anchor, counted, anchors

    def sum_negatives(self, *functions: Function) -> list[Tensor]:
        return [_sum(f, self.scores[1:], self.counted[1:]) for f in functions]

    def log_sum_negatives(self, f: Function = lambda t: t) -> Tensor:
        y, anchor = f(self.scores[1:]).masked_fill(~self.counted[1:], -torch.inf).flatten(), self.anchor[1:].flatten()
        top = y.new_full((self.anchors,), torch.finfo(y.dtype).min).scatter_reduce(0, anchor, y.detach(), "amax")
        sum = y.new_zeros(self.anchors).index_add(0, anchor, (y - top[anchor]).exp())
        none = sum == 0
        return sum.masked_fill(none, 1).log().masked_fill(none, -torch.inf) + top

    def sum_positives(self, f: Function) -> Tensor:
        return _sum(f, self.scores[0], self.counted[0])

    def sum_log_shares(self, against: Tensor) -> Tensor:
        return self.sum_positives(lambda t: log_share(t, against[self.anchor[0]]))

    def count(self, kind: int) -> Tensor:
        rows = slice(1, None) if kind == NEGATIVE else slice(1)
        count = self.scores.new_zeros(self.anchors)
        return count.index_add(0, self.anchor[rows].flatten(), self.counted[rows].flatten().to(count))

    @torch.no_grad()
    def outscored_share(self) -> Tensor:
        own, negative = self.scores[0], self.counted[1:]
        ahead = (1 + (self.scores[1:] - own).sign()) / 2
        return (ahead.masked_fill(~negative, 0).sum(0) / negative.sum(0)).masked_fill(~self.counted[0], torch.nan)


def _sum(f: Function, scores: Tensor, counted: Tensor) -> Tensor:
    return f(scores.masked_fill(~counted, 0)).masked_fill(~counted, 0).sum()
