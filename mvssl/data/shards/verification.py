"""Check every byte of shards, or count what their headers say.

in   shards
out  `Verified`: counts, and each fault with shard, key, field and reason; `Summary`: what the index says
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.decoding import FIELD_FORMATS, MAX_BYTES, check_field, extension
from mvssl.data.sample_errors import SampleError, refuse_larger
from mvssl.data.shards.field_reader import DIGEST_DIFFERS
from mvssl.data.shards.index import Index, body_digest, digest_field
from mvssl.data.shards.index_cache import index_shards, rescan
from mvssl.data.shards.patterns import find_shards
from mvssl.data.shards.shard_file import open_file_share, open_shard, read_at
from mvssl.errors import DataError
from mvssl.process.progress import progress_bar


class Fault(NamedTuple):
    shard: str
    key: str  # empty where the shard itself is damaged
    field: str
    reason: str


class Verified(NamedTuple):
    """What `verify_shards` found; `faults` is empty where all is well."""

    shards: int
    samples: int
    decoded: int  # fields
    bytes: int
    lacking: dict[str, int]  # field -> samples without it, of shards whose other samples have it
    unknown: dict[str, int]  # field without a decoder, which was not decoded -> samples
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
    """Index the shards, from kept indexes where they are fresh, and count. `digests` computes those of all bodies.

    Raises `DataError`, `StorageError`.
    """
    indexes = index_shards(find_shards(patterns, Path(root)), progress, digests=digests)
    counts, sizes = Counter(), Counter()
    for index in indexes:
        has = index.sizes >= 0
        counts.update(dict(zip(index.fields, has.sum(0).tolist(), strict=True)))
        sizes.update(dict(zip(index.fields, np.where(has, index.sizes, 0).sum(0).tolist(), strict=True)))
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

    Raises `DataError` where no shard is found, `StorageError` where the disk fails.
    """
    paths = find_shards(patterns, Path(root))
    with ThreadPoolExecutor(open_file_share(min(len(paths), os.cpu_count() or 1))) as pool:
        parts = list(progress_bar(pool.map(_verify_shard, paths), "verifying shards", len(paths), progress))
    lacking, unknown = Counter(), Counter()
    for part in parts:
        lacking.update(part.lacking)
        unknown.update(part.unknown)
    return Verified(
        shards=len(paths),
        samples=sum(part.samples for part in parts),
        decoded=sum(part.decoded for part in parts),
        bytes=sum(part.bytes for part in parts),
        lacking=dict(lacking),
        unknown=dict(unknown),
        checked=sum(part.checked for part in parts),
        hints=[hint for part in parts for hint in part.hints],
        faults=[fault for part in parts for fault in part.faults],
    )


def _verify_shard(path: Path) -> Verified:
    try:
        index = rescan(path)
        with open_shard(path) as descriptor:
            return _verify_fields(index, descriptor)
    except DataError as error:
        return Verified(1, 0, 0, 0, {}, {}, 0, [], [Fault(str(path), "", "", str(error))])


def _verify_fields(index: Index, descriptor: int) -> Verified:
    faults, lacking, unknown, decoded = [], Counter(), Counter(), 0
    for row, key in enumerate(index.keys.tolist()):
        for column, field in enumerate(index.fields):
            if index.sizes[row, column] < 0:
                lacking[field] += 1
                continue
            known = extension(field) in FIELD_FORMATS
            decoded, unknown[field] = decoded + known, unknown[field] + (not known)
            try:
                _verify_field(index, descriptor, row, column)
            except SampleError as error:
                faults.append(Fault(str(index.path), key.decode(), field, error.reason))
    checked, hints = int(index.digests is not None), _hints(index)
    return Verified(
        1, len(index.keys), decoded, index.stamp.size, dict(lacking), dict(+unknown), checked, hints, faults
    )


def _verify_field(index: Index, descriptor: int, row: int, column: int) -> None:
    """Raise `SampleError` where a body differs from its digest or cannot be decoded."""
    field, offset, size = index.fields[column], int(index.offsets[row, column]), int(index.sizes[row, column])
    known = extension(field) in FIELD_FORMATS
    digest = None if index.digests is None else int(index.digests[row, column])
    if known:
        refuse_larger(size, MAX_BYTES)
        body = read_at(index.path, descriptor, size, offset)
        differs = digest is not None and body_digest(body) != digest
    else:
        body, differs = b"", digest is not None and digest_field(index.path, descriptor, offset, size) != digest
    if differs:
        raise SampleError(DIGEST_DIFFERS)
    if known:
        check_field(field, body)
