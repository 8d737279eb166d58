"""The bytes of fields. Each is checked against the index before it is returned.

in   which field: shard, key, place, size and, if the index holds it, digest
out  its bytes; a `SampleError` that says what does not agree; a `ReadError` if the disk fails

The header in front of a body is read with it, in one call, and must name the field and its size. So neither a wrong
index nor a shard that was written over can yield the body of another sample. The shard's stamp is checked after each
read. Where only its ctime has moved, the shard is scanned once more: it stays in use if it is the indexed one.
"""

import errno
import os
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from mvssl.data.sample_errors import ReadError, SampleError, ShardGoneError
from mvssl.data.shards.index import scan_shard, split_name
from mvssl.data.shards.shard_file import MORE_FILES, NO_DESCRIPTORS, FileStamp, ShardFile, body_digest, open_file_share
from mvssl.data.shards.tar import BLOCK, Archive, has_name, is_nameless_pax, padded, plain_member
from mvssl.errors import DataError, StorageError

MOST_OPEN = 64  # shards that one process keeps open
_CHANGED = "the shard has changed since it was indexed; the same command builds a new index"
_MOVED = "the shard holds something else at its place than the index says; the same command builds a new index"
DIGEST_DIFFERS = (
    "the bytes differ from the index's digest; if the shard was changed on purpose, run mvssl index --digests"
)


class IndexedShard(NamedTuple):
    """A shard as it was indexed."""

    path: Path
    stamp: FileStamp
    digest: str  # as in `Index`: of all headers, and of some of the bodies


class FieldLocation(NamedTuple):
    """Where a field is, and what it must be."""

    key: bytes  # UTF-8
    field: str
    offset: int  # of its body in the shard, in bytes
    size: int  # bytes
    headers: int  # blocks before the body
    digest: int | None


class FieldReader:
    """Reads fields by offset and keeps a few shards open. Its descriptors do not go to another process."""

    def __init__(self):
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._scanned: dict[tuple[Path, FileStamp], bool] = {}  # whether the shard is the indexed one at this stamp

    def read(self, shard: IndexedShard, location: FieldLocation) -> bytes:
        """Return the body of a field. Raise `SampleError`, `ReadError`."""
        path, before = shard.path, location.headers * BLOCK
        try:
            descriptor = self._descriptor(path)
            data = os.pread(descriptor, before + location.size, location.offset - before)
            unchanged = shard.stamp.matches(descriptor) or self._is_indexed(shard, FileStamp.of(descriptor))
        except OSError as error:
            self._close_shard(path)
            raise _read_error(error) from None
        if not unchanged:
            self._close_shard(path)
            raise SampleError(_CHANGED)
        complete = len(data) == before + location.size
        if not (complete and header_matches(ShardFile(path, descriptor), location, data[:before])):
            raise SampleError(_MOVED)
        body = data[before:]
        if location.digest is not None and body_digest(body) != location.digest:
            raise SampleError(DIGEST_DIFFERS)
        return body

    def _is_indexed(self, shard: IndexedShard, now: FileStamp) -> bool:
        """Return whether a shard of which only the ctime has moved is the indexed one. Scans once for each ctime.

        `setfattr`, a mode that is set again and a link that came and went move the ctime, and so does an edit.
        Raise `ReadError`.
        """
        if now[:2] != shard.stamp[:2]:
            return False
        if (shard.path, now) not in self._scanned:
            try:
                same = scan_shard(shard.path).digest == shard.digest
            except DataError:
                same = False
            except StorageError as error:
                raise ReadError(str(error)) from None
            self._scanned[shard.path, now] = same
        return self._scanned[shard.path, now]

    def _descriptor(self, path: Path) -> int:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while True:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                break
            except OSError as error:
                if error.errno not in NO_DESCRIPTORS or not self._open:
                    raise
                self._close_oldest(len(self._open) // 2)  # the rest of the process has too many open files
        self._open[path] = descriptor
        self._close_oldest(open_file_share(MOST_OPEN))
        return descriptor

    def _close_oldest(self, keep: int) -> None:
        while len(self._open) > keep:
            os.close(self._open.popitem(last=False)[1])

    def _close_shard(self, path: Path) -> None:
        if path in self._open:
            os.close(self._open.pop(path))

    def __getstate__(self) -> dict:
        return {"_open": OrderedDict(), "_scanned": dict(self._scanned)}

    def __del__(self):
        self._close_oldest(0)


def header_matches(shard: ShardFile, location: FieldLocation, headers: bytes) -> bool:
    """Return whether `headers`, which stand before the body, name the field and its size."""
    wanted = location.key.decode(), location.field
    if location.headers == 1 or is_nameless_pax(headers[:-BLOCK]):
        last = headers[-BLOCK:]
        if has_name(last, location.key + b"." + location.field.encode(), location.size):  # the usual case, and quick
            return True
        member = plain_member(last)
        return member is not None and member[1] == location.size and split_name(member[0]) == wanted
    try:  # a long name, in headers of its own
        start, stop = location.offset - len(headers), location.offset + padded(location.size)
        members = Archive(shard).between(start, stop)
    except DataError:
        return False
    return [(split_name(member.name), member.size) for member in members] == [(wanted, location.size)]


def _read_error(error: OSError) -> ReadError:
    if error.errno in NO_DESCRIPTORS:
        return ReadError(f"the shard cannot be opened: {error.strerror}; {MORE_FILES}")
    kind = ShardGoneError if error.errno in (errno.ENOENT, errno.ENOTDIR) else ReadError
    return kind(f"the shard cannot be read: {error.strerror}")
