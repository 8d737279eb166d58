"""Views of 1-D signals: crop in time, rotation of 3-axis sensors, scale, noise, dropped channels, time masks.

in   a column [n, c, t] (or [n, t], one channel) of any dtype
out  float32 [n, k, length]: the kept channels, normalised

The augmentations are those of Um et al., 2017, arXiv:1706.00527 (jitter, scaling, rotation, cropping), and of Iwana and
Uchida, 2021, arXiv:2007.15951. What belongs to the sensor (rotation, scale) is done in stored units, the rest in
normalised ones.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from mvssl.distributed.devices import send
from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views import corruption
from mvssl.views import normalize as normalization
from mvssl.views.bands import Channels, kept_channels
from mvssl.views.base import View
from mvssl.views.time_crop import Span, Timing, blanked, cut


class SignalView(View):
    """One view of a column of signals `shape` = (c, t) or (t,); everything random is off by default.

    length        samples of the view; default the column's
    crop          share [low, high] of the duration that is cut out at random, then resampled to `length`
    rotate        largest angle in degrees of a random rotation of each group of three channels (x, y, z), the same for
                  all groups of a sample
    scale         range [low, high] of a random factor on the stored values; per_channel draws one for each channel
    noise         standard deviation of added Gaussian noise (jitter), in normalised units
    drop          probability with which a channel is set to 0, the mean once normalised; one always stays
    mask, masks   largest share of the time that a mask sets to 0, and how many masks there are
    bands         names of the column's channels, in order
    channels      names or numbers of the channels that are kept, in this order
    normalize     data (measured on the training source), none, or {mean: [...], std: [...]}
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        length: int | None = None,
        crop: tuple[float, float] | None = None,
        rotate: float = 0.0,
        scale: tuple[float, float] | None = None,
        per_channel: bool = False,
        noise: float = 0.0,
        drop: float = 0.0,
        mask: float = 0.0,
        masks: int = 1,
        bands: list[str] | None = None,
        channels: Channels | None = None,
        normalize: Literal["data", "none"] | normalization.Numbers = "data",
    ):
        if len(shape) not in (1, 2):
            raise RecipeError(f"a signal view needs a column [c, t] or [t], not {list(shape)}")
        given, t = (1, *shape)[-2:]
        self.length = t if length is None else length
        self.geometry: Timing = Timing(crop=crop, mask=mask, masks=masks)
        self.kept, self.bands = kept_channels(given, channels, bands)
        self.column_bands = tuple(bands or ())
        self.rotate, self.scale, self.per_channel = _rotation(rotate, given), _factors(scale), per_channel
        if self.length < 1:
            raise RecipeError(f"length: {length}; give at least 1 sample")
        corruption.check(noise, drop)
        self.noise, self.drop, self.given = noise, drop, given
        self.mean, self.std = normalization.statistics(normalize, self.kept, given)
        self.shape = (len(self.kept), self.length)

    def __call__(self, column: Tensor, draws: Draws | None, placement: Span | None = None) -> Tensor:
        """Column [n, c, t] to view [n, *shape]; without draws the clean view: whole, resampled, normalised.

        `placement` is another view's, for sensors that recorded the same time; default this view's own draw.
        """
        x = self.with_channels(column.float())
        if draws is None:
            return self._normalized(cut(x, Span.whole(len(x)).stretch, self.length))
        span = self.geometry.draw(draws) if placement is None else placement
        x = cut(x, span.stretch, self.length)
        if self.rotate:
            x = rotated(x, rotations(draws, self.rotate))
        if self.scale:
            x = x * self._factors(draws, x.device)
        x = corruption.noisy(self._normalized(x), self.noise, draws)
        return blanked(corruption.without_channels(x, self.drop, draws), span.blanks)

    def with_channels(self, column: Tensor) -> Tensor:
        """Return a column [n, t] as [n, 1, t]."""
        return column if column.dim() == 3 else column[:, None]

    def _factors(self, draws: Draws, device: torch.device) -> Tensor:
        low, high = self.scale  # pyright: ignore[reportGeneralTypeIssues]
        drawn = draws.uniform("scale", self.given if self.per_channel else 1)
        return send((low + (high - low) * drawn).float(), device)[..., None]

    def _normalized(self, x: Tensor) -> Tensor:
        if self.kept != list(range(self.given)):
            x = x.index_select(1, send(torch.tensor(self.kept), x.device))
        return normalization.normalized(x, self.mean, self.std)


def _factors(scale: tuple[float, float] | None) -> tuple[float, float] | None:
    if scale is not None and not 0 < scale[0] <= scale[1]:
        raise RecipeError(f"scale: {list(scale)} is no range of factors; give [low, high], both above 0")
    return scale


def _rotation(degrees: float, channels: int) -> float:
    if not 0 <= degrees <= 180:
        raise RecipeError(f"rotate: {degrees}; give 0 to 180 degrees")
    if degrees and channels % 3:
        raise RecipeError(f"rotate: turns x, y, z, so channels come in threes; the column has {channels}")
    return degrees


def rotations(draws: Draws, degrees: float) -> Tensor:
    """Rotations [n, 3, 3] by 0 to `degrees` about axes uniform on the sphere (Rodrigues' formula), float64."""
    axis = draws.normal("axis", 3)
    x, y, z = (axis / axis.norm(dim=1, keepdim=True)).unbind(1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], 1).view(-1, 3, 3)
    angle = math.radians(degrees) * draws.uniform("angle", 1)[..., None]
    return torch.eye(3, dtype=torch.float64) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def rotated(x: Tensor, matrices: Tensor) -> Tensor:
    """Signals [n, 3 g, t], every group of three channels turned by its sample's matrix [n, 3, 3]."""
    n, c, t = x.shape
    return (send(matrices.float(), x.device)[:, None] @ x.view(n, c // 3, 3, t)).view(n, c, t)
