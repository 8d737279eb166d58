"""InfoMax: a code should tell its own input from other inputs; the baseline of the Multi-View Information Bottleneck.

in   Features of one or more views     maps[0] [n, c, h, w], the view itself, and the vector [n, d]
out  loss = -I(z; x), the mean over views, with z a draw of p(z | x) = N(mean, sigma) as in `mib`
Federici et al., 2020, arXiv:2002.07017, who compare their method with it; the principle is Linsker's, 1988

Views do not meet each other. The critic reads the whole input, flattened, so it is for small ones; DIM's global term
is the same question asked of a map.
"""

import math

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.encoders.encoder import Features, Widths
from mvssl.objectives import estimators
from mvssl.objectives.context import Context, at_least_float32
from mvssl.objectives.heads import PerView, blank
from mvssl.objectives.mine import Estimator, Rate
from mvssl.objectives.negatives import Critic, Negatives, count, make_critic, pair_up
from mvssl.objectives.posterior import posterior, posterior_heads, sample


class InfoMax(nn.Module):
    """Mutual information between a view and its own code, for one view or the mean over several.

    Options as of `MIB`. `share_heads`: one posterior head and one critic for all views; by default the draws of one
    view share, others do not.
    """

    reads_views = True

    def __init__(
        self,
        widths: dict[str, Widths],
        *,
        latent: PositiveInt = 64,
        head: bool = True,
        estimator: estimators.Name = "jsd",
        smile_clip: PositiveFloat = 5.0,
        mine_rate: Rate = 0.01,
        critic: Critic = "concat",
        negatives: Negatives = "roll",
        units: PositiveInt = 1024,
        share_heads: bool | None = None,
    ):
        super().__init__()
        self.negatives: Negatives = negatives
        self.estimator = Estimator(estimator, widths, clip=smile_clip, rate=mine_rate)
        self.posterior_head = posterior_heads(widths, latent, head, share_heads, "infomax")
        sizes = {view: math.prod(width.maps[0]) for view, width in widths.items()}
        self.critic = PerView(widths, sizes, lambda view: make_critic(critic, latent, sizes[view], units), share_heads)

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        losses, metrics = [], {}
        for view, feature in features.items():
            present = context.present.get(view)
            p = posterior(self.posterior_head[view], blank(at_least_float32(feature.vector), present))
            z = sample(p, context.draws.within(f"infomax/{view}", p.loc.device))
            x = blank(at_least_float32(feature.maps[0]).flatten(1), present)
            scores, mask = pair_up(self.critic[view], z, x, self.negatives, present, present)
            loss, measured = self.estimator(view, scores, mask)
            metrics |= {f"{name}/{view}": value for name, value in measured.items()}
            losses.append(loss)
        return torch.stack(losses).mean(), metrics

    def candidates(self, batch: int) -> dict[str, int]:
        """What an anchor is compared with, of a batch over all processes."""
        return {"samples": 1 + count(self.negatives, batch)}

    def represent(self, view: str, features: Features) -> Tensor:
        """The mean of the posterior, [n, latent]."""
        return posterior(self.posterior_head[view], at_least_float32(features.vector)).mean
