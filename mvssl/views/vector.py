"""Views of feature vectors: Gaussian noise and dropped features.

in   a column [n, d] of any dtype
out  float32 [n, d], normalised
"""

from typing import Literal

import torch
from torch import Tensor

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views import corruption
from mvssl.views import normalize as normalization
from mvssl.views.base import View


class VectorView(View):
    """One view of a column of vectors; by default nothing is random.

    noise       standard deviation of added Gaussian noise, in normalised units
    drop        probability with which a feature is set to 0, the mean
    normalize   none, data (measured on the training source), or {mean: [...], std: [...]}
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        noise: float = 0.0,
        drop: float = 0.0,
        normalize: Literal["data", "none"] | normalization.Numbers = "data",
    ):
        if len(shape) != 1:
            raise RecipeError(f"a vector view needs a column [d], not {list(shape)}; `name: image` takes [c, h, w]")
        corruption.check_options(noise, drop)
        self.shape, self.noise, self.drop = tuple(shape), noise, drop
        self.mean, self.std = normalization.channel_statistics(normalize, list(range(shape[0])), shape[0])

    def __call__(self, column: Tensor, draws: Draws | None) -> Tensor:
        """Return the view [n, d] of a column [n, d]; without draws the clean view."""
        x = normalization.normalize_channels(column.float(), self.mean, self.std)
        if draws is not None:
            x = corruption.add_noise(x, self.noise, draws)
        if draws is not None and self.drop:
            x = x * (draws.within("drop", x.device).uniform("drop", *self.shape, dtype=torch.float32) >= self.drop)
        return x
