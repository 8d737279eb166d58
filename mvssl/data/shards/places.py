"""What a source keeps of the index of a shard: where each column of each sample is, in few bytes a sample.

in   the index of a shard, and for each column the fields that may hold it, best first
out  `KeptIndex`: for each sample its key, and the place, size and field of each column, or that the sample lacks it
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from mvssl.data.shards.index import Index
from mvssl.data.shards.shard_file import FileStamp
from mvssl.data.shards.tar import BLOCK

_BITS = BLOCK.bit_length() - 1


class Place(NamedTuple):
    """The place of a column of one sample in its shard; see `Index`."""

    offset: int  # bytes
    size: int  # bytes
    headers: int  # blocks
    choice: int  # number of the field, of those that may hold the column
    digest: int | None


class ColumnPlaces(NamedTuple):
    """The places of one column in the n samples of a shard: eleven bytes a sample, or fifteen with digests.

    Shards of more than 2 GB or 2 TB take more, because numbers are as narrow as the size of the shard allows.
    """

    blocks: np.ndarray  # uint32 or int64 [n], blocks before the body
    sizes: np.ndarray  # int32 or int64 [n], bytes; -1 if a sample lacks the column
    headers: np.ndarray  # uint16 [n]
    choices: np.ndarray  # int8 [n]
    digests: np.ndarray | None  # uint32 [n]

    @classmethod
    def of(cls, index: Index, fields: list[str]) -> Self:
        """Return the places of a column that any of `fields` may hold: of each sample the first that it has."""
        n, largest = len(index.keys), index.stamp.size
        places = cls(
            np.zeros(n, np.uint32 if largest < BLOCK << 32 else np.int64),
            np.full(n, -1, np.int32 if largest < 1 << 31 else np.int64),
            np.zeros(n, np.uint16),
            np.zeros(n, np.int8),
            None if index.digests is None else np.zeros(n, np.uint32),
        )
        absent: slice | np.ndarray = slice(None)
        for choice, field in enumerate(fields):
            if field in index.fields:
                places._take(index, index.fields.index(field), choice, absent)
                absent = places.sizes < 0
        return places

    def _take(self, index: Index, f: int, choice: int, rows: slice | np.ndarray) -> None:
        self.blocks[rows] = np.maximum(index.offsets[rows, f], 0) >> _BITS  # a division takes twice as long
        self.sizes[rows], self.headers[rows] = index.sizes[rows, f], index.headers[rows, f]
        self.choices[rows] = choice
        if self.digests is not None and index.digests is not None:
            self.digests[rows] = index.digests[rows, f]

    def at(self, row: int) -> Place | None:
        """Return the place of the column in a sample, or None if the sample lacks it."""
        size = self.sizes.item(row)
        if size < 0:
            return None
        digest = None if self.digests is None else self.digests.item(row)
        return Place(self.blocks.item(row) * BLOCK, size, self.headers.item(row), self.choices.item(row), digest)

    def present(self) -> np.ndarray:
        """Return bool [n]: which samples have the column."""
        return self.sizes >= 0

    def of_rows(self, rows: np.ndarray) -> Self:
        """Return the places in the samples where `rows`, bool [n], is true."""
        digests = None if self.digests is None else self.digests[rows]
        return type(self)(self.blocks[rows], self.sizes[rows], self.headers[rows], self.choices[rows], digests)


@dataclass
class KeptIndex:
    """What a source keeps of the index of one shard."""

    path: Path
    stamp: FileStamp
    digest: str
    digested: bool  # whether the index holds digests
    keys: np.ndarray  # bytes [n], UTF-8
    places: dict[str, ColumnPlaces]  # by column
    counts: dict[str, int]  # field -> samples that have it
    hints: list[str]

    @classmethod
    def of(cls, index: Index, columns: Mapping[str, list[str]]) -> Self:
        """Keep what is needed for `columns`, each with the fields that may hold it."""
        places = {name: ColumnPlaces.of(index, fields) for name, fields in columns.items()}
        return cls(
            index.path, index.stamp, index.digest, index.digests is not None, index.keys.copy(), places,
            index.counts(), index.hints(),
        )  # fmt: skip

    def keep(self, rows: np.ndarray) -> None:
        """Keep only the samples where `rows`, bool [n], is true."""
        self.keys = self.keys[rows]
        self.places = {name: places.of_rows(rows) for name, places in self.places.items()}
