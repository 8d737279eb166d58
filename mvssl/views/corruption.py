"""What happens to any normalised view, whatever its channels are: added noise, channels lost.

in   views [n, c, ...] and their draws
out  the same, disturbed; 0 is a channel's mean
"""

import torch
from torch import Tensor

from mvssl.distributed.devices import send
from mvssl.errors import RecipeError
from mvssl.random import Draws


def check(noise: float, drop: float) -> None:
    """Raise `RecipeError` for a deviation or a probability that is none."""
    if noise < 0 or not 0 <= drop < 1:
        raise RecipeError(f"noise: {noise}, drop: {drop}; noise is at least 0, drop from 0 to below 1")


def noisy(x: Tensor, noise: float, draws: Draws) -> Tensor:
    """Gaussian noise of standard deviation `noise` on every value."""
    if not noise:
        return x
    return x + noise * draws.within("noise", x.device).normal("noise", *x.shape[1:], dtype=torch.float32)


def without_channels(x: Tensor, drop: float, draws: Draws) -> Tensor:
    """Each channel at 0 with probability `drop`; the one that came nearest to staying always stays."""
    if not drop:
        return x
    drawn = draws.uniform("drop", x.shape[1])
    stays = (drawn >= drop) | (drawn == drawn.amax(1, keepdim=True))
    return x * send(stays.float(), x.device).view(*stays.shape, *[1] * (x.dim() - 2))
