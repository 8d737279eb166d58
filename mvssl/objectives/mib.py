"""MIB: codes that keep what two views share and drop the rest.

in   Features of two or more views     vector [n, d]
out  loss = -I(z_a; z_b) + beta * SKL(p(z_a | a), p(z_b | b)),  the mean over pairs of views
     p(z | view) = N(mean, sigma) with a diagonal sigma = softplus(raw) + 1e-7; SKL is half the sum of both
     divergences; beta rises geometrically with the step; beta 0 is multi-view InfoMax
Federici et al., 2020, arXiv:2002.07017

A critic on (z_a, z_b) estimates I. Its negatives are z_b with the z_a of the row before it in the global batch
(`roll`), of several rows before it, or of every other row (`all`). JSD is no bound in nats, so the NWJ value of the
same critic is logged.
"""

from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from mvssl.encoders import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives.base import Context, choose_pairs
from mvssl.objectives.estimators import AverageRate, Estimator, EstimatorName
from mvssl.objectives.metric_names import name_metrics
from mvssl.objectives.scoring.critics import CriticName, Negatives, build_critic, score_pairs
from mvssl.objectives.scoring.gaussian import GaussianObjective, build_posterior_heads, sample_code, symmetric_kl
from mvssl.objectives.scoring.masks import mean_rows, present_in_both


class MIB(GaussianObjective):
    """Multi-view information bottleneck, for two views or the mean over pairs of more.

    beta goes from `beta_start` to `beta` between steps `beta_begin` and `beta_end`. `beta_end: 0` keeps it at `beta`;
    `beta: 0` is multi-view InfoMax. `head: false` takes the encoder's vector, 2 * latent wide, as mean and raw sigma.
    `kl` sampled estimates the divergences at the one code that was drawn, closed computes them. `critic` concat is the
    paper's, a perceptron on both codes with two hidden layers of `units`; separable is the product of one perceptron
    for each, which makes `negatives: all` cheap. `negatives` is roll, all, or how many rows before its own each z_b is
    scored with. `share_heads`: one posterior head for all views; by default the draws of one view share, other views
    do not.
    """

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
            raise RecipeError(f"mib: beta_begin: {beta_begin} must be below beta_end: {beta_end}, or beta_end be 0")
        self.pairs = choose_pairs(list(widths), pairs, "mib")
        keys = [f"{a}-{b}" for a, b in self.pairs]
        self.estimator = Estimator(estimator, keys, clip=smile_clip, rate=mine_rate)
        self.negatives = negatives
        self.kl: Literal["sampled", "closed"] = kl
        self.schedule = {"start": beta_start, "stop": beta, "begin": beta_begin, "end": beta_end}

        self.posterior_head = build_posterior_heads(widths, latent, head, share_heads, "mib")
        self.critic = nn.ModuleDict({key: build_critic(critic, latent, latent, units) for key in keys})

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        p = {view: self.posterior(view, f, context.present.get(view)) for view, f in features.items()}
        z = {view: sample_code(q, context.draws.within(f"mib/{view}", q.loc.device)) for view, q in p.items()}
        beta = self.beta(context.step)
        minus_information, skl, metrics = [], [], {"beta": z[self.pairs[0][0]].new_full((), beta)}
        for a, b in self.pairs:
            pair, present = f"{a}-{b}", (context.present.get(a), context.present.get(b))
            scored = score_pairs(self.critic[pair], z[a], z[b], self.negatives, *present)  # pyright: ignore
            if context.watches(a, b):
                context.observe_share(a, b, scored.outscored_share())
            loss_of_pair, measured = self.estimator(pair, scored)
            minus_information.append(loss_of_pair)
            skl.append(mean_rows(symmetric_kl(p[a], p[b], z[a], z[b], self.kl), present_in_both(*present)))
            metrics |= name_metrics(measured | {"skl": skl[-1]}, pair)
        loss = (torch.stack(minus_information) + beta * torch.stack(skl)).mean()
        return loss, metrics

    def beta(self, step: int) -> float:
        return ramp(step, **self.schedule) if self.schedule["stop"] else 0.0


def ramp(step: int, *, start: float, stop: float, begin: int, end: int) -> float:
    """Return a value that rises geometrically from `start` to `stop` between steps `begin` and `end`; flat outside.

    The schedule of the information bottleneck's beta (Federici et al., 2020, arXiv:2002.07017). With begin = end = 0 it
    is the constant `stop`.

    >>> [round(ramp(step, start=1e-3, stop=1, begin=50_000, end=150_000), 6) for step in (0, 100_000, 200_000)]
    [0.001, 0.031623, 1.0]
    """
    if step >= end:
        return stop
    done = max(step - begin, 0) / (end - begin)
    return start * (stop / start) ** done
