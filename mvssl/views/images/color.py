"""Colour jitter as four numbers per sample, exact hue, colour spaces, solarisation and blur.

in   images [n, c, h, w], in [0, 1] if they have three channels, and the drawn parameters of each sample
out  images of the same kind; colour spaces in their own units (Lab: L 0..100; YDbDr: Y 0..1, Db and Dr within 4/3)

Brightness b, contrast c and saturation s are linear in the pixel x and in the image's mean colour m. With Y the luma:

    brightness  b x        contrast  c x + (1 - c) Y(m)        saturation  s x + (1 - s) Y(x)        gray  Y(x)

Y(Y(x)) is Y(x), so these operations commute, and all of them together are

    bc s x + bc (1 - s) Y(x) + b (1 - c) Y(m)        with s = 0 for gray

Only an exact hue, which is not linear, divides them into those before it and those after it. The parameters are those
of torchvision's ColorJitter. torchvision clamps to [0, 1] after every step. Here one clamp follows at the end, and one
comes before an exact hue. The results differ if a step in between leaves [0, 1].
"""

from typing import Literal, NamedTuple

import kornia
import numpy as np
import torch
from torch import Tensor

from mvssl.distributed.devices import send_constant
from mvssl.errors import RecipeError
from mvssl.random import Draws

Space = Literal["rgb", "gray", "lab", "ydbdr"]
GRAY = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)  # ITU-R BT.601
LUMA = GRAY.float()[None]
YDBDR = torch.tensor([[0.299, 0.587, 0.114], [-0.450, -0.883, 1.333], [-1.333, 1.116, 0.217]])
RGB_OF_YDBDR = YDBDR.inverse()
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]]).double()
QUARTER_TURN = YIQ.inverse() @ torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]).double() @ YIQ
XYZ = torch.tensor([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
D65 = torch.tensor([0.95047, 1.0, 1.08883])  # white, in XYZ
XYZ_OF_WHITE = XYZ / D65[:, None]  # XYZ as shares of white
CHANNELS = {
    "rgb": {"R": [0], "G": [1], "B": [2]},
    "gray": {"Y": [0]},
    "lab": {"L": [0], "a": [1], "b": [2], "ab": [1, 2]},
    "ydbdr": {"Y": [0], "Db": [1], "Dr": [2], "DbDr": [1, 2]},
}
HUE = 3  # place of the hue among the four operations


class Recolor(NamedTuple):
    """x -> gain x + luma Y(x) + turn K x + mean Y(m), with m the image's mean colour; all float32 [n].

    Y is the luma of three channels; otherwise Y(m) is m, and luma is 0. K turns the chroma plane by a quarter.
    """

    gain: Tensor
    luma: Tensor
    mean: Tensor
    turn: Tensor | None  # for `hue: linear` only


class Jitter(NamedTuple):
    """A batch's colour jitter: `first`, then a rotation of the hue in HSV, then `second`."""

    first: Recolor
    turns: Tensor | None  # float32 [n], in full turns of the colour circle; None: the hue is not rotated in HSV
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
        """Return the composed parameters of every row."""
        u = draws.uniforms(jitter=4, jitter_p=1, order=4, gray=1)
        on, amount, order = u["jitter_p"][0] < self.p, u["jitter"], u["order"]
        low = np.array([max(0.0, 1 - s) for s in self.strengths[:3]])[:, None]
        high = 1 + np.array(self.strengths[:3])[:, None]
        factors = np.where(on, low + (high - low) * amount[:3], 1.0)
        turns = np.where(on, self.strengths[HUE] * (2 * amount[HUE] - 1), 0.0)
        return compose_jitter(factors, turns, order[:HUE] < order[HUE], u["gray"][0] < self.gray_p, self.hue)


def compose_jitter(
    factors: np.ndarray, turns: np.ndarray, early: np.ndarray, gray: np.ndarray, hue: Literal["hsv", "linear"]
) -> Jitter:
    """Compose given parameters.

    factors [3, n]: brightness, contrast, saturation; turns [n]: hue, 1 is the full colour circle; early bool [3, n]:
    which of the three come before the hue; gray bool [n]: gray after all of them.
    """
    exact = (turns != 0) & (hue == "hsv")
    early = early | ~exact
    first = _compose(np.where(early, factors, 1.0), gray & ~exact, turns if hue == "linear" else None)
    second = _compose(np.where(early, 1.0, factors), gray & exact, None)
    return Jitter(first, torch.from_numpy(turns.astype(np.float32)) if exact.any() else None, second)


def _compose(factors: np.ndarray, gray: np.ndarray, turns: np.ndarray | None) -> Recolor:
    """Return brightness, contrast, saturation, a rotation of the chroma plane, and gray as one operation."""
    b, c, s = factors
    chroma = b * c * np.where(gray, 0.0, s)
    gain, turn = chroma, None
    if turns is not None:
        angle = 2 * np.pi * turns
        gain, turn = chroma * np.cos(angle), torch.from_numpy((chroma * np.sin(angle)).astype(np.float32))
    gain, luma, mean = torch.from_numpy(np.stack([gain, b * c - gain, b * (1 - c)]).astype(np.float32))
    return Recolor(gain, luma, mean, turn)


def to_space(x: Tensor, space: Space) -> Tensor:
    """Return RGB images in [0, 1] in `space`; rgb means as stored, with any number of channels."""
    if space == "rgb":
        return x
    if space == "lab":
        return _lab(x)
    return mix_channels(x, LUMA if space == "gray" else YDBDR)


def _lab(x: Tensor) -> Tensor:
    """CIE Lab of sRGB under D65. kornia's function would make the host wait: it builds constants on the device."""
    share = mix_channels(kornia.color.rgb_to_linear_rgb(x), XYZ_OF_WHITE)
    root = torch.where(share > 0.008856, share.clamp(min=0.008856) ** (1 / 3), 7.787 * share + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def mix_channels(x: Tensor, matrix: Tensor) -> Tensor:
    """Return every pixel of x [n, c, h, w] times `matrix` [k, c], a constant on the CPU."""
    return torch.einsum("kc,nchw->nkhw", send_constant(matrix, x.device).to(x.dtype), x)


def from_space(x: Tensor, space: Space) -> Tensor:
    """Return RGB [n, 3, h, w], the inverse of `to_space`, clamped to [0, 1]; gray repeats its channel."""
    if space == "lab":
        return kornia.color.lab_to_rgb(x)
    if space == "ydbdr":
        x = mix_channels(x, RGB_OF_YDBDR)
    return (x.expand(-1, 3, -1, -1) if space == "gray" else x).clamp(0, 1)


def solarize(x: Tensor, threshold: float = 0.5) -> Tensor:
    """Return x in [0, 1] with values of at least `threshold` inverted."""
    return torch.where(x >= threshold, 1 - x, x)
