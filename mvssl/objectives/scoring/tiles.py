"""Scores of all anchors with all candidates, reduced tile by tile, so that the whole matrix is never held.

in   anchors [N * k, d] of all processes, k rows for each sample; candidates [n, l, d] of this process; which are absent
out  scores T = scale * <anchor, candidate> of the own pairs, [n, l, k], and what a `Reduction` makes of the negatives

A dense loss passes some ten times over a matrix [N * k, n * l] in main memory. A tile stays in the cache of the
processor while everything is taken from it. The backward pass computes each tile again: four matrix products
in place of three, and no memory that grows with N * n. Scores that take no more memory than the embeddings are kept.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mvssl.distributed import collectives
from mvssl.objectives.pairs import Function
from mvssl.objectives.scoring.masks import Present

# Elements of a tile. On CPUs a tile and two temporaries of its size fit into 2 MiB of second-level cache, 0.5 MiB each.
CPU_TILE, GPU_TILE = 2**17, 2**20
KEPT = 2**20  # so many scores are kept in any case: 4 MiB


@dataclass(frozen=True)
class Tile:
    """A block of scores [rows, columns], for whole anchors and whole candidate samples.

    `shape` is (anchors, k, samples, l). `own` samples (a slice of the n) have their own anchor in the block, at
    `diagonal`. Absent rows and columns are bool, [rows, 1] and [columns], or None.
    """

    rows: slice
    columns: slice
    shape: tuple[int, int, int, int]
    own: slice
    diagonal: int
    absent_rows: Tensor | None
    absent_columns: Tensor | None

    @property
    def has_own(self) -> bool:
        """Whether the block holds pairs of one sample."""
        return self.own.start < self.own.stop

    def own_pairs(self, x: Tensor) -> Tensor:
        """Return the pairs of one sample as a view of x, [own, l, k]."""
        return x.view(self.shape).diagonal(self.diagonal, 0, 2).permute(2, 1, 0)

    def fill(self, x: Tensor, value: float) -> Tensor:
        """Set all pairs of x that are not negative pairs to `value`, in place."""
        if self.has_own:
            self.own_pairs(x).fill_(value)
        for absent in (self.absent_rows, self.absent_columns):
            if absent is not None:
                x.masked_fill_(absent, value)
        return x


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


class OutscoredShare(Reduction):
    """For each column the share of negatives that score higher than its own pair, [n * l]; without gradient, for k = 1.

    Equal scores count as half. The value is NaN without a negative.
    """

    differentiable = False

    def begin(self, anchors: Tensor, candidates: Tensor) -> None:
        self.positive, self.balance, self.count = anchors.new_zeros(3, len(candidates)).unbind()

    def add(self, scores: Tensor, tile: Tile) -> None:
        if tile.has_own:
            self.positive.view(-1, tile.shape[3])[tile.own] = tile.own_pairs(scores)[..., 0]
        sign = tile.fill((scores - self.positive[tile.columns]).sign_(), 0)
        self.balance[tile.columns] += sign.sum(0)
        self.count[tile.columns] += tile.fill(torch.ones_like(sign), 0).sum(0)

    def end(self) -> Tensor:
        return (1 + self.balance / self.count) / 2


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


def reduce_scores(
    anchors: Tensor, candidates: Tensor, present: Present, reductions: Sequence[Reduction], *, scale: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """Return the scores of the own pairs, [n, l, k], and the result of each reduction, of this process.

    `anchors` are those of all processes, [N, d], or [N, k, d] with k for each sample; `candidates` [n, l, d] are of
    this process. The scores of own pairs that lack a row are arbitrary.
    """
    per_anchor = anchors.shape[1] if anchors.dim() == 3 else 1
    tiles = _cut(anchors, candidates, per_anchor, present)
    rows, columns = anchors.reshape(-1, anchors.shape[-1]), candidates.flatten(0, 1)
    own, *results = _Reduce.apply(rows, columns, (*candidates.shape[:2], per_anchor), scale, tiles, reductions)  # pyright: ignore[reportGeneralTypeIssues]
    return own, results


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        anchors: Tensor,
        candidates: Tensor,
        shape: tuple[int, int, int],
        scale: float,
        tiles: list[Tile],
        reductions: Sequence[Reduction],
    ) -> tuple[Tensor, ...]:
        n, places, k = shape
        embeddings = anchors.numel() + candidates.numel()
        keep = len(anchors) * len(candidates) <= max(KEPT, embeddings) and any(ctx.needs_input_grad[:2])
        own, kept = anchors.new_empty(n, places, k), []
        for reduction in reductions:
            reduction.begin(anchors, candidates)
        memory = anchors.new_empty(0 if keep else max(map(_size, tiles)))
        for tile in tiles:
            scores = _score(anchors, candidates, scale, tile, None if keep else memory)
            if tile.has_own:
                own[tile.own] = tile.own_pairs(scores)
            for reduction in reductions:
                reduction.add(scores, tile)
            if keep:
                kept.append(scores)
        results = [reduction.end() for reduction in reductions]
        ctx.scale, ctx.tiles, ctx.reductions = scale, tiles, reductions
        ctx.save_for_backward(anchors, candidates, *results, *kept)
        ctx.set_materialize_grads(False)
        pairs = zip(reductions, results, strict=True)
        ctx.mark_non_differentiable(*(result for reduction, result in pairs if not reduction.differentiable))
        return own, *results

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_own: Tensor | None, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        anchors, candidates, *saved = ctx.saved_tensors
        results, kept = saved[: len(grads)], saved[len(grads) :]
        wanted = [item for item in zip(ctx.reductions, results, grads, strict=True) if item[2] is not None]
        if not wanted and grad_own is None:
            return (None,) * 6
        by_anchors, by_candidates = torch.empty_like(anchors), torch.empty_like(candidates)
        begun = set()
        memory = anchors.new_empty(0 if kept else max(map(_size, ctx.tiles)))
        for number, tile in enumerate(ctx.tiles):
            scores = kept[number] if kept else _score(anchors, candidates, ctx.scale, tile, memory)
            slope = None
            for reduction, result, grad in wanted:
                part = reduction.slope(scores, tile, result, grad)
                slope = part if slope is None else slope.add_(part)
            slope = torch.zeros_like(scores) if slope is None else tile.fill(slope, 0)
            if tile.has_own and grad_own is not None:
                tile.own_pairs(slope).copy_(grad_own[tile.own])
            # beta 0 writes what the memory is then: no pass to set it to 0
            for total, part, one, other in (
                (by_anchors, tile.rows, slope, candidates[tile.columns]),
                (by_candidates, tile.columns, slope.T, anchors[tile.rows]),
            ):
                total[part].addmm_(one, other, beta=float((id(total), part.start) in begun), alpha=ctx.scale)
                begun.add((id(total), part.start))
        return by_anchors, by_candidates, None, None, None, None


def _score(anchors: Tensor, candidates: Tensor, scale: float, tile: Tile, memory: Tensor | None) -> Tensor:
    """The scores of a tile, in `memory` if given."""
    memory = anchors.new_empty(_size(tile)) if memory is None else memory[: _size(tile)]
    a, c = anchors[tile.rows], candidates[tile.columns]
    return memory.view(len(a), len(c)).addmm_(a, c.T, beta=0, alpha=scale)


def _size(tile: Tile) -> int:
    return (tile.rows.stop - tile.rows.start) * (tile.columns.stop - tile.columns.start)


def _cut(anchors: Tensor, candidates: Tensor, k: int, present: Present) -> list[Tile]:
    """Return the tiles, those with own pairs first. All own pairs of a tile's columns are in one tile."""
    total, (n, places, _) = len(anchors), candidates.shape
    first = collectives.own_rows(n).start
    rows, columns = (None if rows is None else ~rows for rows in present)
    rows = None if rows is None else rows.repeat_interleave(k, output_size=total * k)[:, None]
    columns = None if columns is None else columns.repeat_interleave(places, output_size=n * places)
    size = choose_size(anchors.device, total * k * n * places)
    high = _round_to_power(2 ** (size.bit_length() // 2) // k)
    wide = min(
        high, _round_to_power(size // (min(high, total) * k * places))
    )  # both are powers of 2: wide divides high
    tops = [0] if total <= high else sorted({0, *range(first % high, total, high)})
    tiles = []
    for top, bottom in itertools.pairwise([*tops, total]):
        for left in range(0, n, wide):
            right = min(left + wide, n)
            r, c = slice(top * k, bottom * k), slice(left * places, right * places)
            tiles.append(
                Tile(
                    rows=r,
                    columns=c,
                    shape=(bottom - top, k, right - left, places),
                    own=slice(max(left, top - first), min(right, bottom - first)),
                    diagonal=top - first - left,
                    absent_rows=None if rows is None else rows[r],
                    absent_columns=None if columns is None else columns[c],
                )
            )
    return sorted(tiles, key=lambda tile: not tile.has_own)


def choose_size(device: torch.device, scores: int) -> int:
    """Return how many of so many scores a tile holds."""
    if device.type == "cpu":
        return CPU_TILE
    # a GPU computes a few large tiles faster, but they must not need much memory
    return min(4 * GPU_TILE, max(GPU_TILE, scores // 64))


def _round_to_power(x: int) -> int:
    """The largest power of 2 up to x, at least 1."""
    return 1 << (max(x, 1).bit_length() - 1)
