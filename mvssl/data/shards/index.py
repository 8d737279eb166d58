"""The index of shards, from a file where one is kept that can be believed.

in   paths of shards
out  an `Index` of each; kept beside the shard or in the cache folder (`mvssl.data.shards.index_file`)
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mvssl.data.shards import index_file
from mvssl.data.shards.opening import may_open
from mvssl.data.shards.scan import Index, scan, stamp_of, with_digests
from mvssl.errors import DataError
from mvssl.process.progress import progress_bar


def build(paths: list[Path], progress: bool = True, *, digests: bool = False) -> list[Index]:
    """The index of each shard, from its cache where that is fresh; with `digests`, with those of all bodies.

    Raises `DataError` with every damaged shard, `StorageError` where the disk fails.
    """
    with ThreadPoolExecutor(may_open(min(16, len(paths) or 1), each=2)) as pool:
        made = pool.map(lambda path: _attempt(path, digests), paths)
        found = list(progress_bar(made, "indexing shards", len(paths), progress))
    faults = [str(one) for one in found if isinstance(one, DataError)]
    if faults:
        more = [f"... and {len(faults) - 10} more"] if len(faults) > 10 else []
        raise DataError("\n".join(faults[:10] + more))
    return [one for one in found if isinstance(one, Index)]


def _attempt(path: Path, digests: bool) -> Index | DataError:
    try:
        return load(path, digests=digests)
    except DataError as error:
        return error


def load(path: Path, *, digests: bool = False) -> Index:
    """The index of one shard, cached. Raises `DataError`, `StorageError`.

    Digests that a cached index holds are kept as long as the shard's headers are what they were. So they are believed
    for a copy, and tell of a body that was changed in its place. With `digests`, they are made anew.
    """
    stamp, cached = stamp_of(path), _cached(path)
    fresh = (found for found in cached if not found.stamp.differs(stamp) and index_file.belongs(found))
    believed = next(fresh, None)
    index = _with_older(scan(path) if believed is None else believed._replace(stamp=stamp), cached)
    if digests:
        index = with_digests(index)
    if digests or believed is None:
        any(index_file.write_file(cache, index) for cache in index_file.places(path))
    return index


def scan_anew(path: Path) -> Index:
    """The index of one shard, from all its headers; of a cached one, only the digests of bodies are taken over."""
    return _with_older(scan(path), _cached(path))


def _cached(path: Path) -> list[Index]:
    """The indexes that all places hold, fresh ones first, then the one of the latest state of the shard.

    A copied folder may bring a stale index that cannot be replaced, where it is read-only; the fresh one is elsewhere.
    """
    stamp = stamp_of(path)
    found = [index_file.read_file(cache, path, stamp.size) for cache in index_file.places(path)]
    there = [index for index in found if index is not None]
    return sorted(there, key=lambda index: (index.stamp.differs(stamp), -index.stamp.ctime))


def _with_older(now: Index, cached: list[Index]) -> Index:
    """The index with its digests, or else those of the first cached one that has some for the same members."""
    for before in [now, *cached]:
        same = (before.archive, before.fields) == (now.archive, now.fields) and np.array_equal(before.keys, now.keys)
        if same and before.digests is not None and before.digests.shape == now.sizes.shape:
            return now._replace(digests=before.digests)
    return now
