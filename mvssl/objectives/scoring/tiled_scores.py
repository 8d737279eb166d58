"""Scores of all anchors with all candidates, reduced tile by tile, so that the full matrix is never held.

in   anchors [N * k, d] of all processes, k rows for each sample; candidates [n, l, d] of this process; which are absent
out  scores T = scale * <anchor, candidate> of the own pairs, [n, l, k], and what a `Reduction` makes of the negatives

A dense loss passes some ten times over a matrix [N * k, n * l] in main memory. A tile stays in the cache of the
processor while everything is taken from it. The backward pass computes each tile again: four matrix products
in place of three, and no memory that grows with N * n. Scores that take no more memory than the embeddings are kept.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mvssl.objectives.scoring.masks import Present
from mvssl.objectives.scoring.reductions import Reduction
from mvssl.objectives.scoring.tiles import Tile, cut_tiles

KEPT = 2**20  # so many scores are kept in any case: 4 MiB


def reduce_scores(
    anchors: Tensor, candidates: Tensor, present: Present, reductions: Sequence[Reduction], *, scale: float = 1.0
) -> tuple[Tensor, list[Tensor]]:
    """Return the scores of the own pairs, [n, l, k], and the result of each reduction, of this process.

    `anchors` are those of all processes, [N, d], or [N, k, d] with k for each sample; `candidates` [n, l, d] are of
    this process. The scores of own pairs that lack a row are arbitrary.
    """
    per_anchor = anchors.shape[1] if anchors.dim() == 3 else 1
    tiles = cut_tiles(anchors, candidates, per_anchor, present)
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
        memory = anchors.new_empty(0 if keep else max(tile.size for tile in tiles))
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
        memory = anchors.new_empty(0 if kept else max(tile.size for tile in ctx.tiles))
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
    memory = anchors.new_empty(tile.size) if memory is None else memory[: tile.size]
    a, c = anchors[tile.rows], candidates[tile.columns]
    return memory.view(len(a), len(c)).addmm_(a, c.T, beta=0, alpha=scale)
