"""What an encoder returns: maps and a vector of each sample, and their sizes."""

from typing import NamedTuple

import torch
from torch import Tensor


class Features(NamedTuple):
    """Features of a batch. An encoder of flat vectors has no maps."""

    maps: tuple[Tensor, ...]  # shallow to deep, each [n, c, h, w]
    vector: Tensor  # [n, d]


class Widths(NamedTuple):
    """The sizes of `Features`, without the batch."""

    maps: tuple[tuple[int, int, int], ...]  # (c, h, w) of each map
    vector: int
    base: str | None = None  # the view's name in the recipe; None: derived from the drawn name


def as_image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a view's shape as (c, h, w): a signal (c, t) is one pixel high, a vector (d,) has one pixel."""
    channels, *sides = shape
    height, width = [1, 1, *sides][-2:]
    return channels, height, width


def with_view(features: Features, view: Tensor) -> Features:
    """Return the features with the view itself, [n, c, h, w], as a new first map."""
    return Features((view.reshape(len(view), *as_image(tuple(view.shape[1:]))), *features.maps), features.vector)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32. float32 and float64 are not changed."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
