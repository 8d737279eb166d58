"""Random crops, flips, translations and warps, as a few numbers per sample.

in   ranges, the sizes of source and output, and the draws of a batch's samples
out  a `Placement`, which `image_resampling.apply_placement` applies to images

A placement is relative (shares of height and width), so that sensors of different resolutions can repeat it.
"""

import math
from typing import NamedTuple

import numpy as np
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
    """Which part of the source each sample shows, and how it is moved; tensors are float64."""

    box: Tensor  # [n, 2, 2] start and length of rows, then of columns, as shares of height and width
    flip: Tensor  # [n] 1: left and right are exchanged, 0: they are not
    shift: Tensor  # [n, 2] rows and columns moved after the crop, as shares of the output, reflected at its edges
    warp: Tensor | None  # [n, 5] degrees, down and right as shares, scale, shear in degrees; before the crop
    whole: bool = False  # nothing is cropped, flipped or shifted: every box is full
    shrinks: bool = True  # some warp may make its image smaller

    @classmethod
    def full(cls, n: int, device: torch.device | str = "cpu") -> "Placement":
        """Return placements that keep the full images as they are."""
        box, zeros = torch.arange(2, device=device).double().expand(n, 2, 2), torch.zeros(n, 3, device=device).double()
        return cls(box, zeros[:, 0], zeros[:, :2], None, whole=True, shrinks=False)


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
        self._counts = {
            **({"area": 1, "aspect": 1, "place": 2} if crop else {}),
            **({"flip": 1} if flip and not shared_flip else {}),
            **({"translate": 2, "translate_p": 1} if translate else {}),
            **({"degrees": 1, "move": 2, "scale": 1, "shear": 1} if affine else {}),
        }

    def draw(self, draws: Draws) -> Placement:
        """Return the placement of each sample; a shared flip depends on the sample alone, so all views agree."""
        n, u = len(draws.position), draws.uniforms(**self._counts)
        if self.shared_flip and self.flip:
            u |= Draws(draws.seed, draws.position, scope="shared").uniforms(flip=1)
        box, flip, shift, warp = np.tile([0.0, 1.0], (n, 2, 1)), np.zeros(n), np.zeros((n, 2)), None
        if self.crop:
            box = _place_boxes(u, draws, self.inside, self.crop, self.ratio)
        if self.flip:
            flip = (u["flip"][0] < self.flip).astype(np.float64)
        if self.translate:
            pixels = np.floor(u["translate"] * (2 * self.translate + 1)) - self.translate
            shift = (pixels * (u["translate_p"] < self.translate_p)).T / self.outside
        if self.affine:
            warp = _place_warps(u, self.inside, self.affine)
        return Placement(
            torch.from_numpy(box),
            torch.from_numpy(flip),
            torch.from_numpy(shift),
            None if warp is None else torch.from_numpy(warp),
            whole=not (self.crop or self.flip or self.translate),
            shrinks=warp is not None and bool((warp[:, 3] < 1).any()),
        )


def _place_boxes(
    u: dict[str, np.ndarray], draws: Draws, inside: tuple[int, int], scale: tuple[float, float],
    ratio: tuple[float, float],
) -> np.ndarray:  # fmt: skip
    """Crops [n, 2, 2] as torchvision's RandomResizedCrop: area uniform, ratio log-uniform, first of ten that fits."""
    sides, fits = _try_sides(u["area"][0], u["aspect"][0], inside, scale, ratio)
    again = np.flatnonzero(~fits)
    if len(again):  # few samples need the other attempts
        more = draws.take(again).uniforms(area=ATTEMPTS, aspect=ATTEMPTS)
        tried, fits[again] = _first_fitting(*_try_sides(more["area"], more["aspect"], inside, scale, ratio))
        sides[:, again] = tried
    size = np.array(inside)[:, None]
    free = size - sides
    start = np.floor(u["place"] * (free + 1))
    if not fits.all():
        central = min(max(inside[1] / inside[0], ratio[0]), ratio[1])
        sides[0, ~fits], sides[1, ~fits] = (
            round(min(inside[0], inside[1] / central)),
            round(min(inside[1], inside[0] * central)),
        )
        start[:, ~fits] = ((size - sides[:, ~fits]) / 2).round()
    box = np.empty((len(fits), 2, 2))
    box[:, :, 0], box[:, :, 1] = (start / size).T, (sides / size).T
    return box


def _try_sides(
    area: np.ndarray, aspect: np.ndarray, inside: tuple[int, int], scale: tuple[float, float],
    ratio: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return height and width in pixels, [2, ...], for uniform numbers [...], and whether they fit."""
    height, width = inside
    area = height * width * _between(area, scale)
    aspect = np.exp(_between(aspect, (math.log(ratio[0]), math.log(ratio[1]))))
    sides = np.empty((2, *area.shape))
    np.sqrt(area / aspect, out=sides[0])
    np.sqrt(area * aspect, out=sides[1])
    tall, wide = np.rint(sides, out=sides)
    return sides, (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)


def _first_fitting(sides: np.ndarray, fits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sides [2, k] of the first of the attempts [2, ATTEMPTS, k] that fits, and whether one does [k]."""
    first = fits.argmax(0)
    return np.take_along_axis(sides, first[None, None], 1)[:, 0], fits.max(0)


def _place_warps(u: dict[str, np.ndarray], inside: tuple[int, int], affine: Affine) -> np.ndarray:
    size = np.array(inside)[:, None]
    turned = affine.degrees * (2 * u["degrees"] - 1)
    moved = (affine.translate * size * (2 * u["move"] - 1)).round() / size
    zoomed = _between(u["scale"], affine.scale)
    sheared = affine.shear * (2 * u["shear"] - 1)
    return np.concatenate([turned, moved, zoomed, sheared]).T.copy()


def _between(u: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    return bounds[0] + (bounds[1] - bounds[0]) * u
