"""Critics: scores of anchors with candidates, and which pairs a perceptron critic scores.

in   anchors [N, a], candidates [n, l, c]
out  scores [N, n, l], or `Pairs` for the estimators, which hold all scores only where a perceptron gives them
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.objectives.pairs import MaskedScores, Pairs
from mvssl.objectives.scoring.heads import perceptron
from mvssl.objectives.scoring.masks import Present, gather_present, same_sample
from mvssl.objectives.scoring.same_sample import DotPairs, RingPairs

CriticName = Literal["concat", "separable"]
Negatives = Literal["roll", "all"] | PositiveInt


class Dot(nn.Module):
    """Inner product of embeddings of equal width, times `scale`."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        return torch.einsum("id,jqd->ijq", anchors * self.scale, candidates)

    def pair(self, anchors: Tensor, candidates: Tensor, present: Present) -> Pairs:
        """Return the pairs of the anchors of all processes with the candidates of this one."""
        return DotPairs(anchors, candidates, self.scale, present)


class ConcatMLP(nn.Module):
    """A perceptron with ReLU on the concatenation of both; `score_rows` scores row i with row i alone."""

    def __init__(self, anchor: int, candidate: int, hidden: tuple[int, ...] = (1024, 1024)):
        super().__init__()
        self.anchor = anchor
        self.first = nn.Linear(anchor + candidate, hidden[0])
        layers: list[nn.Module] = []
        for width, following in zip(hidden, (*hidden[1:], 1), strict=True):
            layers += [nn.ReLU(), nn.Linear(width, following)]
        self.rest = nn.Sequential(*layers)

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        # The first layer is linear, so each side passes it alone: [N, n, l, a + c] is never built.
        weight = self.first.weight
        of_anchor = F.linear(anchors, weight[:, : self.anchor])
        of_candidate = F.linear(candidates, weight[:, self.anchor :], self.first.bias)
        return self.rest(of_anchor[:, None, None] + of_candidate).squeeze(-1)

    def pair(self, anchors: Tensor, candidates: Tensor, present: Present) -> Pairs:
        """Return the pairs of the anchors of all processes with the candidates of this one."""
        scores = self(anchors, candidates)
        return MaskedScores(scores, same_sample(len(candidates), scores.device, present))

    def score_rows(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores of [n, a] with [n, c] row by row, [n]."""
        return self.rest(self.first(torch.cat([anchors, candidates], dim=-1))).squeeze(-1)


class Separable(nn.Module):
    """Inner product of two perceptrons, one for the anchor and one for the candidate, over sqrt(units)."""

    def __init__(self, anchor: int, candidate: int, units: int = 1024):
        super().__init__()
        self.of_anchor, self.of_candidate = perceptron(anchor, units, units), perceptron(candidate, units, units)
        self.dot = Dot(1 / math.sqrt(units))

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        return self.dot(self.of_anchor(anchors), self.of_candidate(candidates))

    def pair(self, anchors: Tensor, candidates: Tensor, present: Present) -> Pairs:
        """Return the pairs of the anchors of all processes with the candidates of this one."""
        return self.dot.pair(self.of_anchor(anchors), self.of_candidate(candidates), present)

    def score_rows(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the scores of [n, a] with [n, c] row by row, [n]."""
        return (self.of_anchor(anchors) * self.of_candidate(candidates)).sum(dim=-1) * self.dot.scale


def build_critic(name: CriticName, anchor: int, candidate: int, units: int) -> ConcatMLP | Separable:
    """Return a critic with hidden layers of `units`: one perceptron on both inputs, or the product of two."""
    return ConcatMLP(anchor, candidate, (units, units)) if name == "concat" else Separable(anchor, candidate, units)


def count_negatives(negatives: Negatives, batch: int) -> int:
    """Return with how many other rows of a batch over all processes each candidate is scored."""
    return batch - 1 if negatives == "all" else min(batch - 1, 1 if negatives == "roll" else negatives)


def score_pairs(
    critic: ConcatMLP | Separable,
    anchors: Tensor,
    candidates: Tensor,
    negatives: Negatives,
    anchors_present: Tensor | None,
    candidates_present: Tensor | None,
) -> Pairs:
    """Return the pairs of each candidate with its own anchor and with anchors of earlier rows.

    `anchors` [n, a] and `candidates` [n, c] are the rows of this process. Rows form a ring over the batch of all
    processes. `roll` takes one row before, as MIB's authors do; a number takes so many; `all` takes every other row.
    """
    n, device = len(candidates), candidates.device
    all_anchors, present = collectives.gather(anchors), gather_present(anchors_present, candidates_present, device)
    if negatives == "all":
        return critic.pair(all_anchors, candidates[:, None], present)
    back = torch.arange(count_negatives(negatives, len(all_anchors)) + 1, device=device)[:, None]
    row = torch.arange(n, device=device).expand(len(back), n)
    anchor = (row + collectives.rank() * n - back) % len(all_anchors)  # [1 + negatives, n]
    scores = critic.score_rows(all_anchors[anchor].flatten(0, 1), candidates.repeat(len(back), 1)).view(len(back), n)

    counted = torch.ones_like(anchor, dtype=torch.bool)
    if present.anchors is not None:
        counted = counted & present.anchors[anchor]
    if present.candidates is not None:
        counted = counted & present.candidates
    return RingPairs(scores, anchor, counted, len(all_anchors))
