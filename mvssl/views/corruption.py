"""Corruptions of a normalised view with any kind of channels: added noise and dropped channels.

in   views [n, c, ...], and the draws of their samples or what was drawn for them
out  corrupted views of the same shape; 0 is the mean of a channel
"""

import numpy as np
import torch
from torch import Tensor

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


def draw_kept_channels(draws: Draws, drop: float, channels: int) -> Tensor | None:
    """Return float32 [n, channels]: 0 with probability `drop`, else 1; some 1 in each row. None without `drop`."""
    if not drop:
        return None
    drawn = draws.uniforms(drop=channels)["drop"]
    kept = (drawn >= drop) | (drawn == drawn.max(0))
    return torch.from_numpy(kept.T.astype(np.float32))


def keep_channels(x: Tensor, kept: Tensor | None) -> Tensor:
    """Return x [n, c, ...] with the channels set to 0 for which `kept` [n, c] is 0; None keeps all."""
    return x if kept is None else x * kept.view(*kept.shape, *[1] * (x.dim() - 2))
