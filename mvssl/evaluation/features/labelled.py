"""Features in the form that probes read: flat, standardised by train, and views joined.

in   maps [n, c, h, w] and vectors [n, d] of encoders, or clean views
out  features [n, d] float32 with labels int64 [n] or multi-hot [n, c]
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LIMIT = 8192  # most numbers of a sample; larger maps are average-pooled
BLOCK = 2**26  # numbers copied at once when some rows of a matrix are read
CELLS = 2**22  # numbers copied at once when the lengths of rows are computed: 16 MB
EPSILON = 1e-6  # times the mean; a feature that varies less varies only by rounding, and is not scaled
SAFE = 1e-15, 1e15  # the sum of squares of numbers in this range stays within float32


class Labelled(NamedTuple):
    """Features [n, d] with labels int64 [n] or multi-hot float32 [n, c]."""

    features: Tensor
    labels: Tensor


class Standardiser(NamedTuple):
    """Mean and inverse standard deviation [d] of a training set. Call it to standardise [n, d]."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor, rows: Tensor | None = None) -> "Standardiser":
        """Return the statistics of [n, d], or of some of its rows, which are never copied all at once.

        A constant feature keeps its scale. Features may have any magnitude, such as 1e-20 or 1e20.
        """
        if rows is None:
            deviation, mean = _deviation_and_mean(features)
        else:
            blocks = features.split(max(1, BLOCK // len(rows)), dim=1)
            moments = [_deviation_and_mean(block[rows]) for block in blocks]
            deviation, mean = (torch.cat(parts) for parts in zip(*moments, strict=True))
        varies = deviation > (EPSILON * mean.abs()).clamp(min=torch.finfo(deviation.dtype).tiny)
        return cls(mean, torch.where(varies, 1 / deviation, 1.0))

    def __call__(self, features: Tensor) -> Tensor:
        return (features - self.mean) * self.scale


def _deviation_and_mean(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return both [d] of [n, d]. Features whose squares overflow or underflow float32 are scaled first."""
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    odd = ~((deviation > SAFE[0]) & (deviation < SAFE[1]) & (mean.abs() < SAFE[1]))
    for columns in odd.nonzero()[:, 0].split(max(1, BLOCK // max(1, len(features)))) if odd.any() else ():
        part = features[:, columns]
        size = _largest(part, 0)
        size = torch.where(size > 0, size, 1.0)
        scaled = torch.std_mean(part / size, dim=0, correction=0)
        deviation[columns], mean[columns] = size * scaled[0], size * scaled[1]
    return deviation, mean


def _largest(features: Tensor, dim: int) -> Tensor:
    """Return the largest absolute value along `dim`, without a copy."""
    low, high = torch.aminmax(features, dim=dim)
    return torch.maximum(-low, high)


def nonzero_lengths(features: Tensor) -> Tensor:
    """Return the Euclidean length of each row, [n, d] -> [n]. It is 1 for a row of zeros, to divide by it."""
    parts = [_lengths(part) for part in features.split(max(1, CELLS // max(1, features.shape[1])))]
    return torch.cat(parts) if parts else features.new_zeros(0)


def _lengths(features: Tensor) -> Tensor:
    lengths = features.norm(dim=1)
    odd = (lengths < SAFE[0]) | (lengths > SAFE[1])
    if odd.any():
        # scaled by a power of two near the largest number, so that squares neither overflow nor vanish
        rows = features[odd]
        largest = _largest(rows, 1)
        exponent = torch.frexp(largest).exponent.clamp(-120, 120)
        exact = torch.ldexp(torch.ldexp(rows, -exponent[:, None]).norm(dim=1), exponent)
        lengths[odd] = torch.where(largest > 0, exact, 1.0)
    return lengths


def unit_rows(features: Tensor) -> Tensor:
    """Return [n, d] with each row scaled to length 1; rows of zeros stay zeros."""
    return features / nonzero_lengths(features)[:, None]


def chunks(features: Tensor, rows: Tensor | None = None) -> Iterator[Tensor]:
    """Yield [n, d], or some of its rows, 4,096 rows at a time."""
    if rows is None:
        yield from features.split(4096)
    else:
        yield from (features[part] for part in rows.split(4096))


def draw_rows(n: int, most: int, seed: int) -> Tensor:
    """Return row numbers of n samples, int64: all in order, or `most` random ones if there are more."""
    return torch.arange(n) if n <= most else torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:most]


def count_classes(labels: Tensor) -> int:
    """Return the number of classes: the width of multi-hot labels, else the largest class number plus 1."""
    return labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1


def one_hot(labels: Tensor, width: int) -> Tensor:
    """Return labels as float32 [n, width]. Multi-hot labels do not change."""
    if labels.ndim == 2:
        return labels.float()
    return torch.zeros(len(labels), width, device=labels.device).scatter_(1, labels[:, None], 1.0)


def pooled_shape(shape: tuple[int, ...], limit: int = LIMIT) -> tuple[int, ...]:
    """Return the shape (c, ...) that `flatten` pools to. A shape of at most `limit` numbers does not change."""
    if math.prod(shape) <= limit or len(shape) == 1:
        return shape
    c, *sides = shape
    shrink = (limit / math.prod(shape)) ** (1 / len(sides))
    return c, *(max(1, int(side * shrink + 1e-9)) for side in sides)


def flatten(x: Tensor, limit: int = LIMIT) -> Tensor:
    """Return [n, c, ...] as [n, d]. If d would exceed `limit`, the last dimensions are average-pooled first."""
    to = pooled_shape(tuple(x.shape[1:]), limit)
    if to != tuple(x.shape[1:]):
        x = F.adaptive_avg_pool1d(x, to[1]) if len(to) == 2 else F.adaptive_avg_pool2d(x, (to[1], to[2]))
    return x.flatten(1)


def join_views(train: dict[str, Tensor], test: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return train and test with all views joined, [n, sum of d]. Each view is standardised by its train features."""
    standards = {view: Standardiser.of(features) for view, features in train.items()}
    joined = [torch.cat([standards[v](x) for v, x in split.items()], dim=1) for split in (train, test)]
    return joined[0], joined[1]
