"""Look at every byte of shards, or only at their headers.

in   shards
out  `Verified`: counts, and each fault with shard, key, field and reason; `Summary`: what the index says
"""

import io
import json
import os
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.arrays import read_npy, read_npz
from mvssl.data.decode import DECODERS, MAX_BYTES, extension, finite, settle
from mvssl.data.faults import Undecodable
from mvssl.data.images import FORMATS, read_image
from mvssl.data.index import Index, build, scan
from mvssl.data.paths import expand
from mvssl.data.progress import track
from mvssl.data.wav import read_wav
from mvssl.errors import DataError
from mvssl.recipe import Column


class Fault(NamedTuple):
    shard: str
    key: str  # empty where the whole shard is damaged
    field: str
    reason: str


class Verified(NamedTuple):
    """What `verify` saw; `faults` is empty where all is well."""

    shards: int
    samples: int
    decoded: int  # fields
    bytes: int
    lacking: dict[str, int]  # field -> samples without it, of shards whose other samples have it
    unknown: dict[str, int]  # fields without a decoder, which were not looked into
    faults: list[Fault]


class Summary(NamedTuple):
    """What the index of some shards says."""

    shards: list[tuple[str, int, int]]  # path, samples, bytes of the file
    samples: int
    fields: dict[str, tuple[int, int]]  # field -> samples that have it, bytes
    ignored: int  # members that belong to no sample
    bytes: int  # of the files


def summarize(patterns: str | list[str], root: str | Path = ".", *, progress: bool = True) -> Summary:
    """Index the shards (strictly, from the cache where it is fresh) and count. Raises `DataError`."""
    indexes = build(expand(patterns, Path(root)), progress)
    counts, sizes = Counter(), Counter()
    for index in indexes:
        has = index.sizes >= 0
        counts.update(dict(zip(index.fields, has.sum(0).tolist(), strict=True)))
        sizes.update(dict(zip(index.fields, np.where(has, index.sizes, 0).sum(0).tolist(), strict=True)))
    rows = [(str(index.path), len(index.keys), index.stat[0]) for index in indexes]
    fields = {field: (counts[field], sizes[field]) for field in sorted(counts)}
    ignored = sum(index.ignored for index in indexes)
    return Summary(rows, sum(row[1] for row in rows), fields, ignored, sum(row[2] for row in rows))


def verify(patterns: str | list[str], root: str | Path = ".", *, progress: bool = True) -> Verified:
    """Read every header anew and decode every field that has a decoder. Raises `DataError` where no shard is found."""
    paths = expand(patterns, Path(root))
    with ThreadPoolExecutor(min(len(paths), os.cpu_count() or 1)) as pool:
        seen = list(track(pool.map(_verify_shard, paths), "verifying shards", len(paths), progress))
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
        faults=faults,
    )


def _verify_shard(path: Path) -> Verified:
    try:
        index = scan(path)
    except DataError as error:
        return Verified(1, 0, 0, 0, {}, {}, [Fault(str(path), "", "", str(error))])
    with open(path, "rb") as file:
        return _verify_fields(index, file.fileno())


def _verify_fields(index: Index, descriptor: int) -> Verified:
    faults, lacking, unknown, decoded = [], Counter(), Counter(), 0
    for key, offsets, sizes in zip(index.keys, index.offsets.tolist(), index.sizes.tolist(), strict=True):
        for field, offset, size in zip(index.fields, offsets, sizes, strict=True):
            if size < 0:
                lacking[field] += 1
            elif extension(field) not in DECODERS:
                unknown[field] += 1
            else:
                decoded += 1
                reason = _reason(field, os.pread(descriptor, size, offset))
                if reason:
                    faults.append(Fault(str(index.path), bytes(key).decode(), field, reason))
    return Verified(1, len(index.keys), decoded, index.stat[0], dict(lacking), dict(unknown), faults)


def _reason(field: str, data: bytes) -> str | None:
    """Why a field cannot be used by any column; None where it can."""
    kind = extension(field)
    try:
        if kind in FORMATS:
            read_image(data, kind)
        elif kind == "npy":
            _check_array(read_npy(data))
        elif kind == "npz":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = [name.removesuffix(".npy") for name in archive.namelist()]
                for array in (read_npz(archive, name, MAX_BYTES) for name in names):
                    if len(names) == 1 or array.dtype.kind in "buif":  # text may stand beside what columns read
                        _check_array(array)
        elif kind == "wav":
            finite(read_wav(data)[0])
        elif kind == "json":
            json.loads(data.decode())
        elif kind == "cls":
            DECODERS["cls"](Column(field=field), data)
        else:
            data.decode()
    except Undecodable as error:
        return error.reason
    except Exception as error:  # decoders meet garbage, and say so in many ways
        return f"no readable {kind}: {error or type(error).__name__}"
    return None


def _check_array(array: np.ndarray) -> None:
    """Raises `Undecodable` where no column could take the array."""
    finite(settle(Column(field="npy"), array))
