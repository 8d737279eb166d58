"""Reductions: what is taken from the scores of negative pairs, tile by tile, and its derivative by the scores.

in   the scores of one tile after another, those with own pairs first
out  a sum, the log-sums of rows and columns, or how many negatives outscore the positive
"""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from mvssl.objectives.pairs import Function
from mvssl.objectives.scoring.tiles import Tile


class Reduction(ABC):
    """What is taken from the negative pairs: one tensor, gathered tile by tile, and its derivative by the scores."""

    differentiable = True

    @abstractmethod
    def begin(self, anchors: Tensor, candidates: Tensor) -> None:
        """Prepare for scores of anchors [rows, d] with candidates [columns, d]."""

    @abstractmethod
    def add(self, scores: Tensor, tile: Tile) -> None:
        """Take in the scores of a tile, which must not be changed. Tiles with own pairs come first."""

    @abstractmethod
    def end(self) -> Tensor:
        """Return the result."""

    def slope(self, scores: Tensor, tile: Tile, result: Tensor, grad: Tensor) -> Tensor:
        """Return the derivative of <grad, result> by the scores, in new memory. Pairs that are not negative may have
        any value."""
        raise NotImplementedError


class SumNegatives(Reduction):
    """The sum of f(T), 0-d."""

    def __init__(self, f: Function):
        self.f = f

    def begin(self, anchors: Tensor, candidates: Tensor) -> None:
        self.total = anchors.new_zeros(())

    def add(self, scores: Tensor, tile: Tile) -> None:
        self.total += tile.fill(_apply(self.f, scores), 0).sum()

    def end(self) -> Tensor:
        return self.total

    def slope(self, scores: Tensor, tile: Tile, result: Tensor, grad: Tensor) -> Tensor:
        return _differentiate(self.f, scores, lambda y: grad.expand_as(y))


class LogSumNegatives(Reduction):
    """The log of the sum of e^f(T) over the negatives of each row, [N * k], or of each column, [n * l]; -inf without
    one."""

    def __init__(self, f: Function = lambda t: t, *, of_columns: bool = False):
        self.f, self.of_columns = f, of_columns
        self.along = 0 if of_columns else 1  # the dimension of a tile that is summed

    def begin(self, anchors: Tensor, candidates: Tensor) -> None:
        self.sum = anchors.new_zeros(len(candidates if self.of_columns else anchors))
        self.top = torch.full_like(self.sum, -torch.inf)

    def add(self, scores: Tensor, tile: Tile) -> None:
        y = tile.fill(_apply(self.f, scores), -torch.inf)
        top, sum = self.top[self._part(tile)], self.sum[self._part(tile)]
        before = top.clone()
        shift = torch.maximum(before, y.amax(self.along), out=top).clamp(min=torch.finfo(y.dtype).min)
        terms = y.sub_(shift.unsqueeze(self.along)).exp_().sum(self.along)
        sum.mul_(before.sub_(shift).exp_()).add_(terms)

    def end(self) -> Tensor:
        return self.sum.log() + self.top

    def slope(self, scores: Tensor, tile: Tile, result: Tensor, grad: Tensor) -> Tensor:
        part, along = self._part(tile), self.along

        def share(y: Tensor) -> Tensor:
            # where the result is -inf there is no negative pair: its infinite shares become 0
            return tile.fill((y - result[part].unsqueeze(along)).exp_(), 0).mul_(grad[part].unsqueeze(along))

        return _differentiate(self.f, scores, share)

    def _part(self, tile: Tile) -> slice:
        return tile.columns if self.of_columns else tile.rows


class LogSumBothSides(Reduction):
    """The logs of the sums of e^T over the negatives of each row, then of each column, [N + n]; -inf without one.

    No score may exceed LARGEST in size: then no exponential and no sum leaves the range of float32, so one exponential
    serves both sides and needs no maximum.
    """

    LARGEST = 60.0

    def begin(self, anchors: Tensor, candidates: Tensor) -> None:
        self.rows, self.columns = anchors.new_zeros(len(anchors)), anchors.new_zeros(len(candidates))

    def add(self, scores: Tensor, tile: Tile) -> None:
        e = tile.fill(scores.exp(), 0)
        self.rows[tile.rows] += e.sum(1)
        self.columns[tile.columns] += e.sum(0)

    def end(self) -> Tensor:
        return torch.cat([self.rows, self.columns]).log()

    def slope(self, scores: Tensor, tile: Tile, result: Tensor, grad: Tensor) -> Tensor:
        rows, columns = (grad * (-result).exp()).split([len(result) - self.columns.numel(), self.columns.numel()])
        return torch.add(rows[tile.rows, None], columns[tile.columns]).mul_(scores.exp())


class Balance(Reduction):
    """For each column the number of negatives that score higher than its own pair, less the number of lower ones,
    [n * l]; without gradient, for k = 1."""

    differentiable = False

    def begin(self, anchors: Tensor, candidates: Tensor) -> None:
        self.positive, self.balance = anchors.new_zeros(2, len(candidates)).unbind()

    def add(self, scores: Tensor, tile: Tile) -> None:
        if tile.has_own:
            self.positive.view(-1, tile.shape[3])[tile.own] = tile.own_pairs(scores)[..., 0]
        self.balance[tile.columns] += tile.fill((scores - self.positive[tile.columns]).sign_(), 0).sum(0)

    def end(self) -> Tensor:
        return self.balance


def _apply(f: Function, scores: Tensor) -> Tensor:
    """f(scores) in new memory."""
    y = f(scores)
    return y.clone() if y is scores else y


def _differentiate(f: Function, scores: Tensor, slope: Function) -> Tensor:
    """Derivative by the scores, if `slope` is that by f(scores)."""
    with torch.enable_grad():
        x = scores.detach().requires_grad_()
        y = f(x)
    (derivative,) = torch.autograd.grad(y, x, slope(y.detach()))
    return derivative.contiguous()
