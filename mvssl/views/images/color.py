"""Colour jitter as one matrix per sample, exact hue, colour spaces, solarisation and blur.

in   images [n, c, h, w], in [0, 1] if they have three channels, and float64 parameters per sample on the CPU
out  images of the same kind; colour spaces in their own units (Lab: L 0..100; YDbDr: Y 0..1, Db and Dr within 4/3)

Brightness, contrast, saturation and gray are linear in the pixel and the image's mean colour m: x -> A x + B m. A
sequence of them is linear too: A and B are multiplied first and applied to the image once. The parameters are those of
torchvision's ColorJitter. torchvision clamps to [0, 1] after every step. Here one clamp follows at the end, and one
comes before an exact hue. The results differ if a step in between leaves [0, 1].
"""

from typing import Literal, NamedTuple

import kornia
import torch
from torch import Tensor

from mvssl.distributed.devices import send
from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views.images.image_resampling import apply_filters

Space = Literal["rgb", "gray", "lab", "ydbdr"]
GRAY = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # ITU-R BT.601
YDBDR = torch.tensor([[0.299, 0.587, 0.114], [-0.450, -0.883, 1.333], [-1.333, 1.116, 0.217]])
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]).double()
XYZ = torch.tensor([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
D65 = torch.tensor([0.95047, 1.0, 1.08883])  # white, in XYZ
CHANNELS = {
    "rgb": {"R": [0], "G": [1], "B": [2]},
    "gray": {"Y": [0]},
    "lab": {"L": [0], "a": [1], "b": [2], "ab": [1, 2]},
    "ydbdr": {"Y": [0], "Db": [1], "Dr": [2], "DbDr": [1, 2]},
}
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


class Recolor(NamedTuple):
    """x -> pixel x + mean m, with m the image's mean colour; both [n, c, c]."""

    pixel: Tensor
    mean: Tensor


class Jitter(NamedTuple):
    """A batch's colour jitter: `first` for all rows, then hue and `second` for the rows that rotate it in HSV."""

    first: Recolor
    rows: Tensor  # int64 [k]
    turns: Tensor  # [k], in full turns of the colour circle
    second: Recolor


class ColorJitter:
    """Random colour jitter and gray for images of `channels` channels; strengths as in torchvision's ColorJitter.

    strengths   brightness, contrast, saturation, hue; the first three are factors in [max(0, 1 - s), 1 + s]
    p, gray_p   probability of the jitter, and of gray after it
    If there are not three channels, contrast uses each channel's own mean. Saturation, hue and gray then raise
    `RecipeError`.
    """

    def __init__(
        self, channels: int, strengths: tuple[float, ...] | None, p: float, gray_p: float, hue: Literal["hsv", "linear"]
    ):
        b, c, s, h = self.strengths = strengths or (0.0, 0.0, 0.0, 0.0)
        if min(b, c, s, h) < 0 or h > 0.5:
            raise RecipeError(f"jitter: {list(self.strengths)}; strengths are at least 0, and hue at most 0.5")
        if channels != 3 and (s or h or gray_p):
            named = [name for name, on in (("saturation", s), ("hue", h), ("gray_p", gray_p)) if on]
            raise RecipeError(
                f"{', '.join(named)}: defined for 3 channels only, the column has {channels}; "
                "jitter: [brightness, contrast, 0, 0] works for any number"
            )
        self.channels, self.p, self.gray_p = channels, p, gray_p
        self.hue: Literal["hsv", "linear"] = hue
        self.active = bool(any(self.strengths) or gray_p)

    def draw(self, draws: Draws) -> Jitter:
        """Return the composed parameters of every row; float64 on the CPU."""
        u = draws.uniform("jitter", 4)
        on = draws.uniform("jitter_p", 1) < self.p
        low = torch.tensor([max(0.0, 1 - s) for s in self.strengths[:3]], dtype=torch.float64)
        high = 1 + torch.tensor(self.strengths[:3], dtype=torch.float64)
        factors = torch.where(on, low + (high - low) * u[:, :3], 1.0)
        turns = torch.where(on[:, 0], self.strengths[3] * (2 * u[:, 3] - 1), 0.0)
        gray = draws.uniform("gray", 1)[:, 0] < self.gray_p
        return compose_jitter(factors, turns, draws.uniform("order", 4).argsort(1), gray, self.channels, self.hue)

    def __call__(self, x: Tensor, draws: Draws, clamp: bool = True) -> Tensor:
        """Return jittered images. With `clamp` they lie in [0, 1], and so does the input of the hue rotation."""
        return apply_jitter(x, self.draw(draws), clamp)


def compose_jitter(
    factors: Tensor, turns: Tensor, order: Tensor, gray: Tensor, channels: int, hue: Literal["hsv", "linear"]
) -> Jitter:
    """Compose given parameters.

    factors [n, 3]: brightness, contrast, saturation; turns [n]: hue, 1 is the full colour circle; order [n, 4]: the
    operations, first to last (0 brightness, 1 contrast, 2 saturation, 3 hue); gray bool [n]: gray after them.
    """
    pixel, mean = _operations(factors, turns, channels, hue)
    rank = order.argsort(1)  # the place of each operation
    exact = (turns != 0) & (hue == "hsv")
    early = (rank <= rank[:, [HUE]]) | ~exact[:, None]
    rows = exact.nonzero()[:, 0]
    first, second = _compose(pixel, mean, order, early), _compose(pixel[rows], mean[rows], order[rows], ~early[rows])
    first, second = _append_gray(first, gray & ~exact), _append_gray(second, gray[rows])
    return Jitter(first, rows, turns[rows], second)


def _operations(factors: Tensor, turns: Tensor, channels: int, hue: str) -> tuple[Tensor, Tensor]:
    """Return each operation alone, as matrices on the pixel and on the mean colour; both [n, 4, c, c]."""
    same = torch.eye(channels, dtype=torch.float64)
    luma = GRAY.expand(3, 3) if channels == 3 else same  # what contrast and saturation blend with
    b, c, s = factors[:, :, None, None].unbind(1)
    turned = _hue_rotation(turns) if hue == "linear" and channels == 3 else same.expand(len(turns), -1, -1)
    nothing = torch.zeros_like(b * same)
    pixel = torch.stack([b * same, c * same, s * same + (1 - s) * luma, turned], 1)
    mean = torch.stack([nothing, (1 - c) * luma, nothing, nothing], 1)
    return pixel, mean


def _hue_rotation(turns: Tensor) -> Tensor:
    """Return rotations [n, 3, 3] of the chroma plane of YIQ; they keep gray and luma, unlike HSV."""
    angle = 2 * torch.pi * turns
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(turns), 1, 1)
    rotation[:, 1, 1] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 1, 2], rotation[:, 2, 1] = angle.sin(), -angle.sin()
    return YIQ.inverse() @ rotation @ YIQ


def _compose(pixel: Tensor, mean: Tensor, order: Tensor, use: Tensor) -> Recolor:
    """Multiply the operations that a row uses, in its order; the mean colour then becomes (pixel + mean) m."""
    same = torch.eye(pixel.shape[-1], dtype=torch.float64)
    pixel = torch.where(use[..., None, None], pixel, same)
    mean = torch.where(use[..., None, None], mean, 0.0)
    rows = torch.arange(len(order))
    a, b = same.expand(len(order), -1, -1), torch.zeros_like(mean[:, 0])
    for operation in order.unbind(1):
        step, of_mean = pixel[rows, operation], mean[rows, operation]
        a, b = step @ a, step @ b + of_mean @ (a + b)
    return Recolor(a, b)


def _append_gray(recolor: Recolor, gray: Tensor) -> Recolor:
    channels = recolor.pixel.shape[-1]
    if channels != 3:
        return recolor
    last = torch.where(gray[:, None, None], GRAY.expand(3, 3), torch.eye(3, dtype=torch.float64))
    return Recolor(last @ recolor.pixel, last @ recolor.mean)


def apply_jitter(x: Tensor, drawn: Jitter, clamp: bool = True) -> Tensor:
    """Return jittered images [n, c, h, w], not clamped at the end; the hue rotation works in any range of numbers."""
    x = recolor_pixels(x, drawn.first)
    if len(drawn.rows):
        rows = send(drawn.rows, x.device)
        bright = x[rows].clamp_(0, 1) if clamp else x[rows]
        turned = rotate_hue(bright, send(drawn.turns.float(), x.device))
        x = x.index_copy(0, rows, recolor_pixels(turned, drawn.second))
    return x


def recolor_pixels(x: Tensor, recolor: Recolor) -> Tensor:
    """Return pixel x + mean m for every pixel x of images [n, c, h, w] with mean colours m."""
    n, c, h, w = x.shape
    pixel, mean = send(torch.stack(recolor).float(), x.device)
    flat = x.reshape(n, c, h * w)
    return torch.baddbmm(mean @ flat.mean(2, keepdim=True), pixel, flat).view(n, c, h, w)


def rotate_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Add `turns` [n] (1 is the full circle) to the hue of x [n, 3, h, w]; value and saturation do not change."""
    r, g, b = x.unbind(1)
    top, bottom = torch.maximum(torch.maximum(r, g), b), torch.minimum(torch.minimum(r, g), b)
    chroma = top - bottom
    per = chroma.clamp(min=1e-12).reciprocal()
    sextant = torch.where(top == r, (g - b) * per, torch.where(top == g, 2 + (b - r) * per, 4 + (r - g) * per))
    sextant += 6 * turns[:, None, None]
    # a channel is below the top by a function of the distance of the hue from the channel's own, on a circle of 6
    away = sextant[:, None] + torch.arange(3, -2, -2, device=x.device)[:, None, None]
    away -= 6 * (away / 6).round_()
    below = away.abs_().neg_().add_(2).clamp_(0, 1)
    return torch.addcmul(top[:, None], chroma[:, None], below, value=-1)


def to_space(x: Tensor, space: Space) -> Tensor:
    """Return RGB images in [0, 1] in `space`; rgb means as stored, with any number of channels."""
    if space == "rgb":
        return x
    if space == "lab":
        return _lab(x)
    return mix_channels(x, GRAY[None] if space == "gray" else YDBDR)


def _lab(x: Tensor) -> Tensor:
    """CIE Lab of sRGB under D65. kornia's function would make the host wait: it builds constants on the device."""
    share = mix_channels(kornia.color.rgb_to_linear_rgb(x), XYZ / D65[:, None])
    root = torch.where(share > 0.008856, share.clamp(min=0.008856) ** (1 / 3), 7.787 * share + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def mix_channels(x: Tensor, matrix: Tensor) -> Tensor:
    """Return every pixel of x [n, c, h, w] times `matrix` [k, c], which is on the CPU."""
    return torch.einsum("kc,nchw->nkhw", send(matrix.to(x.dtype), x.device), x)


def from_space(x: Tensor, space: Space) -> Tensor:
    """Return RGB [n, 3, h, w], the inverse of `to_space`, clamped to [0, 1]; gray repeats its channel."""
    if space == "lab":
        return kornia.color.lab_to_rgb(x)
    if space == "ydbdr":
        x = mix_channels(x, YDBDR.inverse())
    return (x.expand(-1, 3, -1, -1) if space == "gray" else x).clamp(0, 1)


def solarize(x: Tensor, threshold: float = 0.5) -> Tensor:
    """Return x in [0, 1] with values of at least `threshold` inverted."""
    return torch.where(x >= threshold, 1 - x, x)


def blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur with `sigma` [n] pixels, a window of 2 radius + 1 and reflected edges, as torchvision's gaussian_blur."""
    return apply_filters(x, *(_gaussian(sigma, radius, pixels) for pixels in x.shape[-2:]))


def _gaussian(sigma: Tensor, radius: int, pixels: int) -> Tensor:
    """Blur matrices [n, pixels, pixels]; weights beyond an edge are reflected at its first or last pixel."""
    i = torch.arange(pixels, device=sigma.device)
    here, there = i[:, None], i[None]
    total = torch.zeros(len(sigma), pixels, pixels, device=sigma.device)
    left = torch.where(there > 0, here + there, radius + 1)
    right = torch.where(there < pixels - 1, 2 * (pixels - 1) - here - there, radius + 1)
    for distance in (here - there, left, right):
        bell = (-0.5 * (distance / sigma[:, None, None]) ** 2).exp()
        total += torch.where(distance.abs() <= radius, bell, 0.0)
    return total / total.sum(-1, keepdim=True)
