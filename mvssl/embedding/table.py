"""The rows of an embedding, for all formats: one for each usable sample, in the order of the shards.

in   the collected features and labels, mapped from the cache, and their source
out  a `Table` that is read block by block, so that it may be larger than memory
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data import ShardSource
from mvssl.errors import RecipeError
from mvssl.evaluation.features.cache import Entry
from mvssl.evaluation.features.extraction import DIVERGED, not_finite

BLOCK = 1 << 26  # bytes of features that are in memory at once
OWN = ("key", "shard", "shards", "label", "about")  # names in a file that views must not have


class Column(NamedTuple):
    """Some rows of one column: `values` [k] or [k, d], and `there`, bool [k]: which samples have a value.

    A missing value is NaN, or -1 if the values are integers.
    """

    values: np.ndarray
    there: np.ndarray


class Table:
    """The rows of an embedding. `views` maps each view to the column of `source` that it is made from.

    Features are float32, or float16 with `half`.
    """

    def __init__(
        self, source: ShardSource, views: Mapping[str, str], features: Entry, labels: Entry, *, half: bool = False
    ):
        self.source, self.views = source, dict(views)
        self.rows = np.intersect1d(features.rows.numpy(), labels.rows.numpy())
        self.dtype = np.dtype(np.float16 if half else np.float32)
        self._features = {view: features.arrays[view].numpy() for view in views}
        self.widths = {view: values.shape[1] for view, values in self._features.items()}
        found = labels.arrays["label"].numpy() if "label" in labels.arrays else None
        kind = np.float32 if found is not None and found.dtype.kind == "f" else np.int64
        self._labels = None if found is None else found.astype(kind, copy=False)
        self._there = {column: source.has(column)[self.rows] for column in (*views.values(), "label")}
        if "labelled" in labels.arrays:  # a label in a json field may be missing although the field is there
            self._there["label"] = labels.arrays["labelled"].numpy()[self.rows] > 0
        self._numbers = {str(path): number for number, path in enumerate(source.paths)}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def label(self) -> tuple[tuple[int, ...], np.dtype] | None:
        """Shape and type of one label; None without labels."""
        return None if self._labels is None else (self._labels.shape[1:], self._labels.dtype)

    def blocks(self) -> Iterator[slice]:
        """Return slices of all rows that fit into memory one by one."""
        size = max(256, BLOCK // (4 * sum(self.widths.values())))
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def keys(self, block: slice) -> list[str]:
        """Return the keys of the samples."""
        return [self.source.key(i) for i in self.rows[block].tolist()]

    def shards(self, block: slice) -> np.ndarray:
        """Return the indices of the samples' shards in the source's `paths`, int32 [k]."""
        return np.array([self._numbers[self.source.shard(i)] for i in self.rows[block].tolist()], np.int32)

    def labels(self, block: slice) -> Column:
        """Return the labels, int64 or float32, [k] or [k, c]. Call it only if `label` is not None."""
        assert self._labels is not None
        there, values = self._there["label"][block], self._labels[self.rows[block]]
        values[~there] = -1 if values.dtype.kind == "i" else np.nan
        return Column(values, there)

    def features(self, view: str, block: slice) -> Column:
        """Return the features [k, d] of a view. Raise `DataError` if a sample has the view, but no finite features."""
        rows = self.rows[block]
        there, exact = self._there[self.views[view]][block], self._features[view][rows]
        with np.errstate(over="ignore"):  # numbers too large for float16 become infinite, and raise below
            values = exact.astype(self.dtype, copy=False)
        bad = there & ~np.isfinite(values).all(1)
        if bad.any():
            first, most = int(np.argmax(bad)), np.finfo(self.dtype).max
            beyond = f"the largest number of --half is {most:,.0f}; write without it"
            advice = beyond if np.isfinite(exact[first]).all() else DIVERGED
            raise not_finite(self.source, int(rows[first]), view, advice)
        values[~there] = np.nan
        return Column(values, there)

    def shard_names(self, root: Path) -> list[str]:
        """Return the paths of the source's shards, relative to `root` if they lie in it."""
        return [str(path.relative_to(root)) if path.is_relative_to(root) else str(path) for path in self.source.paths]

    def absent(self) -> dict[str, int]:
        """Return the number of rows that lack each view or the `label`, without zeros."""
        columns = {**self.views, **({"label": "label"} if self.label else {})}
        counts = {name: int((~self._there[column]).sum()) for name, column in columns.items()}
        return {name: count for name, count in counts.items() if count}


def check_names(views: list[str]) -> None:
    """Raise `RecipeError` for a view with a name that the file uses for something else."""
    for view in views:
        if view.lower() in OWN:
            raise RecipeError(f"a view called {view!r} collides with the file's own names: {', '.join(OWN)}")
