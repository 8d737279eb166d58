"""InfoMax: match a code with its input among other inputs; the baseline of the Multi-View Information Bottleneck.

in   Features of one or more views     maps[0] [n, c, h, w], the view itself, and the vector [n, d]
out  loss = -I(z; x), the mean over views, with z a draw of p(z | x) = N(mean, sigma) as in `mib`
Federici et al., 2020, arXiv:2002.07017, who compare their method with it; the principle is Linsker's, 1988

Views are not compared with each other. The critic reads the flattened input, so inputs must be small. For large images
the global term of DIM asks the same of a map.
"""

import math

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor

from mvssl.encoders import Features, Widths, at_least_float32
from mvssl.objectives.base import Context
from mvssl.objectives.estimators import AverageRate, Estimator, EstimatorName
from mvssl.objectives.metric_names import name_metrics
from mvssl.objectives.scoring.critics import CriticName, Negatives, build_critic, score_pairs
from mvssl.objectives.scoring.gaussian import GaussianObjective, build_posterior_heads, sample_code
from mvssl.objectives.scoring.heads import PerView
from mvssl.objectives.scoring.masks import blank_absent


class InfoMax(GaussianObjective):
    """Mutual information between a view and its own code, for one view or the mean over several.

    Options as in `MIB`. `share_heads`: one posterior head and one critic for all views; by default the draws of one
    view share, other views do not.
    """

    reads_views = True

    def __init__(
        self,
        widths: dict[str, Widths],
        *,
        latent: PositiveInt = 64,
        head: bool = True,
        estimator: EstimatorName = "jsd",
        smile_clip: PositiveFloat = 5.0,
        mine_rate: AverageRate = 0.01,
        critic: CriticName = "concat",
        negatives: Negatives = "roll",
        units: PositiveInt = 1024,
        share_heads: bool | None = None,
    ):
        super().__init__()
        self.negatives = negatives
        self.estimator = Estimator(estimator, widths, clip=smile_clip, rate=mine_rate)
        self.posterior_head = build_posterior_heads(widths, latent, head, share_heads, "infomax")
        sizes = {view: math.prod(width.maps[0]) for view, width in widths.items()}
        self.critic = PerView(widths, sizes, lambda view: build_critic(critic, latent, sizes[view], units), share_heads)

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        losses, metrics = [], {}
        for view, feature in features.items():
            present = context.present.get(view)
            p = self.posterior(view, feature, present)
            z = sample_code(p, context.draws.within(f"infomax/{view}", p.loc.device))
            x = blank_absent(at_least_float32(feature.maps[0]).flatten(1), present)
            pairs = score_pairs(self.critic[view], z, x, self.negatives, present, present)  # pyright: ignore
            loss, measured = self.estimator(view, pairs)
            metrics |= name_metrics(measured, view)
            losses.append(loss)
        return torch.stack(losses).mean(), metrics
