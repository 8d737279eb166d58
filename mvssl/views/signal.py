"""Views of 1-D signals: crop in time, rotation of 3-axis sensors, scale, noise, dropped channels, time masks.

in   a column [n, c, t] (or [n, t], one channel) of any dtype
out  float32 [n, k, length]: the kept channels, normalised

The augmentations are those of Um et al., 2017, arXiv:1706.00527 (jitter, scaling, rotation, cropping), and of Iwana and
Uchida, 2021, arXiv:2007.15951. Rotation and scale work on stored units, because they belong to the sensor. Noise,
dropped channels and masks work on normalised units.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views import corruption
from mvssl.views import normalize as normalization
from mvssl.views.base import DrawnView
from mvssl.views.channels import Channels, kept_channels, select_channels
from mvssl.views.time_crop import TimeCrop, TimeGeometry, crop_time, mask_intervals


class SignalParameters(NamedTuple):
    """What is drawn for the signals of a batch; None: not an option of the view."""

    crop: TimeCrop
    rotation: Tensor | None  # float32 [n, 3, 3]
    factors: Tensor | None  # float32 [n, c, 1] or [n, 1, 1]
    kept: Tensor | None  # float32 [n, k], 0 for a dropped channel


class SignalView(DrawnView):
    """One view of a column of signals `shape` = (c, t) or (t,); by default nothing is random.

    length        samples of the view; default the column's
    crop          share [low, high] of the duration of a random crop, which is then resampled to `length`
    rotate        largest angle in degrees of a random rotation of each group of three channels (x, y, z), the same for
                  all groups of a sample
    scale         range [low, high] of a random factor on the stored values; per_channel draws one for each channel
    noise         standard deviation of added Gaussian noise (jitter), in normalised units
    drop          probability with which a channel is set to 0, the mean; at least one channel is kept
    mask, masks   largest share of the time that a mask sets to 0, and the number of masks
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
        count, t = (1, *shape)[-2:]
        self.length = t if length is None else length
        self.geometry: TimeGeometry = TimeGeometry(crop=crop, mask=mask, masks=masks)
        self.kept, self.bands = kept_channels(count, channels, bands)
        self.column_bands = tuple(bands or ())
        _check_rotation(rotate, count)
        if scale is not None and not 0 < scale[0] <= scale[1]:
            raise RecipeError(f"scale: {list(scale)} is no range of factors; give [low, high], both above 0")
        self.rotate, self.scale, self.per_channel = rotate, scale, per_channel
        if self.length < 1:
            raise RecipeError(f"length: {length}; give at least 1 sample")
        corruption.check_options(noise, drop)
        self.noise, self.drop, self.count = noise, drop, count
        self.mean, self.std = normalization.channel_statistics(normalize, self.kept, count)
        self.shape = (len(self.kept), self.length)

    def draw(self, draws: Draws, placement: TimeCrop | None = None) -> SignalParameters:
        """Return the parameters of the batch's samples; `placement` is the crop of another view."""
        return SignalParameters(
            self.geometry.draw(draws) if placement is None else placement,
            draw_rotations(draws, self.rotate).float() if self.rotate else None,
            self._draw_factors(self.scale, draws) if self.scale else None,
            corruption.draw_kept_channels(draws, self.drop, self.shape[0]),
        )

    def apply(self, column: Tensor, drawn: SignalParameters | None, draws: Draws | None) -> Tensor:
        """Return the view [n, *shape] of a column [n, c, t]; without parameters it is resampled and normalised."""
        x = self.with_channels(column.float())
        if drawn is None or draws is None:
            return self._normalize(crop_time(x, TimeCrop.full(len(x), x.device), self.length))
        x = crop_time(x, drawn.crop, self.length)
        if drawn.rotation is not None:
            x = rotate_axes(x, drawn.rotation)
        if drawn.factors is not None:
            x = x * drawn.factors
        x = corruption.add_noise(self._normalize(x), self.noise, draws)
        return mask_intervals(corruption.keep_channels(x, drawn.kept), drawn.crop.masks)

    def with_channels(self, column: Tensor) -> Tensor:
        """Return a column [n, t] as [n, 1, t]."""
        return column if column.dim() == 3 else column[:, None]

    def _draw_factors(self, scale: tuple[float, float], draws: Draws) -> Tensor:
        drawn = draws.uniform("scale", self.count if self.per_channel else 1)
        return (scale[0] + (scale[1] - scale[0]) * drawn).float()[..., None]

    def _normalize(self, x: Tensor) -> Tensor:
        return normalization.normalize_channels(select_channels(x, self.kept), self.mean, self.std)


def _check_rotation(degrees: float, channels: int) -> None:
    if not 0 <= degrees <= 180:
        raise RecipeError(f"rotate: {degrees}; give 0 to 180 degrees")
    if degrees and channels % 3:
        raise RecipeError(f"rotate: needs groups of three channels (x, y, z); the column has {channels} channels")


def draw_rotations(draws: Draws, degrees: float) -> Tensor:
    """Return rotations [n, 3, 3] by 0 to `degrees` about axes uniform on the sphere (Rodrigues' formula), float64."""
    axis = draws.normal("axis", 3)
    x, y, z = (axis / axis.norm(dim=1, keepdim=True)).unbind(1)
    o = torch.zeros_like(x)
    cross = torch.stack([o, -z, y, z, o, -x, -y, x, o], 1).view(-1, 3, 3)
    angle = math.radians(degrees) * draws.uniform("angle", 1)[..., None]
    return torch.eye(3, dtype=torch.float64) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross


def rotate_axes(x: Tensor, matrices: Tensor) -> Tensor:
    """Return signals [n, 3 g, t] with each group of three channels rotated by its sample's matrix [n, 3, 3]."""
    n, c, t = x.shape
    return (matrices[:, None] @ x.view(n, c // 3, 3, t)).view(n, c, t)
