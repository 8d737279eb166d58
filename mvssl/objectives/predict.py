"""Prediction: one view's vector should say what the other view looks like, element by element.

in   Features of two or more views     maps[0] [n, c, h, w], the view itself, and the vector [n, d]
out  loss = mean over ordered pairs of views a -> b, rows and elements of |decoder(vector_a) - view_b|^2 (or |.|)
Tian et al., 2020, arXiv:1906.05849, section 3: the predictive learning that the paper compares its contrastive loss to

A view with more than `size` locations a side is predicted averaged down to that many. The elements are predicted
independently given the vector, which is what the paper holds against this loss.
"""

import itertools
import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.distributed.devices import send
from mvssl.encoders.encoder import Features, Widths
from mvssl.objectives.cmc import choose_pairs
from mvssl.objectives.context import Context, at_least_float32, both, mean_rows
from mvssl.objectives.heads import blank, perceptron


class Predict(nn.Module):
    """Cross-view prediction in both directions, for two views or the mean over pairs of more.

    `pairs` is full, or the name of the core view that every other is paired with. The decoder of each direction is
    a perceptron with two hidden layers of `units`. `distance` l2 is the square of the error, l1 its size.
    """

    reads_views = True

    def __init__(
        self,
        widths: dict[str, Widths],
        *,
        pairs: str = "full",
        size: PositiveInt = 16,
        distance: Literal["l2", "l1"] = "l2",
        units: PositiveInt = 1024,
    ):
        super().__init__()
        self.distance = distance
        self.shape = {view: _shrunk(width.maps[0], size) for view, width in widths.items()}
        found = choose_pairs(list(widths), pairs, "predict")
        self.directions = list(itertools.chain(*(((a, b), (b, a)) for a, b in found)))
        self.decoder = nn.ModuleDict(
            {
                f"{a}-{b}": perceptron(widths[a].vector, units, units, math.prod(self.shape[b]))
                for a, b in self.directions
            }
        )

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        present = {view: context.present.get(view) for view in features}
        vector = {view: blank(at_least_float32(feature.vector), present[view]) for view, feature in features.items()}
        view = {name: self._content(name, feature, present[name]) for name, feature in features.items()}
        losses, metrics = [], {}
        for a, b in self.directions:
            rows = both(present[a], present[b])
            error = self.decoder[f"{a}-{b}"](vector[a]) - view[b]
            squared = mean_rows(error.square().mean(dim=1), rows)
            losses.append(squared if self.distance == "l2" else mean_rows(error.abs().mean(dim=1), rows))
            explained = 1 - squared.detach() / spread(view[b], rows)
            metrics |= {f"error/{a}-{b}": losses[-1].detach(), f"explained/{a}-{b}": explained}
        return torch.stack(losses).mean(), metrics

    def represent(self, view: str, features: Features) -> Tensor:
        """The vector itself, [n, d]."""
        return features.vector

    def _content(self, view: str, feature: Features, present: Tensor | None) -> Tensor:
        """[n, elements] of a view, averaged down."""
        seen = at_least_float32(feature.maps[0].detach())
        return blank(F.adaptive_avg_pool2d(seen, self.shape[view][1:]), present).flatten(1)


def spread(x: Tensor, present: Tensor | None) -> Tensor:
    """Variance over the present rows of all processes, the mean over elements of [n, d]; above 0, as it divides."""
    rows = torch.ones(len(x), dtype=torch.bool, device=x.device) if present is None else send(present, x.device)
    kept = x.masked_fill(~rows[:, None], 0)
    count = collectives.total(rows.sum().to(x)).clamp(min=1)
    centre = collectives.total(kept.sum(dim=0)) / count
    around = (kept - centre).masked_fill(~rows[:, None], 0)
    return (collectives.total(around.square().mean(dim=1).sum()) / count).clamp(min=1e-12)


def _shrunk(shape: tuple[int, int, int], size: int) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, min(height, size), min(width, size)
