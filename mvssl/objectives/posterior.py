"""Gaussian codes: a linear head that gives each sample a distribution, and a draw of it.

in   vector [n, d] of a view
out  p(z | view) = N(mean, sigma), independent normals [n, latent], with sigma = softplus(raw) + 1e-7
Federici et al., 2020, arXiv:2002.07017, appendix G.1
"""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from mvssl.encoders.encoder import Widths
from mvssl.errors import RecipeError
from mvssl.objectives.heads import PerView
from mvssl.random import Draws


def posterior_heads(widths: Mapping[str, Widths], latent: int, head: bool, share: bool | None, where: str) -> PerView:
    """What reads mean and raw sigma from each view's vector: a linear layer, or with `head` false the vector is both.

    `where` is the objective's name. Raises `RecipeError` for a vector that is to be both and is not 2 * latent wide.
    """
    for view, width in widths.items():
        if not head and width.vector != 2 * latent:
            raise RecipeError(
                f"{where}.head: false reads mean and sigma from the vector of view {view!r}, which must be "
                f"2 * latent = {2 * latent} wide and is {width.vector}; "
                f"set latent: {width.vector // 2} or head: true"
            )

    def make(view: str) -> nn.Module:
        return nn.Linear(widths[view].vector, 2 * latent) if head else nn.Identity()

    return PerView(widths, {view: width.vector for view, width in widths.items()}, make, share)


def posterior(head: nn.Module, vector: Tensor) -> Normal:
    """p(z | view) of each row."""
    mean, raw = head(vector).chunk(2, dim=1)
    return Normal(mean, F.softplus(raw) + 1e-7, validate_args=False)


def sample(p: Normal, draws: Draws) -> Tensor:
    """One code [n, latent] of each row, by the sample's own draw, with gradient to mean and sigma."""
    return p.loc + p.scale * draws.normal("posterior", p.loc.shape[1], dtype=p.loc.dtype)


def symmetric_kl(p_a: Normal, p_b: Normal, z_a: Tensor, z_b: Tensor, how: str) -> Tensor:
    """[n], (KL(p_a, p_b) + KL(p_b, p_a)) / 2 in nats: closed, or sampled at z_a and z_b, right on average."""
    if how == "closed":
        return (kl_divergence(p_a, p_b) + kl_divergence(p_b, p_a)).sum(dim=1) / 2
    forth, back = p_a.log_prob(z_a) - p_b.log_prob(z_a), p_b.log_prob(z_b) - p_a.log_prob(z_b)
    return (forth + back).sum(dim=1) / 2
