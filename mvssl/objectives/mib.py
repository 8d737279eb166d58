"""MIB: codes that keep what two views share (Federici et al., 2020, arXiv:2002.07017), and drop the rest.

in   Features of two or more views     vector [n, d]
out  loss = -I(z_a; z_b) + beta * SKL(p(z_a | a), p(z_b | b)),  the mean over pairs of views
     p(z | view) = N(mean, sigma) with a diagonal sigma = softplus(raw) + 1e-7; SKL is half the sum of both
     divergences; beta climbs geometrically with the step; beta 0 is multi-view InfoMax

I is estimated by a critic on (z_a, z_b), against z_b with the z_a of the row before it in the whole batch (`roll`), of
several rows before it, or of every other row (`all`). JSD is no bound in nats, so the NWJ value of the same critic is
reported.
"""

from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributions import Normal

from mvssl.encoders.encoder import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import estimators
from mvssl.objectives.cmc import choose_pairs
from mvssl.objectives.context import Context, at_least_float32, both, mean_rows
from mvssl.objectives.heads import blank
from mvssl.objectives.mine import Estimator, Rate
from mvssl.objectives.negatives import Critic, Negatives, count, make_critic, pair_up
from mvssl.objectives.posterior import posterior, posterior_heads, sample, symmetric_kl


class MIB(nn.Module):
    """Multi-view information bottleneck, for two views or the mean over pairs of more.

    beta goes from `beta_start` to `beta` between steps `beta_begin` and `beta_end`; `beta_end: 0` holds it at
    `beta`, and `beta: 0` is multi-view InfoMax. `head: false` takes the encoder's vector, of width 2 * latent, as
    mean and raw sigma. `kl` sampled estimates the divergences by the one code that was drawn, closed computes
    them. The critic is concat, the paper's, a perceptron on both codes with two hidden layers of `units`, or
    separable, the product of one perceptron for each, which takes `negatives: all` at little cost. `negatives` is
    roll, all, or how many rows before its own each z_b is scored with. `share_heads`: one posterior head for all
    views; by default the draws of one view share, others do not.
    """

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
        kl: Literal["sampled", "closed"] = "sampled",
        beta: NonNegativeFloat = 1.0,
        beta_start: PositiveFloat = 1e-3,
        beta_begin: NonNegativeInt = 50_000,
        beta_end: NonNegativeInt = 150_000,
        units: PositiveInt = 1024,
        pairs: str = "full",
        share_heads: bool | None = None,
    ):
        super().__init__()
        if beta_end and beta_begin >= beta_end:
            raise RecipeError(f"mib: beta_begin: {beta_begin} must come before beta_end: {beta_end}, or beta_end be 0")
        self.pairs = choose_pairs(list(widths), pairs, "mib")
        keys = [f"{a}-{b}" for a, b in self.pairs]
        self.estimator = Estimator(estimator, keys, clip=smile_clip, rate=mine_rate)
        self.negatives: Negatives = negatives
        self.kl = kl
        self.schedule = {"start": beta_start, "stop": beta, "begin": beta_begin, "end": beta_end}

        self.posterior_head = posterior_heads(widths, latent, head, share_heads, "mib")
        self.critic = nn.ModuleDict({key: make_critic(critic, latent, latent, units) for key in keys})

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        p = {view: self.posterior(view, f, context.present.get(view)) for view, f in features.items()}
        z = {view: sample(q, context.draws.within(f"mib/{view}", q.loc.device)) for view, q in p.items()}
        beta = self.beta(context.step)
        losses, metrics = [], {"beta": z[self.pairs[0][0]].new_full((), beta)}
        for a, b in self.pairs:
            pair, present = f"{a}-{b}", (context.present.get(a), context.present.get(b))
            scores, mask = pair_up(self.critic[pair], z[a], z[b], self.negatives, *present)  # pyright: ignore
            context.note(a, b, scores, mask)
            information_lost, measured = self.estimator(pair, scores, mask)
            skl = mean_rows(symmetric_kl(p[a], p[b], z[a], z[b], self.kl), both(*present))
            metrics |= {f"{name}/{pair}": value for name, value in (measured | {"skl": skl.detach()}).items()}
            losses.append(information_lost + beta * skl)
        return torch.stack(losses).mean(), metrics

    def candidates(self, batch: int) -> dict[str, int]:
        """What an anchor is compared with, of a batch over all processes."""
        return {"samples": 1 + count(self.negatives, batch)}

    def represent(self, view: str, features: Features) -> Tensor:
        """The mean of the posterior, [n, latent]."""
        return self.posterior(view, features).mean

    def posterior(self, view: str, features: Features, present: Tensor | None = None) -> Normal:
        """p(z | view), independent normals [n, latent]."""
        return posterior(self.posterior_head[view], blank(at_least_float32(features.vector), present))

    def beta(self, step: int) -> float:
        """The weight of the symmetric divergence at a step."""
        return ramp(step, **self.schedule) if self.schedule["stop"] else 0.0


def ramp(step: int, *, start: float, stop: float, begin: int, end: int) -> float:
    """Geometric climb from `start` to `stop` between steps `begin` and `end`, flat outside.

    The schedule of the information bottleneck's beta (Federici et al., 2020, arXiv:2002.07017). With begin = end = 0 it
    is the constant `stop`.

    >>> [round(ramp(step, start=1e-3, stop=1, begin=50_000, end=150_000), 6) for step in (0, 100_000, 200_000)]
    [0.001, 0.031623, 1.0]
    """
    if step >= end:
        return stop
    done = max(step - begin, 0) / (end - begin)
    return start * (stop / start) ** done
