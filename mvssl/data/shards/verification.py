"""Check every byte of shards, or count what their headers say.

in   shards
out  `Verified`: counts, and each fault with shard, key, field and reason; `Summary`: what the index says
"""

import functools
import operator
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.decoding.arrays import MAX_BYTES
from mvssl.data.decoding.fields import FIELD_FORMATS, check_field
from mvssl.data.decoding.file_signatures import extension
from mvssl.data.sample_errors import SampleError, refuse_larger
from mvssl.data.shards.field_reader import DIGEST_DIFFERS
from mvssl.data.shards.index import Index
from mvssl.data.shards.index_cache import index_shards, rescan
from mvssl.data.shards.patterns import find_shards
from mvssl.data.shards.shard_file import ShardFile, body_digest, open_file_share, open_shard
from mvssl.errors import DataError
from mvssl.process.progress import progress_bar


class Fault(NamedTuple):
    shard: str
    key: str  # empty if the shard itself is damaged
    field: str
    reason: str


class Verified(NamedTuple):
    """The result of `verify_shards`; `faults` is empty if all is well."""

    shards: int
    samples: int
    decoded: int  # fields
    bytes: int
    lacking: Counter[str]  # field -> samples without it, of shards whose other samples have it
    unknown: Counter[str]  # field without a decoder, which was not decoded -> samples
    checked: int  # shards whose bodies were compared with digests
    hints: list[str]  # what is not wrong but looks odd
    faults: list[Fault]


class Summary(NamedTuple):
    """What the indexes of some shards say."""

    shards: list[tuple[str, int, int]]  # path, samples, bytes of the file
    samples: int
    fields: dict[str, tuple[int, int]]  # field -> samples that have it, bytes
    ignored: int  # members that belong to no sample
    bytes: int  # of the files
    checked: int  # shards whose index holds digests of all bodies
    renewed: int  # bodies whose digest differs from the one in the previous index
    hints: list[str]  # what is not wrong but looks odd


def summarize_shards(
    patterns: str | list[str], root: str | Path = ".", *, digests: bool = False, progress: bool = True
) -> Summary:
    """Index the shards, from kept indexes if they are fresh, and count. `digests` computes those of all bodies.

    Raise `DataError`, `StorageError`.
    """
    indexes = index_shards(find_shards(patterns, Path(root)), progress, digests=digests)
    counts, sizes = Counter(), Counter()
    for index in indexes:
        counts.update(index.counts())
        sizes.update(dict(zip(index.fields, np.maximum(index.sizes, 0).sum(0).tolist(), strict=True)))
    rows = [(str(index.path), len(index.keys), index.stamp.size) for index in indexes]
    return Summary(
        shards=rows,
        samples=sum(row[1] for row in rows),
        fields={field: (counts[field], sizes[field]) for field in sorted(counts)},
        ignored=sum(index.ignored for index in indexes),
        bytes=sum(row[2] for row in rows),
        checked=sum(index.digests is not None for index in indexes),
        renewed=sum(index.renewed for index in indexes),
        hints=[hint for index in indexes for hint in _hints(index)],
    )


def _hints(index: Index) -> list[str]:
    return [f"{index.path}: {hint}" for hint in index.hints()]


def verify_shards(patterns: str | list[str], root: str | Path = ".", *, progress: bool = True) -> Verified:
    """Read every header again, decode every field that has a decoder, and compare bodies with digests that are kept.

    Raise `DataError` if no shard is found, `StorageError` if the disk fails.
    """
    paths = find_shards(patterns, Path(root))
    with ThreadPoolExecutor(open_file_share(min(len(paths), os.cpu_count() or 1))) as pool:
        parts = list(progress_bar(pool.map(_verify_shard, paths), "verifying shards", len(paths), progress))
    return Verified(*(functools.reduce(operator.add, column) for column in zip(*parts, strict=True)))


def _verify_shard(path: Path) -> Verified:
    try:
        index = rescan(path)
        with open_shard(path) as shard:
            return _verify_fields(index, shard)
    except DataError as error:
        return Verified(1, 0, 0, 0, Counter(), Counter(), 0, [], [Fault(str(path), "", "", str(error))])


def _verify_fields(index: Index, shard: ShardFile) -> Verified:
    faults, counts = [], index.counts()
    for row, column in np.argwhere(index.sizes >= 0).tolist():
        try:
            _verify_field(index, shard, row, column)
        except SampleError as error:
            faults.append(Fault(str(index.path), index.keys[row].decode(), index.fields[column], error.reason))
    unknown = Counter({field: count for field, count in counts.items() if extension(field) not in FIELD_FORMATS})
    return Verified(
        shards=1,
        samples=len(index.keys),
        decoded=sum(counts.values()) - unknown.total(),
        bytes=index.stamp.size,
        lacking=+Counter({field: len(index.keys) - count for field, count in counts.items()}),
        unknown=unknown,
        checked=int(index.digests is not None),
        hints=_hints(index),
        faults=faults,
    )


def _verify_field(index: Index, shard: ShardFile, row: int, column: int) -> None:
    """Raise `SampleError` if a body differs from its digest or cannot be decoded."""
    field, offset, size = index.fields[column], int(index.offsets[row, column]), int(index.sizes[row, column])
    known = extension(field) in FIELD_FORMATS
    if known:
        refuse_larger(size, MAX_BYTES)
    body = shard.read(size, offset) if known else b""
    if index.digests is not None:
        digest = body_digest(body) if known else shard.digest(offset, size)
        if digest != int(index.digests[row, column]):
            raise SampleError(DIGEST_DIFFERS)
    if known:
        check_field(field, body)
