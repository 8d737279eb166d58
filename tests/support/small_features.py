"""Small random features, encoders and contexts for tests of objectives; a list of samples for tests of views."""

import torch
from torch import nn

from mvssl.data import ArraySpec
from mvssl.encoders import Features, Widths
from mvssl.objectives import Context
from mvssl.random import Draws

WIDTHS = Widths(maps=((6, 7, 7), (8, 5, 5)), vector=12)


def features(n, widths=WIDTHS, dtype=torch.float64):
    """Standard normal features that want a gradient."""
    maps = tuple(torch.randn(n, *size, dtype=dtype, requires_grad=True) for size in widths.maps)
    return Features(maps, torch.randn(n, widths.vector, dtype=dtype, requires_grad=True))


def context(n, step=0, present=None, start=0):
    """Samples start .. start + n - 1 of the run."""
    position = torch.arange(start, start + n)
    return Context(step=step, index=position, draws=Draws(0, position), present=present or {})


class SmallEncoder(nn.Module):
    """[n, 3, 9, 9] -> maps [n, 6, 7, 7] and [n, 8, 5, 5], vector [n, 12]; with batch norm."""

    widths = WIDTHS

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Tanh())
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3), nn.Tanh())
        self.last = nn.Linear(8, 12)

    def forward(self, x):
        shallow = self.first(x)
        deep = self.second(shallow)
        return Features((shallow, deep), self.last(deep.mean(dim=(2, 3))))


class SampleList(list):
    """Samples, dicts of arrays, with the `specs` of a source."""

    @property
    def specs(self):
        return {name: ArraySpec(array.shape, array.dtype) for name, array in self[-1].items()}
