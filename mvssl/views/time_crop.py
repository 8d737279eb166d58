"""Which stretch of a recording a view shows and what of it is blanked, as a few numbers per sample.

in   ranges, and the draws of a batch's samples
out  a `Span`, float64 on the CPU, which `cut` and `blanked` apply to signals [n, c, t]

A span is relative (shares of the duration), so that sensors of different rates can repeat it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mvssl.distributed.devices import send
from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views.base import Geometry


class Span(NamedTuple):
    """The stretch of time of each sample, and the blanks in it; float64 on the CPU."""

    stretch: Tensor  # [n, 2] start and length, as shares of the column's duration
    blanks: Tensor  # [n, k, 2] start and length, as shares of the stretch

    @classmethod
    def whole(cls, n: int) -> "Span":
        """All of it, nothing blanked."""
        return cls(torch.tensor([0.0, 1.0]).double().expand(n, 2), torch.zeros(n, 0, 2).double())


class Timing(Geometry):
    """Random spans: `crop` [low, high] is the share of the duration that stays, each of `masks` blanks up to `mask`."""

    def __init__(self, *, crop: tuple[float, float] | None = None, mask: float = 0.0, masks: int = 1):
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise RecipeError(f"crop: {list(crop)} is no range of shares; give [low, high] with 0 < low <= high <= 1")
        if not 0 <= mask < 1 or masks < 1:
            raise RecipeError(f"mask: {mask}, masks: {masks}; give a share from 0 to below 1, and at least one")
        self.crop, self.mask, self.masks = crop, mask, masks

    def draw(self, draws: Draws) -> Span:
        """The span of each sample: length, place and blanks uniform."""
        whole = Span.whole(len(draws.position))
        stretch = placed(draws, "crop", 1, *self.crop)[:, 0] if self.crop else whole.stretch
        return Span(stretch, placed(draws, "mask", self.masks, 0, self.mask) if self.mask else whole.blanks)


def placed(draws: Draws, name: str, count: int, low: float, high: float) -> Tensor:
    """`count` intervals in [0, 1] with lengths from `low` to `high`: [n, count, 2], start and length."""
    length, place = draws.uniform(name, count, 2).unbind(-1)
    length = low + (high - low) * length
    return torch.stack([place * (1 - length), length], -1)


def cut(x: Tensor, stretch: Tensor, length: int) -> Tensor:
    """The stretches [n, 2] of signals [n, c, t], resampled to [n, c, length] by the antialiased linear filter.

    The filter is that of `resample.weights`, a triangle of one output sample to either side and at least one input
    sample, but gathered tap by tap: matrices of long recordings would not fit.
    """
    t = x.shape[-1]
    if t == length and bool((stretch == Span.whole(1).stretch).all()):
        return x
    widest = max(1.0, float(stretch[:, 1].max()) * t / length) if len(stretch) else 1.0
    start, share = send(stretch * t, x.device)[:, :, None].unbind(1)  # [n, 1], in samples
    step = share / length
    support = step.clamp(min=1)
    centre = start + step * (torch.arange(length, device=x.device) + 0.5)  # [n, out]
    first = (centre - support - 0.5).floor() + 1
    begin, end = start.floor().clamp(min=0), (start + share).ceil().clamp(max=t)  # the rest has been cut away
    total, weighed = 0.0, torch.zeros(*x.shape[:2], length, device=x.device)
    for tap in range(math.ceil(2 * widest)):
        j = first + tap
        weight = (1 - (j + 0.5 - centre).abs() / support).clamp(min=0)
        weight = torch.where((j >= begin) & (j < end), weight, 0.0).float()
        there = j.clamp(0, t - 1).long()[:, None].expand(-1, x.shape[1], -1)
        weighed = weighed + weight[:, None] * x.gather(2, there)
        total = total + weight
    return weighed / total[:, None]  # pyright: ignore[reportIndexIssue]


def blanked(x: Tensor, blanks: Tensor, dim: int = -1) -> Tensor:
    """x [n, c, ...] with 0 where dimension `dim` lies in one of the intervals `blanks` [n, k, 2]."""
    if not blanks.shape[1]:
        return x
    start, length = send(blanks.float(), x.device)[..., None].unbind(2)  # [n, k, 1]
    size = x.shape[dim]
    place = (torch.arange(size, device=x.device) + 0.5) / size
    blank = ((place >= start) & (place < start + length)).any(1)  # [n, size]
    shape = [len(x)] + [1] * (x.dim() - 1)
    shape[dim] = size
    return x.masked_fill(blank.view(shape), 0.0)
