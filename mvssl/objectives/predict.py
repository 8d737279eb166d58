"""Prediction: one view's vector predicts the other view, element by element.

in   Features of two or more views     maps[0] [n, c, h, w], the view itself, and the vector [n, d]
out  loss = mean over ordered pairs of views a -> b, rows and elements of |decoder(vector_a) - view_b|^2 (or |.|)
Tian et al., 2020, arXiv:1906.05849, section 3: the predictive learning that the paper compares its contrastive loss to

A view with more than `size` locations a side is averaged down to that many. The elements are predicted independently
given the vector, which is the paper's argument against this loss.
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
from mvssl.encoders import Features, Widths, at_least_float32
from mvssl.objectives.base import Context, Objective, choose_pairs
from mvssl.objectives.metric_names import name_metrics
from mvssl.objectives.scoring.heads import perceptron
from mvssl.objectives.scoring.masks import blank_absent, mean_rows, present_in_both


class Predict(Objective):
    """Cross-view prediction in both directions, for two views or the mean over pairs of more.

    `pairs` is full, or the name of the core view that is paired with every other view. The decoder of each direction
    is a perceptron with two hidden layers of `units`. `distance` l2 is the squared error, l1 the absolute error.
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
        self.shape = {view: _limit_sides(width.maps[0], size) for view, width in widths.items()}
        chosen = choose_pairs(list(widths), pairs, "predict")
        self.directions = list(itertools.chain(*(((a, b), (b, a)) for a, b in chosen)))
        self.decoder = nn.ModuleDict(
            {
                f"{a}-{b}": perceptron(widths[a].vector, units, units, math.prod(self.shape[b]))
                for a, b in self.directions
            }
        )

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        present = {view: context.present.get(view) for view in features}
        vectors = {view: blank_absent(at_least_float32(f.vector), present[view]) for view, f in features.items()}
        targets = {view: self._target(view, f, present[view]) for view, f in features.items()}
        losses, metrics = [], {}
        for a, b in self.directions:
            rows = present_in_both(present[a], present[b])
            error = self.decoder[f"{a}-{b}"](vectors[a]) - targets[b]
            squared = mean_rows(error.square().mean(dim=1), rows)
            loss = squared if self.distance == "l2" else mean_rows(error.abs().mean(dim=1), rows)
            explained = 1 - squared.detach() / compute_variance(targets[b], rows)
            metrics |= name_metrics({"error": loss, "explained": explained}, f"{a}-{b}")
            losses.append(loss)
        return torch.stack(losses).mean(), metrics

    def represent(self, view: str, features: Features) -> Tensor:
        """Return the vector itself, [n, d]."""
        return features.vector

    def _target(self, view: str, features: Features, present: Tensor | None) -> Tensor:
        """[n, elements] of a view, averaged down."""
        content = at_least_float32(features.maps[0].detach())
        return blank_absent(F.adaptive_avg_pool2d(content, self.shape[view][1:]), present).flatten(1)


def compute_variance(x: Tensor, present: Tensor | None) -> Tensor:
    """Return the variance over the present rows of all processes, the mean over elements of [n, d]; at least 1e-12."""
    rows = torch.ones(len(x), dtype=torch.bool, device=x.device) if present is None else send(present, x.device)
    kept = x.masked_fill(~rows[:, None], 0)
    count = collectives.sum_over_processes(rows.sum().to(x)).clamp(min=1)
    centre = collectives.sum_over_processes(kept.sum(dim=0)) / count
    around = (kept - centre).masked_fill(~rows[:, None], 0)
    return (collectives.sum_over_processes(around.square().mean(dim=1).sum()) / count).clamp(min=1e-12)


def _limit_sides(shape: tuple[int, int, int], size: int) -> tuple[int, int, int]:
    channels, height, width = shape
    return channels, min(height, size), min(width, size)
