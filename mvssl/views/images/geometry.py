"""Random crops, flips, translations and warps, as a few numbers per sample.

in   ranges, the sizes of source and output, and the draws of a batch's samples
out  a `Placement`, float64 on the CPU, which `resample.apply_placement` applies to images

A placement is relative (shares of height and width), so that sensors of different resolutions can repeat it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.recipe import Config
from mvssl.views.base import Geometry

ATTEMPTS = 10  # torchvision's number of tries before it falls back to a central crop


class Affine(Config):
    """Ranges of a random affine warp, named as in torchvision's RandomAffine."""

    degrees: float = 0.0  # rotation in -degrees .. degrees
    translate: float = 0.0  # full pixels, up to this share of width and height
    scale: tuple[float, float] = (1.0, 1.0)
    shear: float = 0.0  # horizontal, in -shear .. shear degrees


class Placement(NamedTuple):
    """Which part of the source each sample shows, and how it is moved; every field is float64 on the CPU."""

    box: Tensor  # [n, 2, 2] start and length of rows, then of columns, as shares of height and width
    flip: Tensor  # [n] 1: left and right are exchanged, 0: they are not
    shift: Tensor  # [n, 2] rows and columns moved after the crop, as shares of the output, reflected at its edges
    warp: Tensor | None  # [n, 5] degrees, down and right as shares, scale, shear in degrees; before the crop

    @classmethod
    def full(cls, n: int) -> "Placement":
        """Return placements that keep the full images as they are."""
        return cls(torch.tensor([0.0, 1.0]).double().expand(n, 2, 2), torch.zeros(n), torch.zeros(n, 2), None)


class ImageGeometry(Geometry):
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
        """Return the placement of each sample; a shared flip depends on the sample alone, so all views agree."""
        n = len(draws.position)
        full = Placement.full(n)
        coin = Draws(draws.seed, draws.position, scope="shared") if self.shared_flip else draws
        return Placement(
            box=_boxes(draws, self.inside, self.crop, self.ratio) if self.crop else full.box,
            flip=(coin.uniform("flip", 1)[:, 0] < self.flip).double() if self.flip else full.flip,
            shift=self._shift(draws) if self.translate else full.shift,
            warp=_warps(draws, self.inside, self.affine) if self.affine else None,
        )

    def _shift(self, draws: Draws) -> Tensor:
        pixels = draws.integers("translate", 2 * self.translate + 1, 2) - self.translate
        moved = draws.uniform("translate_p", 1) < self.translate_p
        return pixels * moved / torch.tensor(self.outside, dtype=torch.float64)


def _boxes(draws: Draws, inside: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float]) -> Tensor:
    """Crops [n, 2, 2] as torchvision's RandomResizedCrop: area uniform, ratio log-uniform, first of ten that fits."""
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
