"""The rows of an embedding, for all formats. Each usable sample has one row, in the order of the shards.

in   the collected features and labels, mapped from the cache, and their source
out  an `EmbeddingTable` that is read block by block, so it may be larger than memory
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from mvssl.data import ShardSource
from mvssl.evaluation.features.cache import CachedFeatures
from mvssl.evaluation.features.extraction import DIVERGED, not_finite

BLOCK = 1 << 26  # bytes of features that are in memory at once
LABEL = "label"


class EmbeddingColumn(NamedTuple):
    """A column of the table: the label, or the features of a view."""

    array: np.ndarray  # a value for each sample of the source, mapped from the cache
    dtype: np.dtype  # of the values in the file
    present: np.ndarray  # bool [n]: which rows of the table have a value

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one value."""
        return self.array.shape[1:]


class EmbeddingTable:
    """The rows of an embedding. `views` maps each view to the column of `source` that it is made from.

    Features are [d] in float32, or float16 with `half`. Labels, if there are any, are numbers or [c], int64 or float32.
    """

    def __init__(
        self,
        source: ShardSource,
        views: Mapping[str, str],
        features: CachedFeatures,
        labels: CachedFeatures,
        *,
        half: bool = False,
    ):
        self.source = source
        self.rows = np.intersect1d(features.rows.numpy(), labels.rows.numpy())
        self.dtype = np.dtype(np.float16 if half else np.float32)
        self.columns: dict[str, EmbeddingColumn] = {}
        if LABEL in labels.arrays:
            array = labels.arrays[LABEL].numpy()
            present = source.has(LABEL)[self.rows]
            if "labelled" in labels.arrays:  # a label in a json field may be missing although the field is there
                present = labels.arrays["labelled"].numpy()[self.rows] > 0
            dtype = np.dtype(np.float32 if array.dtype.kind == "f" else np.int64)
            self.columns[LABEL] = EmbeddingColumn(array, dtype, present)
        for view, column in views.items():
            self.columns[view] = EmbeddingColumn(
                features.arrays[view].numpy(), self.dtype, source.has(column)[self.rows]
            )
        self.widths = {view: self.columns[view].shape[0] for view in views}
        self._shard_numbers = {str(path): number for number, path in enumerate(source.paths)}

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[slice]:
        """Return slices that cover all rows. The rows of one slice fit into memory."""
        size = max(256, BLOCK // (4 * sum(self.widths.values())))
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def keys(self, block: slice) -> list[str]:
        """Return the keys of the samples."""
        return [self.source.key(i) for i in self.rows[block].tolist()]

    def shards(self, block: slice) -> np.ndarray:
        """Return the indices of the samples' shards in the source's `paths`, int32 [k]."""
        return np.array([self._shard_numbers[self.source.shard(i)] for i in self.rows[block].tolist()], np.int32)

    def read(self, name: str, block: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return values [k, ...] of a column, and bool [k]: which of them are present.

        A missing value is NaN, or -1 if the values are integers. Raise `DataError` if the features of a sample are not
        finite or do not fit into float16.
        """
        rows, column = self.rows[block], self.columns[name]
        exact, present = column.array[rows], column.present[block]
        with np.errstate(over="ignore"):  # numbers too large for float16 become infinite, and raise below
            values = exact.astype(column.dtype, copy=False)
        bad = present & ~np.isfinite(values.reshape(len(values), -1)).all(1)
        if name != LABEL and bad.any():
            first, most = int(np.argmax(bad)), np.finfo(self.dtype).max
            too_large = f"the largest number of --half is {most:,.0f}; write without it"
            advice = too_large if np.isfinite(exact[first]).all() else DIVERGED
            raise not_finite(self.source, int(rows[first]), name, advice)
        values[~present] = -1 if column.dtype.kind == "i" else np.nan
        return values, present

    def absent(self) -> dict[str, int]:
        """Return for each view and the label how many rows lack it. Counts of 0 are left out."""
        counts = {name: int((~column.present).sum()) for name, column in self.columns.items()}
        return {name: counts[name] for name in (*self.widths, LABEL) if counts.get(name)}
