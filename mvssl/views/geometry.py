"""Crop, flip, translation and affine warp of whole batches, equal to torchvision's antialiased operations.

in   images [n, c, h, w], any number of channels, and a `Placement`: a few numbers per sample, drawn on the CPU
out  float32 [n, c, size]; nearest keeps every pixel's value

A placement is relative (shares of height and width), so that sensors of different resolutions can repeat it. Crop, scale,
flip and translation are one matrix for the rows and one for the columns of each sample, which is what a separable
antialiased filter is (Heckbert, 1989); a rotation or shear is a bilinear warp at source resolution before them.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mvssl.draws import Draws
from mvssl.errors import RecipeError
from mvssl.recipe import Table

Interpolation = Literal["bilinear", "nearest"]
ATTEMPTS = 10  # torchvision's number of tries before it falls back to a central crop


class Affine(Table):
    """Ranges of a random affine warp, named as in torchvision's RandomAffine."""

    degrees: float = 0.0  # rotation in -degrees .. degrees
    translate: float = 0.0  # whole pixels, up to this share of width and height
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0  # horizontal, in -shear .. shear degrees


class Placement(NamedTuple):
    """Where in the source each sample's output lies; every field float64 on the CPU."""

    box: Tensor  # [n, 2, 2] start and length of rows, then of columns, as shares of height and width
    flip: Tensor  # [n] 1 where left and right are exchanged
    shift: Tensor  # [n, 2] rows and columns moved after the crop, as shares of the output, reflected at its edges
    warp: Tensor | None  # [n, 5] degrees, down and right as shares, scale, shear in degrees; before the crop

    @classmethod
    def whole(cls, n: int) -> "Placement":
        """The whole image, upright."""
        return cls(torch.tensor([0.0, 1.0]).double().expand(n, 2, 2), torch.zeros(n), torch.zeros(n, 2), None)


class Geometry:
    """Random placements for a source of `inside` = (h, w) pixels and an output of `outside` pixels."""

    def __init__(
        self,
        inside: tuple[int, int],
        outside: tuple[int, int],
        *,
        crop: tuple[float, float] | None = None,
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.0,
        shared_flip: bool = False,
        translate: int = 0,
        translate_p: float = 1.0,
        affine: Affine | None = None,
    ):
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise RecipeError(f"crop: {list(crop)} is no range of areas; give [low, high] with 0 < low <= high <= 1")
        if not 0 < ratio[0] <= ratio[1]:
            raise RecipeError(f"ratio: {list(ratio)} is no range of width / height; give [low, high], both above 0")
        if not 0 <= translate < min(outside):
            raise RecipeError(f"translate: {translate} pixels; give 0 to {min(outside) - 1}, below the output's size")
        if affine is not None and not 0 < affine.scale[0] <= affine.scale[1]:
            raise RecipeError(f"affine.scale: {list(affine.scale)}; give [low, high], both above 0")
        self.inside, self.outside = inside, outside
        self.crop, self.ratio, self.flip, self.shared_flip = crop, ratio, flip, shared_flip
        self.translate, self.translate_p, self.affine = translate, translate_p, affine

    def draw(self, draws: Draws) -> Placement:
        """The placement of each sample; a shared flip is keyed by the sample alone, so all views toss one coin."""
        n = len(draws.position)
        whole = Placement.whole(n)
        coin = Draws(draws.seed, draws.position, scope="shared") if self.shared_flip else draws
        return Placement(
            box=_boxes(draws, self.inside, self.crop, self.ratio) if self.crop else whole.box,
            flip=(coin.uniform("flip", 1)[:, 0] < self.flip).double() if self.flip else whole.flip,
            shift=self._shift(draws) if self.translate else whole.shift,
            warp=_warps(draws, self.inside, self.affine) if self.affine else None,
        )

    def _shift(self, draws: Draws) -> Tensor:
        pixels = draws.integers("translate", 2 * self.translate + 1, 2) - self.translate
        moved = draws.uniform("translate_p", 1) < self.translate_p
        return pixels * moved / torch.tensor(self.outside, dtype=torch.float64)


def _boxes(draws: Draws, inside: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """torchvision's RandomResizedCrop: area uniform, ratio log-uniform, first of ten tries that fits; [n, 2, 2]."""
    height, width = inside
    area = height * width * _between(draws.uniform("area", ATTEMPTS), scale)
    aspect = _between(draws.uniform("aspect", ATTEMPTS), (math.log(ratio[0]), math.log(ratio[1]))).exp()
    tall, wide = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fits = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fits.int().argmax(1, keepdim=True)
    central = min(max(width / height, ratio[0]), ratio[1])
    tall = torch.where(fits.any(1), tall.gather(1, first)[:, 0], round(min(height, width / central)))
    wide = torch.where(fits.any(1), wide.gather(1, first)[:, 0], round(min(width, height * central)))
    free = torch.stack([height - tall, width - wide], 1)
    place = torch.floor(draws.uniform("place", 2) * (free + 1))
    start = torch.where(fits.any(1, keepdim=True), place, (free / 2).round())
    size = torch.tensor(inside, dtype=torch.float64)
    return torch.stack([start / size, torch.stack([tall, wide], 1) / size], 2)


def _warps(draws: Draws, inside: tuple[int, int], affine: Affine) -> Tensor:
    size = torch.tensor(inside, dtype=torch.float64)
    turned = affine.degrees * (2 * draws.uniform("degrees", 1) - 1)
    moved = (affine.translate * size * (2 * draws.uniform("move", 2) - 1)).round() / size
    zoomed = _between(draws.uniform("scale", 1), affine.scale)
    sheared = affine.shear * (2 * draws.uniform("shear", 1) - 1)
    return torch.cat([turned, moved, zoomed, sheared], 1)


def _between(u: Tensor, bounds: tuple[float, float]) -> Tensor:
    return bounds[0] + (bounds[1] - bounds[0]) * u


def send(x: Tensor, device: torch.device) -> Tensor:
    """A small CPU tensor on `device` without waiting for it."""
    return x.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else x.to(device)


def place(x: Tensor, placement: Placement, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """Images [n, c, h, w], moved as `placement` says, as [n, c, *size]."""
    inside = (x.shape[-2], x.shape[-1])
    if placement.warp is not None:
        x = warp(x, placement.warp, interpolation)
    still = not placement.flip.any() and not placement.shift.any() and bool((placement.box == whole_box()).all())
    if still and inside == size:
        return x
    pixels = torch.tensor(inside, dtype=torch.float64)[:, None]
    turn = torch.stack([torch.zeros_like(placement.flip), placement.flip], 1)
    shift = placement.shift * torch.tensor(size, dtype=torch.float64)
    axes = torch.cat([placement.box * pixels, turn[..., None], shift[..., None]], 2).float()  # [n, 2, 4]
    rows, columns = send(axes, x.device).unbind(1)
    if interpolation == "nearest":
        return _pick(x, nearest_index(rows, inside[0], size[0]), nearest_index(columns, inside[1], size[1]))
    return filtered(x, weights(rows, inside[0], size[0]), weights(columns, inside[1], size[1]))


def whole_box() -> Tensor:
    """Start and length of the whole image."""
    return torch.tensor([0.0, 1.0], dtype=torch.float64)


def centres(axis: Tensor, outside: int) -> Tensor:
    """Where output pixels lie along one axis of the source, in source pixels [n, out].

    `axis` [n, 4]: start and length in source pixels, flip (0 or 1), shift in output pixels.
    """
    start, length, flip, shift = axis[:, :, None].unbind(1)
    i = torch.arange(outside, device=axis.device) + shift
    period = 2 * max(outside - 1, 1)
    i = torch.remainder(i, period)
    i = torch.minimum(i, period - i)  # reflected at the output's first and last pixel
    i = torch.where(flip > 0, outside - 1 - i, i)
    return start + length / outside * (i + 0.5)


def weights(axis: Tensor, inside: int, outside: int) -> Tensor:
    """The antialiased linear filter as matrices [n, out, in]: a triangle as wide as an output pixel, at least one pixel.

    Pixels outside the crop count nothing, as if it had been cut out first.
    """
    start, length = axis[:, 0, None], axis[:, 1, None]
    support = (length / outside).clamp(min=1)
    triangle = tents(centres(axis, outside), support, inside)
    j = torch.arange(inside, device=axis.device)
    in_box = (j >= start.floor()) & (j < (start + length).ceil())
    triangle = triangle * in_box[:, None]
    return triangle / triangle.sum(-1, keepdim=True)


def tents(centre: Tensor, support: Tensor, inside: int) -> Tensor:
    """max(0, 1 - |pixel - centre| / support): centre [n, out], support [n, 1], result [n, out, in], not normalised."""
    j = torch.arange(inside, device=centre.device) + 0.5
    return (1 - (j - centre[..., None]).abs() / support[..., None]).clamp_(min=0)


def filtered(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows [n, out_h, h] and columns [n, out_w, w] applied to images [n, c, h, w]."""
    n, c, h, w = x.shape
    x = torch.bmm(x.reshape(n, c * h, w), columns.mT).view(n, c, h, -1)
    return torch.matmul(rows[:, None], x)


def nearest_index(axis: Tensor, inside: int, outside: int) -> Tensor:
    """The source pixel that an output pixel's centre falls into, inside the crop; int64 [n, out]."""
    start, length = axis[:, 0, None], axis[:, 1, None]
    last = ((start + length).ceil() - 1).clamp(max=inside - 1)
    return torch.minimum(torch.maximum(centres(axis, outside).floor(), start.floor()), last).long()


def _pick(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    n, c, _, w = x.shape
    x = x.gather(2, rows[:, None, :, None].expand(n, c, rows.shape[1], w))
    return x.gather(3, columns[:, None, None, :].expand(n, c, rows.shape[1], columns.shape[1]))


def warp(x: Tensor, parameters: Tensor, interpolation: Interpolation) -> Tensor:
    """torchvision's `affine` about the centre, empty places 0; what shrinks is filtered first (torchvision aliases)."""
    h, w = x.shape[-2:]
    degrees, down, right, scale, shear = parameters.unbind(1)
    if interpolation == "bilinear" and bool((scale < 1).any()):
        support = send((1 / scale).clamp(min=1).float()[:, None], x.device)
        x = filtered(x, *(_blunt(support, pixels) for pixels in (h, w)))
    cos, sin, lean = degrees.deg2rad().cos(), degrees.deg2rad().sin(), shear.deg2rad().tan()
    # inverse of rotation @ shear @ scale, from output to source, x first
    xx, xy = (cos - sin * lean) / scale, (cos * lean + sin) / scale
    yx, yy = -sin / scale, cos / scale
    dx, dy = right * w, down * h
    theta = torch.stack([xx, xy * h / w, -2 * (xx * dx + xy * dy) / w, yx * w / h, yy, -2 * (yx * dx + yy * dy) / h], 1)
    grid = F.affine_grid(send(theta.float(), x.device).view(-1, 2, 3), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode=interpolation, padding_mode="zeros", align_corners=False)


def _blunt(support: Tensor, pixels: int) -> Tensor:
    """Filter matrices [n, pixels, pixels] that leave an image's size and take what a shrunk one cannot hold."""
    here = torch.arange(pixels, device=support.device).expand(len(support), pixels) + 0.5
    triangle = tents(here, support, pixels)
    return triangle / triangle.sum(-1, keepdim=True)
