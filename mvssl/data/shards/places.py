"""Where one column of each sample is, in few bytes a sample.

in   indexes of shards, and the fields that may hold the column, best first
out  `ColumnPlaces`: for each sample the place, size and field of the column, or that the sample lacks it
"""

from typing import NamedTuple

import numpy as np

from mvssl.data.shards.index import Index
from mvssl.data.shards.tar import BLOCK

_BITS = BLOCK.bit_length() - 1


class Place(NamedTuple):
    """The place of a column of one sample in its shard; see `Index`."""

    offset: int  # bytes
    size: int  # bytes
    headers: int  # blocks
    choice: int  # number of the field, of those that may hold the column
    digest: int  # 0 if the index holds none


class ColumnPlaces:
    """The places of a column in `n` samples. Numbers are as narrow as the shards allow: eleven bytes, or fifteen.

    `complete` is whether no sample lacks the column.
    """

    def __init__(self, indexes: list[Index], fields: list[str]):
        n, largest = sum(len(index.keys) for index in indexes), max(index.stamp.size for index in indexes)
        self._blocks = np.empty(n, np.uint32 if largest // BLOCK < 1 << 32 else np.int64)  # before the body
        self._sizes = np.full(n, -1, np.int32 if largest < 1 << 31 else np.int64)  # -1 if a sample lacks the column
        self._headers, self._choices = np.empty(n, np.uint16), np.empty(n, np.int8)
        self._digests = np.zeros(n, np.uint32) if any(index.digests is not None for index in indexes) else None
        end = 0
        for index in indexes:
            begin, end = end, end + len(index.keys)
            for choice, field in enumerate(fields):
                if field in index.fields:
                    self._add(index, index.fields.index(field), choice, slice(begin, end))
        self.complete = bool((self._sizes >= 0).all())

    def _add(self, index: Index, f: int, choice: int, rows: slice) -> None:
        """Take the places of field `f` for those of the index's samples that have no earlier choice."""
        absent = self._sizes[rows] < 0
        new = slice(None) if absent.all() else absent
        self._sizes[rows][new] = index.sizes[new, f]
        self._blocks[rows][new] = np.maximum(index.offsets[new, f], 0) >> _BITS  # a division takes twice as long
        self._headers[rows][new], self._choices[rows][new] = index.headers[new, f], choice
        if self._digests is not None and index.digests is not None:
            self._digests[rows][new] = index.digests[new, f]

    def __len__(self) -> int:
        return len(self._sizes)

    def __getitem__(self, i: int) -> Place:
        """Return the place of a sample that has the column."""
        digest = 0 if self._digests is None else self._digests.item(i)
        size, headers, choice = self._sizes.item(i), self._headers.item(i), self._choices.item(i)
        return Place(self._blocks.item(i) * BLOCK, size, headers, choice, digest)

    def has(self, i: int) -> bool:
        """Return whether a sample has the column."""
        return self._sizes.item(i) >= 0

    def present(self) -> np.ndarray:
        """Return bool [n]: which samples have the column."""
        return self._sizes >= 0

    def keep(self, rows: np.ndarray) -> None:
        """Keep only the samples where `rows`, bool [n], is true."""
        self._blocks, self._sizes = self._blocks[rows], self._sizes[rows]
        self._headers, self._choices = self._headers[rows], self._choices[rows]
        self._digests = None if self._digests is None else self._digests[rows]
        self.complete = bool((self._sizes >= 0).all())
