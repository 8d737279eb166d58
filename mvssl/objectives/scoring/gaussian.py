"""Gaussian codes: a head that gives each sample a normal distribution, a draw of it, and their divergence.

in   vector [n, d] of a view
out  p(z | view) = N(mean, sigma), independent normals [n, latent], with sigma = softplus(raw) + 1e-7
Federici et al., 2020, arXiv:2002.07017, appendix G.1
"""

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from mvssl.encoders import Features, Widths, at_least_float32
from mvssl.errors import RecipeError
from mvssl.objectives.base import Objective
from mvssl.objectives.scoring.critics import Negatives, count_negatives
from mvssl.objectives.scoring.heads import PerView
from mvssl.objectives.scoring.masks import blank_absent
from mvssl.random import Draws


class GaussianObjective(Objective):
    """Base class of objectives on codes: each code is a draw of the posterior of its view.

    A subclass sets `posterior_head` by `build_posterior_heads`, and `negatives`, with which its critic scores codes.
    """

    posterior_head: PerView
    negatives: Negatives

    def represent(self, view: str, features: Features) -> Tensor:
        """Return the mean of the posterior, [n, latent]."""
        return self.posterior(view, features).mean

    def candidates(self, batch: int) -> dict[str, int]:
        return {"samples": 1 + count_negatives(self.negatives, batch)}

    def posterior(self, view: str, features: Features, present: Tensor | None = None) -> Normal:
        vector = blank_absent(at_least_float32(features.vector), present)
        mean, raw = self.posterior_head[view](vector).chunk(2, dim=1)
        return Normal(mean, F.softplus(raw) + 1e-7, validate_args=False)


def build_posterior_heads(
    widths: Mapping[str, Widths], latent: int, head: bool, share: bool | None, where: str
) -> PerView:
    """Return a linear layer for each view from its vector to mean and raw sigma; the identity with `head` false.

    `where` is the objective's name. Raises `RecipeError` with `head` false for a vector that is not 2 * latent wide.
    """
    for view, width in widths.items():
        if not head and width.vector != 2 * latent:
            raise RecipeError(
                f"{where}.head: false reads mean and sigma from the vector of view {view!r}, which must be "
                f"2 * latent = {2 * latent} wide and is {width.vector}; "
                f"set latent: {width.vector // 2} or head: true"
            )

    def build(view: str) -> nn.Module:
        return nn.Linear(widths[view].vector, 2 * latent) if head else nn.Identity()

    return PerView(widths, {view: width.vector for view, width in widths.items()}, build, share)


def sample_code(p: Normal, draws: Draws) -> Tensor:
    """Return one code for each row, [n, latent], by the sample's own draw, with gradient to mean and sigma."""
    return p.loc + p.scale * draws.normal("posterior", p.loc.shape[1], dtype=p.loc.dtype)


def symmetric_kl(p_a: Normal, p_b: Normal, z_a: Tensor, z_b: Tensor, kind: Literal["sampled", "closed"]) -> Tensor:
    """Return (KL(p_a, p_b) + KL(p_b, p_a)) / 2 in nats, [n]; `sampled` at z_a and z_b, unbiased, or `closed`."""
    if kind == "closed":
        return (kl_divergence(p_a, p_b) + kl_divergence(p_b, p_a)).sum(dim=1) / 2
    a_to_b, b_to_a = p_a.log_prob(z_a) - p_b.log_prob(z_a), p_b.log_prob(z_b) - p_a.log_prob(z_b)
    return (a_to_b + b_to_a).sum(dim=1) / 2
