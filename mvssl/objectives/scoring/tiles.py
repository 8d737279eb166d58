"""Tiles: blocks of the matrix of scores of all anchors with the candidates of this process.

in   the sizes of both, and which rows are present
out  tiles, small enough to stay in the cache of the processor while everything is taken from them
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from mvssl.distributed import collectives
from mvssl.objectives.scoring.masks import Present

# Elements of a tile. On CPUs a tile and six temporaries, 256 KiB each, fit into 2 MiB of second-level cache. Twice the
# size was 6 % faster there, half the size 10 % slower. A GPU needs larger tiles to be busy.
CPU_TILE, GPU_TILE = 2**16, 2**20


@dataclass(frozen=True)
class Tile:
    """A block of scores [rows, columns], for complete anchors and candidate samples.

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
    def size(self) -> int:
        """Number of scores in the block."""
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)

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


def cut_tiles(anchors: Tensor, candidates: Tensor, k: int, present: Present) -> list[Tile]:
    """Return the tiles of anchors [N, ...], k rows each, and candidates [n, l, d].

    Those with own pairs come first. All own pairs of a tile's columns are in one tile.
    """
    total, (n, places, _) = len(anchors), candidates.shape
    first = collectives.own_rows(n).start
    rows, columns = (None if rows is None else ~rows for rows in present)
    rows = None if rows is None else rows.repeat_interleave(k, output_size=total * k)[:, None]
    columns = None if columns is None else columns.repeat_interleave(places, output_size=n * places)
    size = choose_size(anchors.device, total * k * n * places)
    high = _round_to_power(2 ** (size.bit_length() // 2) // k)
    wide = min(high, _round_to_power(size // (min(high, total) * k * places)))  # a power of 2 as well: divides high
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
