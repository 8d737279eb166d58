"""Look at every byte of shards, or only at their headers.

in   shards
out  `Verified`: counts, and each fault with shard, key, field and reason; `Summary`: what the index says
"""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.decoding.arrays import open_npz, read_npy, read_npz
from mvssl.data.decoding.decode import DECODERS, MAX_BYTES, extension, finite, settle
from mvssl.data.decoding.images import FORMATS, read_image
from mvssl.data.decoding.texts import json_of, text_of
from mvssl.data.decoding.wav import read_wav
from mvssl.data.sample_errors import SampleError
from mvssl.data.shards.index import build, scan_anew
from mvssl.data.shards.opening import may_open, open_shard, read
from mvssl.data.shards.paths import find_shards
from mvssl.data.shards.reading import FLIPPED
from mvssl.data.shards.scan import Index, digest_at, dotted
from mvssl.errors import DataError
from mvssl.process.progress import progress_bar
from mvssl.recipe import Column
from mvssl.text import printable


class Fault(NamedTuple):
    shard: str
    key: str  # empty where the whole shard is damaged
    field: str
    reason: str


class Verified(NamedTuple):
    """What `verify_shards` saw; `faults` is empty where all is well."""

    shards: int
    samples: int
    decoded: int  # fields
    bytes: int
    lacking: dict[str, int]  # field -> samples without it, of shards whose other samples have it
    unknown: dict[str, int]  # fields without a decoder, which were not looked into
    checked: int  # shards whose bodies were held against digests
    hints: list[str]  # what is not wrong and looks odd
    faults: list[Fault]


class Summary(NamedTuple):
    """What the index of some shards says."""

    shards: list[tuple[str, int, int]]  # path, samples, bytes of the file
    samples: int
    fields: dict[str, tuple[int, int]]  # field -> samples that have it, bytes
    ignored: int  # members that belong to no sample
    bytes: int  # of the files
    checked: int  # shards whose index holds digests of all bodies
    renewed: int  # bodies whose digest is another than the index held before
    hints: list[str]  # what is not wrong and looks odd


def summarize_shards(
    patterns: str | list[str], root: str | Path = ".", *, digests: bool = False, progress: bool = True
) -> Summary:
    """Index the shards (strictly, from the cache where it is fresh) and count; `digests` of all bodies on request.

    Raises `DataError`, `StorageError`.
    """
    indexes = build(find_shards(patterns, Path(root)), progress, digests=digests)
    counts, sizes = Counter(), Counter()
    for index in indexes:
        has = index.sizes >= 0
        counts.update(dict(zip(index.fields, has.sum(0).tolist(), strict=True)))
        sizes.update(dict(zip(index.fields, np.where(has, index.sizes, 0).sum(0).tolist(), strict=True)))
    rows = [(str(index.path), len(index.keys), index.stamp.size) for index in indexes]
    fields = {field: (counts[field], sizes[field]) for field in sorted(counts)}
    ignored = sum(index.ignored for index in indexes)
    checked = sum(index.digests is not None for index in indexes)
    hints = [hint for index in indexes for hint in _hints(index)]
    renewed = sum(index.renewed for index in indexes)
    samples, size = sum(row[1] for row in rows), sum(row[2] for row in rows)
    return Summary(rows, samples, fields, ignored, size, checked, renewed, hints)


def _hints(index: Index) -> list[str]:
    said = dotted(index)
    return [] if said is None else [f"{index.path}: {said}"]


def verify_shards(patterns: str | list[str], root: str | Path = ".", *, progress: bool = True) -> Verified:
    """Read every header anew, decode every field that has a decoder, and hold bodies against digests that are kept.

    Raises `DataError` where no shard is found, `StorageError` where the disk fails.
    """
    paths = find_shards(patterns, Path(root))
    with ThreadPoolExecutor(may_open(min(len(paths), os.cpu_count() or 1))) as pool:
        seen = list(progress_bar(pool.map(_verify_shard, paths), "verifying shards", len(paths), progress))
    lacking: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for one in seen:
        lacking.update(one.lacking)
        unknown.update(one.unknown)
    faults = [fault for one in seen for fault in one.faults]
    return Verified(
        shards=len(paths),
        samples=sum(one.samples for one in seen),
        decoded=sum(one.decoded for one in seen),
        bytes=sum(one.bytes for one in seen),
        lacking=dict(lacking),
        unknown=dict(unknown),
        checked=sum(one.checked for one in seen),
        hints=[hint for one in seen for hint in one.hints],
        faults=faults,
    )


def _verify_shard(path: Path) -> Verified:
    try:
        index = scan_anew(path)
        descriptor = open_shard(path)
    except DataError as error:
        return Verified(1, 0, 0, 0, {}, {}, 0, [], [Fault(str(path), "", "", str(error))])
    try:
        return _verify_fields(index, descriptor)
    finally:
        os.close(descriptor)


def _verify_fields(index: Index, descriptor: int) -> Verified:
    faults, lacking, unknown, decoded = [], Counter(), Counter(), 0
    for row, key in enumerate(index.keys.tolist()):
        for column, field in enumerate(index.fields):
            size, offset = int(index.sizes[row, column]), int(index.offsets[row, column])
            expected = None if index.digests is None else int(index.digests[row, column])
            if size < 0:
                lacking[field] += 1
                continue
            known = extension(field) in DECODERS
            decoded, unknown[field] = decoded + known, unknown[field] + (not known)
            if size > MAX_BYTES and known:
                reason = f"{size:,} bytes; the limit is {MAX_BYTES:,}"
            elif expected is not None and expected != digest_at(index.path, descriptor, offset, size):
                reason = FLIPPED
            else:
                reason = _reason(field, read(index.path, descriptor, size, offset)) if known else None
            if reason:
                faults.append(Fault(str(index.path), key.decode(), field, printable(reason)))
    checked, lacking = int(index.digests is not None), dict(lacking)
    return Verified(
        1, len(index.keys), decoded, index.stamp.size, lacking, dict(+unknown), checked, _hints(index), faults
    )


def _reason(field: str, data: bytes) -> str | None:
    """Why a field cannot be used by any column; None where it can."""
    kind = extension(field)
    if not data:
        return "it is empty"
    try:
        if kind in FORMATS:
            read_image(data, kind)
        elif kind == "npy":
            _check_array(read_npy(data))
        elif kind == "npz":
            with open_npz(data) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                for array in (read_npz(archive, name) for name in names):
                    if len(names) == 1 or array.dtype.kind in "buif":  # text may stand beside what columns read
                        _check_array(array)
        elif kind == "wav":
            finite(read_wav(data)[0])
        elif kind == "json":
            json_of(data)
        else:
            text = text_of(data)  # which the names of a column may give a number
            if kind == "cls" and not (text and text.isprintable()):
                return f"{text[:40]!r} is neither a number nor a name"
    except SampleError as error:
        return error.reason
    except Exception as error:  # decoders meet garbage, and say so in many ways
        return f"no readable {kind}: {error or type(error).__name__}"
    return None


def _check_array(array: np.ndarray) -> None:
    """Raises `SampleError` where no column could take the array."""
    finite(settle(Column(field="npy", channels_last=False), array))
