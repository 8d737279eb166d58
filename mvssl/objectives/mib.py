"""MIB: codes that keep what two views share (Federici et al., 2020, arXiv:2002.07017), and drop the rest.

in   Features of two or more views     vector [n, d]
out  loss = -I(z_a; z_b) + beta * SKL(p(z_a | a), p(z_b | b)),  the mean over pairs of views
     p(z | view) = N(mean, sigma) with a diagonal sigma = softplus(raw) + 1e-7; SKL is half the sum of both
     divergences; beta climbs geometrically with the step; beta 0 is multi-view InfoMax

I is estimated by a critic on (z_a, z_b), against z_b with the z_a of the row before it in the whole batch
(`roll`), or of every other row (`all`). JSD is no bound in nats, so the NWJ value of the same critic is reported.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from mvssl import distributed, schedules
from mvssl.encoders.encoder import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import estimators
from mvssl.objectives.cmc import choose_pairs
from mvssl.objectives.context import Context, at_least_float32, both, mean_rows, only_present, same_sample
from mvssl.objectives.critics import ConcatMLP, Separable
from mvssl.objectives.heads import PerView, blank
from mvssl.objectives.mine import Estimator, Rate


class MIB(nn.Module):
    """Multi-view information bottleneck, for two views or the mean over pairs of more.

    beta goes from `beta_start` to `beta` between steps `beta_begin` and `beta_end`; `beta_end: 0` holds it at
    `beta`, and `beta: 0` is multi-view InfoMax. `head: false` takes the encoder's vector, of width 2 * latent, as
    mean and raw sigma. `kl` sampled estimates the divergences by the one code that was drawn, closed computes
    them. The critic is concat, the paper's, a perceptron on both codes with two hidden layers of `units`, or
    separable, the product of one perceptron for each, which takes `negatives: all` at little cost. `share_heads`:
    one posterior head for all views; by default the draws of one view share, others do not.
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
        critic: Literal["concat", "separable"] = "concat",
        negatives: Literal["roll", "all"] = "roll",
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
        for view, width in widths.items():
            if not head and width.vector != 2 * latent:
                raise RecipeError(
                    f"mib.head: false reads mean and sigma from the vector of view {view!r}, which must be "
                    f"2 * latent = {2 * latent} wide and is {width.vector}; "
                    f"set latent: {width.vector // 2} or head: true"
                )
        if beta_end and beta_begin >= beta_end:
            raise RecipeError(f"mib: beta_begin: {beta_begin} must come before beta_end: {beta_end}, or beta_end be 0")
        self.pairs = choose_pairs(list(widths), pairs, "mib")
        keys = [f"{a}-{b}" for a, b in self.pairs]
        self.estimator = Estimator(estimator, keys, clip=smile_clip, rate=mine_rate)
        self.negatives, self.kl = negatives, kl
        self.schedule = {"start": beta_start, "stop": beta, "begin": beta_begin, "end": beta_end}

        def make(view: str) -> nn.Module:
            return nn.Linear(widths[view].vector, 2 * latent) if head else nn.Identity()

        self.posterior_head = PerView({view: width.vector for view, width in widths.items()}, make, share_heads)
        self.critic = nn.ModuleDict()
        for a, b in self.pairs:
            made = ConcatMLP(latent, latent, (units, units)) if critic == "concat" else Separable(latent, latent, units)
            self.critic[f"{a}-{b}"] = made

    def forward(self, features: dict[str, Features], context: Context) -> tuple[Tensor, dict[str, Tensor]]:
        p = {view: self.posterior(view, f, context.present.get(view)) for view, f in features.items()}
        z = {
            view: posterior.loc + posterior.scale * self._noise(view, posterior, context)
            for view, posterior in p.items()
        }
        beta = self.beta(context.step)
        losses, metrics = [], {"beta": z[self.pairs[0][0]].new_full((), beta)}
        for a, b in self.pairs:
            present = both(context.present.get(a), context.present.get(b))
            information_lost, measured = self.estimator(f"{a}-{b}", *self._scores(a, b, z, context))
            skl = mean_rows(symmetric_kl(p[a], p[b], z[a], z[b], self.kl), present)
            metrics |= {f"{name}/{a}-{b}": value for name, value in (measured | {"skl": skl.detach()}).items()}
            losses.append(information_lost + beta * skl)
        return torch.stack(losses).mean(), metrics

    def candidates(self, batch: int) -> dict[str, int]:
        """What an anchor is compared with, of a batch over all processes."""
        return {"samples": min(batch, 2) if self.negatives == "roll" else batch}

    def represent(self, view: str, features: Features) -> Tensor:
        """The mean of the posterior, [n, latent]."""
        return self.posterior(view, features).mean

    def posterior(self, view: str, features: Features, present: Tensor | None = None) -> Normal:
        """p(z | view), independent normals [n, latent]."""
        vector = blank(at_least_float32(features).vector, present)
        mean, raw = self.posterior_head[view](vector).chunk(2, dim=1)
        return Normal(mean, F.softplus(raw) + 1e-7, validate_args=False)

    def beta(self, step: int) -> float:
        """The weight of the symmetric divergence at a step."""
        return schedules.ramp(step, **self.schedule) if self.schedule["stop"] else 0.0

    def _noise(self, view: str, posterior: Normal, context: Context) -> Tensor:
        draws = context.draws.within(f"mib/{view}", posterior.loc.device)
        return draws.normal("posterior", posterior.loc.shape[1], dtype=posterior.loc.dtype)

    def _scores(self, a: str, b: str, z: dict[str, Tensor], context: Context) -> tuple[Tensor, Tensor]:
        """Scores and mask [N, n, 1] of the z_a of all processes with the z_b of this one."""
        critic: ConcatMLP | Separable = self.critic[f"{a}-{b}"]  # pyright: ignore[reportAssignmentType]
        present = context.present.get(a), context.present.get(b)
        n, device = len(z[b]), z[b].device
        everyone = distributed.gather(z[a])
        if self.negatives == "all":
            return critic(everyone, z[b][:, None]), same_sample(n, device, *present)

        row = torch.arange(n, device=device)
        own = row + distributed.rank() * n
        before = (own - 1) % len(everyone)
        scores, mask = (
            everyone.new_zeros(len(everyone), n, 1),
            torch.zeros(len(everyone), n, 1, dtype=torch.int8, device=device),
        )
        # The positives are written last: in a batch of one sample the row before is the row itself, and no negative.
        for i, z_a, kind in ((before, everyone[before], estimators.NEGATIVE), (own, z[a], estimators.POSITIVE)):
            scores = scores.index_put((i, row, torch.zeros_like(row)), critic.pairs(z_a, z[b]))
            mask[i, row] = kind
        return scores, only_present(mask, *present)


def symmetric_kl(p_a: Normal, p_b: Normal, z_a: Tensor, z_b: Tensor, how: str) -> Tensor:
    """[n], (KL(p_a, p_b) + KL(p_b, p_a)) / 2 in nats: closed, or sampled at z_a and z_b, right on average."""
    if how == "closed":
        return (kl_divergence(p_a, p_b) + kl_divergence(p_b, p_a)).sum(dim=1) / 2
    forth, back = p_a.log_prob(z_a) - p_b.log_prob(z_a), p_b.log_prob(z_b) - p_a.log_prob(z_b)
    return (forth + back).sum(dim=1) / 2
