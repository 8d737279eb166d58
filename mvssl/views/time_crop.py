"""Crops and masks in time, as a few numbers per sample.

in   ranges, and the draws of a batch's samples
out  a `TimeCrop`, which `crop_time` and `mask_intervals` apply to signals [n, c, t]

A crop is relative (shares of the duration), so that sensors of different rates can repeat it.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mvssl.errors import RecipeError
from mvssl.random import Draws
from mvssl.views.base import Geometry


class TimeCrop(NamedTuple):
    """The interval of time that each sample shows, and the masks in it; tensors are float64."""

    interval: Tensor  # [n, 2] start and length, as shares of the column's duration
    masks: Tensor  # [n, k, 2] start and length, as shares of the interval
    whole: bool = False  # every interval is the full duration
    longest: float = 1.0  # no interval is longer

    @classmethod
    def full(cls, n: int, device: torch.device | str = "cpu") -> "TimeCrop":
        """Return crops that keep everything, without masks."""
        interval = torch.arange(2, device=device).double().expand(n, 2)
        return cls(interval, torch.zeros(n, 0, 2, device=device).double(), whole=True)


class TimeGeometry(Geometry):
    """Random crops and masks: `crop` [low, high] is the share of the duration to keep, `mask` the longest mask."""

    def __init__(self, *, crop: tuple[float, float] | None = None, mask: float = 0.0, masks: int = 1):
        if crop is not None and not 0 < crop[0] <= crop[1] <= 1:
            raise RecipeError(f"crop: {list(crop)} is no range of shares; give [low, high] with 0 < low <= high <= 1")
        if not 0 <= mask < 1 or masks < 1:
            raise RecipeError(f"mask: {mask}, masks: {masks}; give a share from 0 to below 1, and at least one")
        self.crop, self.mask, self.masks = crop, mask, masks

    def draw(self, draws: Draws) -> TimeCrop:
        """Return the crop of each sample; lengths and places are uniform."""
        crop = TimeCrop.full(len(draws.position))
        if self.crop:
            interval = draw_intervals(draws, "crop", 1, *self.crop)[:, 0]
            longest = float(interval[:, 1].max()) if len(interval) else 1.0
            crop = crop._replace(interval=interval, whole=False, longest=longest)
        return crop._replace(masks=draw_intervals(draws, "mask", self.masks, 0, self.mask)) if self.mask else crop


def draw_intervals(draws: Draws, name: str, count: int, low: float, high: float) -> Tensor:
    """Return `count` intervals in [0, 1] with lengths from `low` to `high`: [n, count, 2], start and length."""
    u = draws.uniforms(**{name: 2 * count})[name]
    length, place = low + (high - low) * u[0::2], u[1::2]
    return torch.from_numpy(np.stack([place * (1 - length), length], -1).swapaxes(0, 1).copy())


def crop_time(x: Tensor, crop: TimeCrop, length: int) -> Tensor:
    """Return the intervals of signals [n, c, t], resampled to [n, c, length] by the antialiased linear filter.

    The filter is the triangle of `image_resampling.linear_filter_matrix`: one output sample to either side, at least
    one input sample. It is gathered tap by tap, because matrices of long recordings would not fit into memory.
    """
    t = x.shape[-1]
    if t == length and crop.whole:
        return x
    widest = max(1.0, crop.longest * t / length)
    start, share = (crop.interval * t)[:, :, None].unbind(1)  # [n, 1], in samples
    step = share / length
    support = step.clamp(min=1)
    centre = start + step * (torch.arange(length, device=x.device) + 0.5)  # [n, out]
    first = (centre - support - 0.5).floor() + 1
    begin, end = start.floor().clamp(min=0), (start + share).ceil().clamp(max=t)  # samples outside have no weight
    total, weighted = 0.0, torch.zeros(*x.shape[:2], length, device=x.device)
    for tap in range(math.ceil(2 * widest)):
        j = first + tap
        weight = (1 - (j + 0.5 - centre).abs() / support).clamp(min=0)
        weight = torch.where((j >= begin) & (j < end), weight, 0.0).float()
        index = j.clamp(0, t - 1).long()[:, None].expand(-1, x.shape[1], -1)
        weighted = weighted + weight[:, None] * x.gather(2, index)
        total = total + weight
    return weighted / total[:, None]  # pyright: ignore[reportIndexIssue]


def mask_intervals(x: Tensor, intervals: Tensor, dim: int = -1) -> Tensor:
    """Return x [n, c, ...] with 0 where dimension `dim` lies in one of the intervals [n, k, 2]."""
    if not intervals.shape[1]:
        return x
    start, length = intervals.float()[..., None].unbind(2)  # [n, k, 1]
    size = x.shape[dim]
    place = (torch.arange(size, device=x.device) + 0.5) / size
    masked = ((place >= start) & (place < start + length)).any(1)  # [n, size]
    shape = [len(x)] + [1] * (x.dim() - 1)
    shape[dim] = size
    return x.masked_fill(masked.view(shape), 0.0)
