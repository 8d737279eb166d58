"""Colour jitter applied to images: a matrix on each pixel, a rotation of the hue, and a second matrix.

in   images [n, c, h, w] and a `Jitter`
out  images of the same shape

The hue is rotated without HSV. Let r, g, b be a pixel's channels, t the largest, m the smallest, and d in [0, 1] an
angle in sixths of the colour circle. As a function of the hue, a channel is a trapezoid between m and t with slopes one
sixth wide. Moved by d, the trapezoid is

    r' = clamp(r - g + clamp(g, b - e, max(b, m + e)), m, t)        with e = (1 - d) (t - m)

g' and b' follow with the channels exchanged in a circle. Any other angle is reached by matrices: an exchange of all
three channels in a circle rotates by two sixths, and exchanging two of them reverses the direction. These exchanges are
part of the matrices before and after, so they cost nothing.
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.data.drawn import take_rows
from mvssl.views.images.color import GRAY, QUARTER_TURN, Jitter, Recolor

_CIRCLE = (0, 1, 2, 0, 1)  # rotation reads each channel beside the next two


class Mix(NamedTuple):
    """x -> pixel x + mean m for every pixel x of an image with mean colour m.

    Both are [n, k, 3] for images of three channels; else both are factors [n, 1, 1] that all channels share.
    """

    pixel: Tensor
    mean: Tensor

    def times(self, unit: float) -> "Mix":
        """Return the same for images that are multiplied by `unit` first."""
        return Mix(unit * self.pixel, unit * self.mean)


class JitterSteps(NamedTuple):
    """A batch's colour jitter as it is applied. If the hue is never rotated in HSV, `first` is all of it."""

    first: Mix
    reach: Tensor | None  # [n, 1, 1], 1 - d; None: no image is rotated
    second: Mix | None

    def take(self, rows: slice) -> "JitterSteps":
        """Return the steps of some images; on a CPU without the rotation if none of them is rotated."""
        part = take_rows(self, rows)
        if part.reach is None or part.reach.device.type != "cpu" or (part.reach < 1).any():
            return part
        return part._replace(reach=None)


class _Constants(NamedTuple):
    same: Tensor  # [3, 3]
    gray: Tensor  # [3]
    quarter: Tensor  # [3, 3]
    before: Tensor  # [3, 2, 5, 3], exchanges before a rotation by 0, 2 or 4 sixths, and forwards or backwards
    after: Tensor  # [2, 3, 3], exchanges after it


@functools.lru_cache
def _constants(device: torch.device) -> _Constants:
    same, planes = torch.eye(3), torch.tensor(_CIRCLE)
    before = torch.stack([same[(way * planes - pairs) % 3] for pairs in range(3) for way in (1, -1)])
    after = torch.stack([same[(way * planes[:3]) % 3] for way in (1, -1)])
    tensors = same, GRAY.float(), QUARTER_TURN.float(), before.view(3, 2, len(_CIRCLE), 3), after
    return _Constants(*(tensor.to(device) for tensor in tensors))


def plan_jitter(drawn: Jitter, channels: int, unit: float = 1.0) -> JitterSteps:
    """Return the matrices of a batch's jitter for images of `channels` channels; `drawn` is on the images' device.

    The images are multiplied by `unit` first, for bytes 1 / 255.
    """
    first, device = drawn.first, drawn.first.gain.device
    if channels != 3:
        return JitterSteps(Mix(first.gain[:, None, None], first.mean[:, None, None]).times(unit), None, None)
    constants = _constants(device)
    if drawn.turns is None:
        return JitterSteps(_build_mix(first, constants.same, constants.gray).times(unit), None, None)
    sixths = 6 * drawn.turns
    pairs = (sixths / 2).round()
    rest = sixths - 2 * pairs
    backwards = (rest < 0).long()
    before, after = constants.before[pairs.remainder(3).long(), backwards], constants.after[backwards]
    return JitterSteps(
        _build_mix(first, before, constants.gray).times(unit),
        1 - rest.abs()[:, None, None],
        _build_mix(drawn.second, after, constants.gray @ after),
    )


def _build_mix(recolor: Recolor, exchange: Tensor, luma: Tensor) -> Mix:
    """Return matrices [n, k, 3]; `exchange` [k, 3] or [n, k, 3], `luma` [3] or [n, 3]: the weights of the channels."""
    gain, of_luma, of_mean = (number[:, None, None] for number in recolor[:3])
    luma = luma[..., None, :].expand(*exchange.shape)
    pixel = gain * exchange + of_luma * luma
    if recolor.turn is not None:
        pixel = pixel + recolor.turn[:, None, None] * _constants(pixel.device).quarter
    return Mix(pixel, of_mean * luma)


def apply_jitter(x: Tensor, steps: JitterSteps, clamp: bool = True) -> Tensor:
    """Return jittered images [n, c, h, w]; with `clamp` they lie in [0, 1], and so does the input of the rotation."""
    n, c, h, w = x.shape
    x = mix_pixels(x.reshape(n, c, h * w), steps.first)
    if steps.second is not None:
        x = x.clamp_(0, 1) if clamp else x
        x = mix_pixels(x[:, :3] if steps.reach is None else rotate_planes(x, steps.reach), steps.second)
    return (x.clamp_(0, 1) if clamp else x).view(n, c, h, w)


def mix_pixels(x: Tensor, mix: Mix) -> Tensor:
    """Return [n, k, pixels] of images [n, c, pixels]."""
    mean = x.mean(2, keepdim=True)
    if mix.pixel.shape[2] != x.shape[1]:
        return (x * mix.pixel).add_(mix.mean * mean)
    return torch.baddbmm(mix.mean @ mean, mix.pixel, x)


def rotate_planes(x: Tensor, reach: Tensor) -> Tensor:
    """Rotate the hue of x [n, 5, pixels], channels in the order 0 1 2 0 1, by 1 - `reach` [n, 1, 1] sixths."""
    here, ahead, behind = x[:, 0:3], x[:, 1:4], x[:, 2:5]
    top = torch.maximum(x[:, 0:1], x[:, 1:2])
    bottom = torch.minimum(x[:, 0:1], x[:, 1:2])
    torch.maximum(top, x[:, 2:3], out=top)
    torch.minimum(bottom, x[:, 2:3], out=bottom)
    edge = (top - bottom).mul_(reach)
    y = behind - edge
    torch.clamp(ahead, y, torch.maximum(behind, edge.add_(bottom)), out=y)  # in place: less to hold in the cache
    return torch.clamp(y.add_(here).sub_(ahead), bottom, top, out=y)
