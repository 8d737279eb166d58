"""The samples of a shard and their places, found by one pass over its headers.

in   the path of a tar in webdataset's convention
out  `Index`: key, and offset and size of each field, per sample; with digests, the CRC-32 of each body too

The key of a member is its path up to the first dot of the file name. The field is the rest in lower case:
`a/0001.rgb.jpg` is field `rgb.jpg` of sample `a/0001`. Members of a sample must be next to each other.
Format: https://github.com/webdataset/webdataset.
"""

import hashlib
import re
import shlex
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mvssl.data.order import spread_indices
from mvssl.data.shards.shard_file import FileStamp, ShardFile, open_shard
from mvssl.data.shards.tar import BLOCK, Archive, Member, padded
from mvssl.errors import DataError
from mvssl.text import counted, printable

MOST_FIELDS = 1024  # of one shard; the index has a row of all fields for each sample
_DIGEST_SAMPLES, _DIGEST_BYTES = 16, 4096  # samples of a shard that its digest reads, and bytes of each of their fields
_META = re.compile(r"__[^/]*__($|/)")  # webdataset passes over these too
_NUMBERED = re.compile(r"\d+\..+")
_FIRST_DOT = (
    "the key of a file is its name up to the first dot, so img.0001.jpg is the field 0001.jpg of the sample img; "
    "rename such files (img_0001.jpg) before they are packed"
)


class Index(NamedTuple):
    """The samples of one shard: n samples, f fields."""

    path: Path
    keys: np.ndarray  # bytes [n], UTF-8
    fields: list[str]
    offsets: np.ndarray  # int64 [n, f], of the body in the file; -1 if a sample lacks the field
    sizes: np.ndarray  # int64 [n, f], bytes; -1 if a sample lacks the field
    headers: np.ndarray  # uint16 [n, f], blocks of 512 bytes before the body that name it; 0 if it lacks the field
    others: np.ndarray  # int64 [m, 2], first and last byte of each range of members that are no sample's, in order
    archive: str  # hash of all headers
    digest: str  # hash of all headers, and of some of the bodies
    ignored: int  # members that are no sample's: hidden files, files without extension, __meta__
    stamp: FileStamp
    digests: np.ndarray | None = None  # uint32 [n, f], CRC-32 of each body; None if they were not requested
    renewed: int = 0  # bodies whose digest differs from the one in the previous index

    def counts(self) -> dict[str, int]:
        """Return field -> number of samples that have it."""
        present = self.sizes >= 0
        return {field: int(np.count_nonzero(present[:, f])) for f, field in enumerate(self.fields)}

    def hints(self) -> list[str]:
        """Return a hint if there are more numbered fields than samples, such as img.0001.jpg; else nothing."""
        numbered = [field for field in self.fields if _NUMBERED.fullmatch(field)]
        if len(numbered) < max(3, len(self.keys) + 1):
            return []
        samples, fields = counted(len(self.keys), "sample"), counted(len(numbered), "numbered field")
        return [f"{samples} with {fields} such as {numbered[0]!r} of {self.keys[0].decode()!r}: {_FIRST_DOT}"]


def split_name(name: str) -> tuple[str, str] | None:
    """Return key and field of a member; None for a member that belongs to no sample."""
    if "/" not in name and name[:1] not in "._":  # the usual case, and quick
        key, _, field = name.partition(".")
        return (key, field.lower()) if field else None
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    key, _, field = base.partition(".")
    if not key or not field or _META.match(name):
        return None
    return folder + slash + key, field.lower()


def scan_shard(path: Path) -> Index:
    """Return the index of the shard at `path` from all its headers.

    Raise `DataError` if it is damaged or holds no sample, `StorageError` if the disk fails.
    """
    with open_shard(path) as shard:
        stamp = shard.stamp()  # before the headers are read, so that an index of a shard that is written to is stale
        archive = Archive(shard)
        keys, fields, ignored, placed = _group_members(path, archive)
        row, number, offset, size, start = placed.T
        offsets, sizes, starts = (np.full((len(keys), len(fields)), -1, np.int64) for _ in range(3))
        offsets[row, number], sizes[row, number], starts[row, number] = offset, size, start
        headers = ((offsets - starts) // BLOCK).astype(np.uint16)
        others = find_members(offsets, sizes, headers).gaps(archive.end)
        digest = _digest(shard, archive.digest, offsets, sizes)
        names = np.array([key.encode() for key in keys])
        return Index(path, names, fields, offsets, sizes, headers, others, archive.digest, digest, ignored, stamp)


def _group_members(path: Path, members: Iterable[Member]) -> tuple[list[str], list[str], int, np.ndarray]:
    """Return keys, fields, how many members belong to no sample, and int64 [m, 5] of the others.

    The five numbers are those of the sample and the field, offset and size of the body, and where the member starts.
    """
    name, ignored, last = f"shard {printable(str(path))}", 0, None
    keys: dict[str, None] = {}
    fields: dict[str, int] = {}
    present: set[int] = set()  # fields of the sample
    placed = array("q")
    for member in members:
        parts = split_name(member.name)
        if parts is None:
            ignored += 1
            continue
        key, field = parts
        if key != last:
            if key in keys:
                raise DataError(
                    f"{name}: key {key!r} appears twice; the files of a sample must be next to each other. "
                    f"Write the shard again in the order of the names: {_sort_commands(path)}"
                )
            keys[key], last = None, key
            present.clear()
        number = fields.setdefault(field, len(fields))
        if len(fields) > MOST_FIELDS:
            raise DataError(f"{name}: more than {MOST_FIELDS:,} different fields, such as {field!r}; {_FIRST_DOT}")
        if number in present:
            raise DataError(f"{name}: sample {key!r} has the field {field!r} twice")
        present.add(number)
        placed.extend((len(keys) - 1, number, member.offset, member.size, member.start))
    if not keys:
        others = f", and {counted(ignored, 'member')} that belong to none" if ignored else ""
        raise DataError(f"{name} holds no samples{others}")
    return list(keys), list(fields), ignored, np.frombuffer(placed, np.int64).reshape(-1, 5)


class MemberSpans(NamedTuple):
    """The members of samples in the order of their places, m members."""

    begins: np.ndarray  # int64 [m], bytes, of the first header
    ends: np.ndarray  # int64 [m], bytes, with the padding
    sorted: bool  # whether the samples are in the order of their places, each in one piece

    def gaps(self, end: int) -> np.ndarray:
        """Return int64 [k, 2]: from and to which of the first `end` bytes of the shard none of them is."""
        after = np.flatnonzero(self.ends[:-1] != self.begins[1:])  # few, while members are many
        left = np.concatenate([[0], self.ends[after], self.ends[-1:]])
        right = np.concatenate([self.begins[:1], self.begins[after + 1], [end]])
        return np.stack([left, right], 1)[left != right]


def find_members(offsets: np.ndarray, sizes: np.ndarray, headers: np.ndarray) -> MemberSpans:
    """Return where the members of samples begin and end, from the tables of an index."""
    present = sizes >= 0
    if present.all():  # without masks, which take longer than all the rest
        offsets, sizes, headers = offsets.ravel(), sizes.ravel(), headers.ravel()
    else:
        offsets, sizes, headers = offsets[present], sizes[present], headers[present]
    begins, ends = offsets - headers * np.int64(BLOCK), offsets + padded(sizes)
    if (begins[1:] >= begins[:-1]).all():
        return MemberSpans(begins, ends, True)
    order = np.argsort(begins, kind="stable")
    rows = np.nonzero(present)[0][order]
    return MemberSpans(begins[order], ends[order], bool((rows[1:] >= rows[:-1]).all()))


def _sort_commands(path: Path) -> str:
    """Return the commands that write a shard with its members in the order of their names."""
    old, new = shlex.quote(printable(str(path))), shlex.quote(printable(str(path.with_name(f"sorted-{path.name}"))))
    return f"mkdir unpacked && tar -xf {old} -C unpacked && tar --sort=name -cf {new} -C unpacked ."


def _digest(shard: ShardFile, headers: str, offsets: np.ndarray, sizes: np.ndarray) -> str:
    """Return a hash of the headers, and of the middle of each field of a few samples, evenly spaced.

    Headers alone do not identify data: samples of one shape, written with one time, have equal ones. The middle is read
    because images often begin with a blank margin.
    """
    digest = hashlib.blake2b(headers.encode(), digest_size=16)
    rows = spread_indices(len(sizes), _DIGEST_SAMPLES)
    for offset, size in zip(offsets[rows].ravel().tolist(), sizes[rows].ravel().tolist(), strict=True):
        if size > 0:
            middle = offset + max(0, size - _DIGEST_BYTES) // 2
            digest.update(shard.read(_DIGEST_BYTES, middle)[:size])
    return digest.hexdigest()


def add_digests(index: Index) -> Index:
    """Return the index with the CRC-32 of every body, each of which is read. Raise `StorageError`, `DataError`."""
    digests = np.zeros(index.sizes.shape, np.uint32)
    with open_shard(index.path) as shard:
        for row, column in np.argwhere(index.sizes >= 0).tolist():
            digests[row, column] = shard.digest(int(index.offsets[row, column]), int(index.sizes[row, column]))
        if index.stamp.differs(shard.stamp()):
            raise DataError(f"shard {printable(str(index.path))} was written to while it was read")
    renewed = 0 if index.digests is None else int((index.digests != digests).sum())
    return index._replace(digests=digests, renewed=renewed)
