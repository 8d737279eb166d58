"""MINE: the Donsker-Varadhan bound, with the gradient of the whole data in place of the batch's, and its memory.

in   scores and mask as in `estimators`; the log of the moving average of E_neg e^T, -inf before the first batch
out  the value, and that average moved on by the batch
Belghazi et al., 2018, arXiv:1801.04062, section 3.2

The gradient of log E_neg e^T is E_neg e^T dT / E_neg e^T. A batch's own mean in the denominator goes up and down with
the numerator, and the ratio is biased; a slow average is nearly the constant that it stands for.
"""

import math
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from mvssl.objectives import estimators
from mvssl.objectives.estimators import POSITIVE, both_kinds, log_mean_exp

Rate = Annotated[float, Field(gt=0, lt=1)]


def mine(scores: Tensor, mask: Tensor, log_average: Tensor, rate: float = 0.01) -> tuple[Tensor, Tensor]:
    """(value, moved average): `dv` of this batch, with the gradient E_pos dT - E_neg e^T dT / average.

    The average takes in this batch, with weight `rate`, before it divides; the first batch is the average, so that
    it starts neither too small nor too large. It stays where there is no positive or no negative.
    """
    found = both_kinds(scores, mask)
    denominator = log_mean_exp(scores, mask)
    now = denominator.detach()
    later = torch.logaddexp(log_average + math.log1p(-rate), now + math.log(rate))
    moved = torch.where(log_average.isneginf(), now, later)
    moved = torch.where(found > 0, moved, log_average)

    weight = torch.where(found > 0, (now - moved).exp(), 0)  # at most 1 / rate
    denominator = now + weight * (denominator - now)
    return (estimators.mean(scores, mask, POSITIVE) - denominator) * found, moved


class Estimator(nn.Module):
    """An estimator by its name in a recipe, for several sets of scores, each called by a `key`.

    For `mine` each key has a moving average: a buffer, so that it is part of the checkpoint and goes back where a step
    is vetoed. It moves in training mode only. `clip` is of smile, `rate` of mine, `mask_value` of infonce.
    """

    def __init__(
        self,
        name: estimators.Name,
        keys: Iterable[str],
        *,
        clip: float = 5.0,
        rate: float = 0.01,
        mask_value: float | None = None,
    ):
        super().__init__()
        options: dict[str, dict[str, Any]] = {"smile": {"clip": clip}, "infonce": {"mask_value": mask_value}}
        self.name, self.rate, self.options = name, rate, options.get(name, {})
        for key in keys if name == "mine" else ():
            self.register_buffer(f"log_average/{key}", torch.tensor(-math.inf))

    def forward(self, key: str, scores: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, metrics) as of `estimators.estimate`."""
        if self.name != "mine":
            return estimators.estimate(self.name, scores, mask, **self.options)
        average = self.get_buffer(f"log_average/{key}")
        value, moved = mine(scores, mask, average.to(scores), self.rate)
        if self.training:
            average.copy_(moved)
        return -value, {"bound": value.detach()}
