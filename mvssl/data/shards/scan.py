"""Which samples a shard holds, and where.

in   the path of a tar in webdataset's convention
out  `Index`: key, and offset and size of each field, per sample; with digests, the CRC-32 of each body too

The key of a member is its path up to the first dot of the file name, the field is the rest in lower case:
`a/0001.rgb.jpg` is field `rgb.jpg` of sample `a/0001`. Members of a sample stand next to each other.
Format: https://github.com/webdataset/webdataset.
"""

import hashlib
import os
import re
import shlex
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.shards.opening import Stamp, fault, open_shard, read
from mvssl.data.shards.tar import BLOCK, Archive, Member, padded
from mvssl.errors import DataError
from mvssl.text import counted, printable

_TOLD, _BYTES = 16, 4096  # samples of a shard that its digest reads, and bytes of each of their fields
_META = re.compile(r"__[^/]*__($|/)")  # webdataset passes over these too
_NUMBERED = re.compile(r"\d+\..+")
MOST_FIELDS = 1024  # of one shard; the index has a row of all fields for each sample
_CHUNK = 1 << 24  # bytes of a body that are read at once for its digest


class Index(NamedTuple):
    """The samples of one shard: n samples, f fields."""

    path: Path
    keys: np.ndarray  # bytes [n], UTF-8
    fields: list[str]
    offsets: np.ndarray  # int64 [n, f], of the body in the file; -1 where a sample lacks the field
    sizes: np.ndarray  # int64 [n, f], bytes; -1 where a sample lacks the field
    headers: np.ndarray  # uint16 [n, f], blocks of 512 bytes that stand before the body and name it; 0 where it lacks
    others: np.ndarray  # int64 [m, 2], from and to which byte there are members that are no sample's, in order
    archive: str  # hash of all headers
    digest: str  # of all headers, and of some of the bodies
    ignored: int  # members that are no sample's: hidden files, files without extension, __meta__
    stamp: Stamp
    digests: np.ndarray | None = None  # uint32 [n, f], the CRC-32 of each body; None where nobody asked for it
    renewed: int = 0  # bodies whose digest was another one in the index that was there before


def split_name(name: str) -> tuple[str, str] | None:
    """Key and field of a member; None for a member that belongs to no sample."""
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    key, _, field = base.partition(".")
    if not key or not field or _META.match(name):
        return None
    return folder + slash + key, field.lower()


def scan(path: Path) -> Index:
    """Read every header of the shard at `path`.

    Raises `DataError` where it is damaged or holds no sample, `StorageError` where the disk fails.
    """
    fields, ignored = {}, 0
    samples: dict[str, dict[int, Member]] = {}
    last = None
    stamp = stamp_of(path)
    archive = Archive(path)
    for member in archive:
        parts = split_name(member.name)
        if parts is None:
            ignored += 1
            continue
        key, field = parts
        if key != last and key in samples:
            raise DataError(
                f"shard {printable(str(path))}: key {key!r} comes up again; the files of a sample must stand together. "
                f"Write the shard anew in the order of the names: {_sorted_anew(path)}"
            )
        last, sample = key, samples.setdefault(key, {})
        number = fields.setdefault(field, len(fields))
        if len(fields) > MOST_FIELDS:
            raise DataError(
                f"shard {printable(str(path))}: more than {MOST_FIELDS:,} different fields, such as {field!r}; {RULE}"
            )
        if number in sample:
            raise DataError(f"shard {printable(str(path))}: sample {key!r} has the field {field!r} twice")
        sample[number] = member
    if not samples:
        others = f", and {counted(ignored, 'member')} that belong to none" if ignored else ""
        raise DataError(f"shard {printable(str(path))} holds no samples{others}")
    offsets, sizes, starts = (np.full((len(samples), len(fields)), -1, np.int64) for _ in range(3))
    for row, sample in enumerate(samples.values()):
        for number, member in sample.items():
            offsets[row, number], sizes[row, number], starts[row, number] = member.offset, member.size, member.start
    keys = np.array([key.encode() for key in samples])
    headers = ((offsets - starts) // BLOCK).astype(np.uint16)
    others = gaps(offsets, sizes, headers, archive.end)
    digest = _digest(path, archive.digest, offsets, sizes)
    return Index(path, keys, list(fields), offsets, sizes, headers, others, archive.digest, digest, ignored, stamp)


def gaps(offsets: np.ndarray, sizes: np.ndarray, headers: np.ndarray, end: int) -> np.ndarray:
    """int64 [m, 2]: from and to where the first `end` bytes of a shard hold no sample's members."""
    there = sizes >= 0
    begins, ends = offsets[there] - headers[there] * np.int64(BLOCK), offsets[there] + padded(sizes[there])
    order = np.argsort(begins, kind="stable")
    left, right = np.append(0, ends[order]), np.append(begins[order], end)
    return np.stack([left, right], 1)[left != right]


def _sorted_anew(path: Path) -> str:
    """The commands that write a shard with its members in the order of their names."""
    old, new = shlex.quote(printable(str(path))), shlex.quote(printable(str(path.with_name(f"sorted-{path.name}"))))
    return f"mkdir unpacked && tar -xf {old} -C unpacked && tar --sort=name -cf {new} -C unpacked ."


def dotted(index: Index) -> str | None:
    """What to say of a shard with more numbered fields than samples, such as img.0001.jpg; None of any other."""
    numbered = [field for field in index.fields if _NUMBERED.fullmatch(field)]
    if len(numbered) < max(3, len(index.keys) + 1):
        return None
    samples, fields = counted(len(index.keys), "sample"), counted(len(numbered), "numbered field")
    return f"{samples} with {fields} such as {numbered[0]!r} of {index.keys[0].decode()!r}: {RULE}"


RULE = (
    "the key of a file is its name up to the first dot, so img.0001.jpg is the field 0001.jpg of the sample img; "
    "rename such files (img_0001.jpg) before they are packed"
)


def _digest(path: Path, headers: str, offsets: np.ndarray, sizes: np.ndarray) -> str:
    """Headers alone do not tell data apart: samples of one shape, written with one time, have equal ones.

    So the middle of each field of a few samples, evenly spaced, counts too. Images often begin with a blank margin.
    """
    whole = hashlib.blake2b(headers.encode(), digest_size=16)
    rows = np.unique(np.linspace(0, len(sizes) - 1, _TOLD).astype(np.int64))
    descriptor = open_shard(path)
    try:
        for offset, size in zip(offsets[rows].ravel().tolist(), sizes[rows].ravel().tolist(), strict=True):
            if size > 0:
                whole.update(read(path, descriptor, _BYTES, offset + max(0, size - _BYTES) // 2)[:size])
    finally:
        os.close(descriptor)
    return whole.hexdigest()


def with_digests(index: Index) -> Index:
    """The index with the CRC-32 of every body, each of which is read. Raises `StorageError`, `DataError`."""
    found = np.zeros(index.sizes.shape, np.uint32)
    descriptor = open_shard(index.path)
    try:
        for row, column in np.argwhere(index.sizes >= 0).tolist():
            place = int(index.offsets[row, column]), int(index.sizes[row, column])
            found[row, column] = digest_at(index.path, descriptor, *place)
        if index.stamp.differs(Stamp.of(descriptor)):
            raise DataError(f"shard {printable(str(index.path))} was written to while it was read")
    finally:
        os.close(descriptor)
    renewed = 0 if index.digests is None else int((index.digests != found).sum())
    return index._replace(digests=found, renewed=renewed)


def digest_at(path: Path, descriptor: int, offset: int, size: int) -> int:
    """The digest of the `size` bytes from `offset` on, read in parts. Raises `StorageError`, `DataError`."""
    value = 0
    for place in range(offset, offset + size, _CHUNK):
        wanted = min(_CHUNK, offset + size - place)
        part = read(path, descriptor, wanted, place)
        if len(part) < wanted:
            raise DataError(f"shard {printable(str(path))} became shorter while it was read")
        value = body_digest(part, value)
    return value


def body_digest(data: bytes, before: int = 0) -> int:
    """CRC-32: it finds every flipped bit and every run of damage of up to 32 bits, and misses other damage once in 4e9.

    A cryptographic hash would find no more, since who can change a shard can change the index beside it. blake2b took
    4.4 times as long, for 3 kB and for 30 kB.
    """
    return zlib.crc32(data, before)


def stamp_of(path: Path) -> Stamp:
    """Raises `DataError`, `StorageError`."""
    try:
        return Stamp.of(path)
    except OSError as error:
        raise fault(path, error) from None
