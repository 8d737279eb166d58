"""Adversarial prior: codes should look uniform on the unit cube to a discriminator that tries to tell.

in   z [n, d], uniform draws [n, d], which rows are present
out  the encoder's term  E sp(-D(sigmoid z))
     the discriminator's E_uniform sp(-D) + E_code sp(D) + (GP_uniform + GP_code) / 2,  GP = E |grad D|^2
Hjelm et al., 2019, arXiv:1808.06670, section 3.3; penalty of Mescheder et al., 2018, arXiv:1801.04406. The
encoder's term is the non-saturating one. Both are parts of one sum: the first has D's parameters detached, the
second the code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mvssl.objectives.context import mean_rows
from mvssl.objectives.heads import perceptron


class Prior(nn.Module):
    """The discriminator, d -> 1000 -> 200 -> 1 with ReLU, and the two terms of its game."""

    def __init__(self, width: int):
        super().__init__()
        self.discriminator = perceptron(width, 1000, 200, 1)

    def forward(self, z: Tensor, uniform: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(encoder's term, discriminator's term, half the penalties that are part of it), 0-d, over all processes."""
        code = torch.sigmoid(z)
        frozen = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fool = mean_rows(F.softplus(-functional_call(self.discriminator, frozen, (code,))[:, 0]), present)

        real, penalty_real = self._judge(uniform, present)
        fake, penalty_fake = self._judge(code.detach(), present)
        penalty = (penalty_real + penalty_fake) / 2
        tell = mean_rows(F.softplus(-real), present) + mean_rows(F.softplus(fake), present) + penalty
        return fool, tell, penalty

    def _judge(self, x: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor]:
        """D(x) [n] and the mean of |grad D(x)|^2."""
        with torch.enable_grad():  # the penalty is a derivative also where the loss is only measured
            x = x.detach().requires_grad_()
            score = self.discriminator(x)[:, 0]
            (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
        return score, mean_rows(slope.square().sum(dim=1), present)
