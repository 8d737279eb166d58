"""Critics: how strongly an anchor and a candidate seem to belong together.

in   anchors [N, a], candidates [n, l, c]
out  scores [N, n, l]
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mvssl.objectives.heads import perceptron


class Dot(nn.Module):
    """Inner product of embeddings of equal width, times `scale`."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        return torch.einsum("id,jqd->ijq", anchors * self.scale, candidates)


class ConcatMLP(nn.Module):
    """A perceptron with ReLU on the concatenation of both; `pairs` scores row i with row i alone."""

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

    def pairs(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """[n], the scores of [n, a] with [n, c], row by row."""
        return self.rest(self.first(torch.cat([anchors, candidates], dim=-1))).squeeze(-1)


class Separable(nn.Module):
    """Inner product of two perceptrons, one for the anchor and one for the candidate, over sqrt(units)."""

    def __init__(self, anchor: int, candidate: int, units: int = 1024):
        super().__init__()
        self.of_anchor, self.of_candidate = perceptron(anchor, units, units), perceptron(candidate, units, units)
        self.dot = Dot(1 / math.sqrt(units))

    def forward(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        return self.dot(self.of_anchor(anchors), self.of_candidate(candidates))

    def pairs(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """[n], the scores of [n, a] with [n, c], row by row."""
        return (self.of_anchor(anchors) * self.of_candidate(candidates)).sum(dim=-1) * self.dot.scale
