"""Corruptions of a normalised view with any kind of channels: added noise and dropped channels.

in   views [n, c, ...] and the draws of their samples
out  corrupted views of the same shape; 0 is the mean of a channel
"""

import torch
from torch import Tensor

from mvssl.distributed.devices import send
from mvssl.errors import RecipeError
from mvssl.random import Draws


def check_options(noise: float, drop: float) -> None:
    """Raise `RecipeError` for a negative standard deviation, or a probability outside [0, 1)."""
    if noise < 0 or not 0 <= drop < 1:
        raise RecipeError(f"noise: {noise}, drop: {drop}; noise is at least 0, drop from 0 to below 1")


def add_noise(x: Tensor, noise: float, draws: Draws) -> Tensor:
    """Return x with Gaussian noise of standard deviation `noise` on every value."""
    if not noise:
        return x
    return x + noise * draws.within("noise", x.device).normal("noise", *x.shape[1:], dtype=torch.float32)


def drop_channels(x: Tensor, drop: float, draws: Draws) -> Tensor:
    """Return x with each channel set to 0 with probability `drop`; at least one channel is kept."""
    if not drop:
        return x
    drawn = draws.uniform("drop", x.shape[1])
    kept = (drawn >= drop) | (drawn == drawn.amax(1, keepdim=True))
    return x * send(kept.float(), x.device).view(*kept.shape, *[1] * (x.dim() - 2))
