"""Mixtures: several components of one global vector divide the places of the other view among them.

in   s_j = T_j - log(e^T_j + sum of e^T' over the component's own negatives), of each of k components for each place of
     the anchor's own image, [n, l, k]
out  q_j  = softmax over components of sharpness * s_j
     loss = -mean over anchors and places of [sum_j q_j s_j + entropy_weight * H(q)]
Bachman et al., 2019, arXiv:1906.00910, section 3.7

With entropy_weight = 1 / sharpness no other q has a lower loss. With both at 1 the loss is that of a mixture of k
equally likely components, less log k. It then gives a bound on mutual information: log mean_j e^s_j + `ceiling` <= I.
"""

import math

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.distributed import collectives
from mvssl.objectives.scoring.heads import perceptron
from mvssl.recipe import Config


class Mixture(Config):
    """Options of a mixture: how many components, and how sharply one of them is preferred for a place."""

    components: PositiveInt = 8
    sharpness: PositiveFloat = 1.0
    entropy_weight: NonNegativeFloat | None = Field(default=None, description="default 1 / sharpness")


class Components(nn.Module):
    """[n, d] -> [n, k, d]: x + net_j(x), with one hidden layer of ReLU that all components share."""

    def __init__(self, width: int, components: int):
        super().__init__()
        self.net = perceptron(width, width, components * width)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, None] + self.net(x).unflatten(1, (-1, x.shape[1]))


def estimate_mixture(
    s: Tensor, ceiling: Tensor, present: Tensor | None, options: Mixture
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return loss and metrics as `estimators.estimate` does, from s [n, l, k]; the same on every process.

    `present` is bool [n], on the device, or None; `ceiling` is the log of the number of candidates, 0-d. Metrics:
    `bound` in nats and its `ceiling`; `entropy`, the mean of H(q) in nats; `used`, the number of components in use, e
    to the entropy of the mean q.
    """
    alpha = 1 / options.sharpness if options.entropy_weight is None else options.entropy_weight
    log_q = (options.sharpness * s).log_softmax(dim=-1)
    q = log_q.exp()
    entropy = -(q * log_q).sum(dim=-1)
    counted = torch.ones_like(entropy, dtype=torch.bool)  # [n, l]
    counted = counted if present is None else counted & present[:, None]

    value = _mean((q * s).sum(dim=-1) + alpha * entropy, counted)
    with torch.no_grad():
        taken = collectives.sum_over_processes(q.masked_fill(~counted[..., None], 0).sum(dim=(0, 1)))
        ceiling = ceiling * (taken.sum() > 0)
        metrics = {
            "bound": _mean(s.logsumexp(dim=-1) - math.log(s.shape[-1]), counted) + ceiling,
            "ceiling": ceiling,
            "entropy": _mean(entropy, counted),
            "used": torch.special.entr(taken / taken.sum().clamp(min=1e-12)).sum().exp(),
        }
    return -value, metrics


def _mean(x: Tensor, chosen: Tensor) -> Tensor:
    """Mean of x where chosen, over all processes."""
    return collectives.mean(x.masked_fill(~chosen, 0).sum(), chosen.sum())
