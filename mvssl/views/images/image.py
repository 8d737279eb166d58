"""Views of images: geometry, then colour, then normalisation, for a full batch on its device.

in   a column [n, c, h, w], uint8 (divided by 255) or float32 (as stored), and the draws of its samples
out  float32 [n, k, *size]: the kept channels of the colour space, normalised
"""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.data.decoding.images import MAX_PIXELS
from mvssl.data.drawn import take_rows
from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.recipe.messages import nearest
from mvssl.views import corruption
from mvssl.views import normalize as normalization
from mvssl.views.base import DrawnView, Interpolation
from mvssl.views.channels import Channels, kept_channels, select_channels
from mvssl.views.images import color as colors
from mvssl.views.images.blurring import blur
from mvssl.views.images.geometry import Affine, ImageGeometry, Placement
from mvssl.views.images.image_resampling import apply_placement
from mvssl.views.images.jittering import JitterSteps, apply_jitter, plan_jitter
from mvssl.views.presets import PRESETS

BLOCK = 3 << 15  # numbers of an output block on a CPU
_MOST_SIGMA = 1000  # pixels of blur

LIGHT = {"lab": "lightness", "ydbdr": "luma"}  # the first channel of a colour space


class ImageParameters(NamedTuple):
    """What is drawn for the images of a batch; None: not an option of the view."""

    placement: Placement
    jitter: colors.Jitter | None
    inverted: Tensor | None  # bool [n], rows that are solarised
    sigma: Tensor | None  # float32 [n], output pixels of blur, 0 for rows that are not blurred
    kept: Tensor | None  # float32 [n, k], 0 for a dropped channel


class ImageView(DrawnView):
    """One view of a column of images `shape` = (c, h, w) or (h, w); by default nothing is random.

    size            output pixels, one number or [height, width]; default the column's
    crop, ratio     area and width / height of a random crop, then resized to `size`; without it the full image is
    flip            probability of exchanging left and right; with shared_flip all such views of a sample agree
    translate       largest shift in pixels after the crop, edges reflected, with probability translate_p
    affine          ranges of a random affine warp: degrees, translate, scale, shear
    interpolation   bilinear (antialiased), or nearest for masks and for depth with holes
    jitter          strengths of brightness, contrast, saturation, hue, in random order, with probability jitter_p
    hue             hsv (exact), or linear: a rotation of the chroma plane
    gray_p          probability of gray; solarize_p of inverting values of at least 0.5
    blur_p          probability of a Gaussian blur of blur_sigma = [low, high] output pixels
    keep            probability of keeping a pixel; the others become 0
    color           rgb (as stored, any number of channels), gray, lab, ydbdr
    bands           names of the column's channels, in order
    channels        those to keep: names of bands, names such as L, ab, Y, DbDr, or a list of numbers
    nodata          stored value for "not measured": left out of every mean, and 0 after normalisation
    noise           standard deviation of added Gaussian noise, after normalisation
    drop            probability of setting a channel to 0, the mean; at least one channel is kept
    normalize       half, imagenet, cifar10, lab, ydbdr, none, data (measured), {mean: [...], std: [...]}; default the
                    colour space's own: lab, ydbdr, or half; data where the training source holds floats
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = PRESETS

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        size: int | tuple[int, int] | None = None,
        crop: tuple[float, float] | None = None,
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.0,
        shared_flip: bool = False,
        translate: int = 0,
        translate_p: float = 1.0,
        affine: Affine | None = None,
        interpolation: Interpolation = "bilinear",
        jitter: tuple[float, float, float, float] | None = None,
        jitter_p: float = 1.0,
        hue: Literal["hsv", "linear"] = "hsv",
        gray_p: float = 0.0,
        solarize_p: float = 0.0,
        blur_p: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        keep: float = 1.0,
        color: colors.Space = "rgb",
        bands: list[str] | None = None,
        channels: Channels | None = None,
        nodata: float | None = None,
        noise: float = 0.0,
        drop: float = 0.0,
        normalize: normalization.Name | normalization.Numbers | None = None,
    ):
        if len(shape) not in (2, 3):
            raise RecipeError(f"an image view needs a column [c, h, w], not {list(shape)}; `name: vector` takes [d]")
        shape = (1, *shape)[-3:]
        chances = {"flip": flip, "translate_p": translate_p, "jitter_p": jitter_p, "gray_p": gray_p}
        _check_chances(**chances, solarize_p=solarize_p, blur_p=blur_p, keep=keep)
        if not 0 < blur_sigma[0] <= blur_sigma[1] <= _MOST_SIGMA:
            raise RecipeError(f"blur_sigma: {list(blur_sigma)}; give [low, high] pixels, above 0 to {_MOST_SIGMA}")
        corruption.check_options(noise, drop)
        given, (h, w) = shape[0], shape[1:]
        self.size = (h, w) if size is None else (size, size) if isinstance(size, int) else size
        if min(self.size) < 1 or math.prod(self.size) > MAX_PIXELS:
            raise RecipeError(f"size: {size}; give pixels, at least 1, and {MAX_PIXELS:,} for the full view at most")
        self.geometry: ImageGeometry = ImageGeometry(
            (h, w),
            self.size,
            crop=crop,
            ratio=ratio,
            flip=flip,
            shared_flip=shared_flip,
            translate=translate,
            translate_p=translate_p,
            affine=affine,
        )
        self.interpolation = interpolation
        self.solarize_p, self.blur_p, self.blur_sigma, self.keep = solarize_p, blur_p, blur_sigma, keep
        self.color: colors.Space = color
        self.nodata, self.noise, self.drop = nodata, noise, drop
        if nodata is not None and color != "rgb":
            raise RecipeError(f"nodata: color: {color} mixes channels, so one cannot be left out; leave color out")
        self.column_bands = tuple(bands or ())
        self.count, self.kept, self.bands = _channels(given, color, channels, bands)
        self.select_first = color == "rgb" and given > 3  # of many bands only the kept ones are processed
        self.jitter = colors.ColorJitter(len(self.kept) if self.select_first else given, jitter, jitter_p, gray_p, hue)
        default = color if color in ("lab", "ydbdr") else "half"
        self.mean, self.std = normalization.channel_statistics(normalize or default, self.kept, self.count)
        self.shape = (len(self.kept), *self.size)
        self.shows = _shown(color, self.kept)

    def draw(self, draws: Draws, placement: Placement | None = None) -> ImageParameters:
        """Return the parameters of the batch's samples; `placement` is that of another view."""
        inverted = draws.uniforms(solarize=1)["solarize"][0] < self.solarize_p if self.solarize_p else None
        return ImageParameters(
            self.geometry.draw(draws) if placement is None else placement,
            self.jitter.draw(draws) if self.jitter.active else None,
            None if inverted is None else torch.from_numpy(inverted),
            self._draw_sigma(draws) if self.blur_p else None,
            corruption.draw_kept_channels(draws, self.drop, self.shape[0]),
        )

    def apply(self, column: Tensor, drawn: ImageParameters | None, draws: Draws | None) -> Tensor:
        """Return the view [n, *shape] of a column [n, c, h, w]; without parameters it is resized and normalised."""
        return self._make(column, drawn, draws, 0.0)

    def measured(self, column: Tensor) -> Tensor:
        """Return the clean view with NaN where the column holds `nodata`."""
        return self._make(column, None, None, math.nan)

    def with_channels(self, column: Tensor) -> Tensor:
        """Return a column [n, h, w] as [n, 1, h, w]."""
        return column if column.dim() == 4 else column[:, None]

    @classmethod
    def needs_statistics(cls, options: dict[str, Any], floats: bool) -> bool:
        """Whether to measure `mean` and `std`: for `normalize: data`, and for floats without `normalize` or `color`."""
        plain = options.get("color", "rgb") == "rgb" and options.get("normalize") is None
        return options.get("normalize") == "data" or (plain and floats)

    def _make(self, column: Tensor, drawn: ImageParameters | None, draws: Draws | None, fill: float) -> Tensor:
        stored = not column.is_floating_point()
        x = self.with_channels(column)
        x = select_channels(x, self.kept) if self.select_first else x
        known = None if self.nodata is None else x != self.nodata
        x, holes = self._place(x, known, Placement.full(len(x), x.device) if drawn is None else drawn.placement)
        x = self._color(x, drawn, draws, stored)
        return x if holes is None else x.masked_fill(self._select_last(holes), fill)

    def _color(self, x: Tensor, drawn: ImageParameters | None, draws: Draws | None, stored: bool) -> Tensor:
        """Do all that follows the placement, in blocks: on a CPU a block stays in the cache from first to last."""
        jitter, unit = None, 1 / 255 if stored else 1.0
        if drawn is not None and drawn.jitter is not None:
            jitter, unit = plan_jitter(drawn.jitter, x.shape[1], unit), 1.0
        y = torch.empty(len(x), *self.shape, device=x.device)
        for rows in _cut_blocks(x):
            block = x[rows].float()
            block = block if unit == 1 else block.mul(unit)
            if drawn is not None and draws is not None:
                block = self._corrupt(
                    block, jitter and jitter.take(rows), take_rows(drawn, rows), draws.take(rows), stored
                )
            block = self._select_last(colors.to_space(block, self.color))
            normalization.normalize_channels(block, self.mean, self.std, out=y[rows])
        if drawn is not None and draws is not None:
            y = corruption.keep_channels(corruption.add_noise(y, self.noise, draws), drawn.kept)
        return y

    def _select_last(self, x: Tensor) -> Tensor:
        return x if self.select_first else select_channels(x, self.kept)

    def _place(self, x: Tensor, known: Tensor | None, placement: Placement) -> tuple[Tensor, Tensor | None]:
        """Return the images after `placement`, and their holes: pixels of which less than half was measured."""
        if known is None:
            return apply_placement(x, placement, self.size, self.interpolation), None
        share = apply_placement(known.float(), placement, self.size, self.interpolation)
        x = apply_placement(torch.where(known, x.float(), 0.0), placement, self.size, self.interpolation)
        x = x / share.clamp(min=1e-6)
        valid, holes = (share >= 0.5).float(), share < 0.5
        mean = (x * valid).sum((2, 3), keepdim=True) / valid.sum((2, 3), keepdim=True).clamp(min=1)
        return torch.where(holes, mean, x), holes  # holes get the mean, so that they do not change the contrast

    def _corrupt(
        self, x: Tensor, jitter: JitterSteps | None, drawn: ImageParameters, draws: Draws, stored: bool
    ) -> Tensor:
        """Colour jitter, a clamp if the range is known (bytes), then solarisation, blur and dropped pixels."""
        if jitter is not None:
            x = apply_jitter(x, jitter, clamp=stored)
        if self.solarize_p and not stored:
            raise RecipeError("solarize_p: inverts bytes, but the column holds floats; leave it out")
        if drawn.inverted is not None:
            x = torch.where(drawn.inverted[:, None, None, None], colors.solarize(x), x)
        if drawn.sigma is not None:
            x = blur(x, drawn.sigma, math.ceil(3 * self.blur_sigma[1]))
        if self.keep < 1:
            noise = draws.within("keep", x.device).uniform("keep", 1, *self.size, dtype=torch.float32)
            x = x * (noise < self.keep)
        return x

    def _draw_sigma(self, draws: Draws) -> Tensor:
        u, (low, high) = draws.uniforms(blur=1, sigma=1), self.blur_sigma
        sigma = np.where(u["blur"][0] < self.blur_p, low + (high - low) * u["sigma"][0], 0.0)
        return torch.from_numpy(sigma.astype(np.float32))

    def to_rgb(self, x: Tensor) -> Tensor | None:
        """Return views [n, k, h, w] as RGB pictures [n, 3, h, w] in [0, 1]; None if they are no colour images.

        Channels of a colour space that the view does not keep are shown as middle gray, or at lightness L = 65.
        """
        x = x * self.std.to(x.device)[:, None, None] + self.mean.to(x.device)[:, None, None]
        if self.count == 1 and self.color == "rgb":
            return x.clamp(0, 1).expand(-1, 3, -1, -1)
        if self.count > 3:
            return None
        if self.color == "rgb":
            return x.clamp(0, 1) if len(self.kept) == 3 else None
        neutral = {"gray": (0.5,), "lab": (65.0, 0.0, 0.0), "ydbdr": (0.6, 0.0, 0.0)}[self.color]
        full = torch.tensor(neutral, device=x.device)[:, None, None].repeat(len(x), 1, *x.shape[2:])
        full[:, self.kept] = x
        return colors.from_space(full, self.color)


def _cut_blocks(x: Tensor) -> list[slice]:
    """Return the rows of blocks of images [n, c, h, w]; on other devices than a CPU all of them are one."""
    count = max(1, BLOCK // max(1, x[:1].numel())) if x.device.type == "cpu" else len(x)
    return [slice(begin, begin + count) for begin in range(0, len(x), max(1, count))]


def _shown(color: colors.Space, kept: list[int]) -> str:
    """Describe what `to_rgb` shows of a colour space; empty if it shows everything."""
    if color not in LIGHT or len(kept) == 3:
        return ""
    light, axes = LIGHT[color], "" if {1, 2} <= set(kept) else "one axis of "
    if 0 in kept:
        return f"{light}, in gray" if len(kept) == 1 else f"{light} and one axis of colour"
    return f"{axes}colour without its {light}, which is drawn the same everywhere; gray is no colour"


def _check_chances(**chances: float) -> None:
    for name, value in chances.items():
        if not 0 <= value <= 1:
            raise RecipeError(f"{name}: {value} is no probability; give a number from 0 to 1")


def _channels(
    given: int, color: colors.Space, channels: Channels | None, bands: list[str] | None
) -> tuple[int, list[int], tuple[str, ...]]:
    """Return the number of channels of the colour space, those to keep, and their names if they are bands."""
    if color != "rgb" and given != 3:
        raise RecipeError(f"color: {color} is made from 3 channels, the column has {given}; leave color out")
    if color != "rgb" and bands is not None:
        raise RecipeError(f"bands: color: {color} has its own channels, not those of the column; leave bands out")
    count = 1 if color == "gray" else given
    names = colors.CHANNELS[color] if bands is None and (count == 3 or color == "gray") else {}
    if isinstance(channels, str) and channels in names:
        return count, names[channels], ()
    if isinstance(channels, str) and bands is None:
        accepted = [*names, f"a list of 0..{count - 1}", "names of bands, if the view has bands: [NAME, ...]"]
        raise RecipeError(f"channels: {color} has no {channels!r}{nearest(channels, accepted)}")
    return count, *kept_channels(count, channels, bands)
