"""The bytes of fields, each of them known to be what the index says.

in   which field: shard, key, place, size and, where the index holds it, digest
out  its bytes; or an `SampleError` that says what does not agree, or an `Unreadable` where it is the disk that fails

The header in front of a body is read with it, in one call, and must name the field and its size: a wrong index and a
shard that was written over cannot hand out the body of another sample. The shard's stamp is looked at after each read.
Where only its ctime has moved, the shard is scanned once more: it stays in use if it is what was indexed.
"""

import errno
import os
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

from mvssl.data.sample_errors import SampleError, Unreadable, Vanished
from mvssl.data.shards.opening import FULL, MORE, Stamp, may_open
from mvssl.data.shards.scan import body_digest, scan, split_name
from mvssl.data.shards.tar import BLOCK, Archive, has_name, is_silent, padded, plain_member
from mvssl.errors import DataError, StorageError

OPEN = 64  # shards that one process keeps open at most
_CHANGED = "the shard has changed since it was indexed; the same command indexes it anew"
_MOVED = "the shard holds something else at its place than the index says; the same command indexes it anew"
FLIPPED = (
    "the bytes differ from the index's digest; if the shard was changed on purpose, mvssl index --digests makes it anew"
)


class Shard(NamedTuple):
    """A shard as it was indexed."""

    path: Path
    stamp: Stamp
    digest: str  # as in `Index`: of all headers, and of some of the bodies


class Place(NamedTuple):
    """Where a field is, and what it must be."""

    key: bytes  # UTF-8
    field: str
    offset: int  # of its body in the shard, in bytes
    size: int  # bytes
    headers: int  # blocks before the body
    digest: int | None


class Files:
    """A few open shards, read by offset. Descriptors are not carried to another process."""

    def __init__(self):
        self._open: OrderedDict[Path, int] = OrderedDict()
        self._scanned: dict[tuple[Path, Stamp], bool] = {}  # whether the shard is the indexed one at this stamp

    def read(self, shard: Shard, place: Place) -> bytes:
        """The body of a field. Raises `SampleError`, `Unreadable`."""
        path = shard.path
        try:
            descriptor = self._descriptor(path)
            before = place.headers * BLOCK
            data = os.pread(descriptor, before + place.size, place.offset - before)
            same = shard.stamp.is_of(descriptor) or self._is_indexed(shard, Stamp.of(descriptor))
        except OSError as error:
            self._forget(path)
            raise _unreadable(error) from None
        if not same:
            self._forget(path)
            raise SampleError(_CHANGED)
        if len(data) < before + place.size or not is_named(path, descriptor, place, data[:before]):
            raise SampleError(_MOVED)
        body = data[before:]
        if place.digest is not None and body_digest(body) != place.digest:
            raise SampleError(FLIPPED)
        return body

    def _is_indexed(self, shard: Shard, now: Stamp) -> bool:
        """Whether a shard of which only the ctime has moved is what was indexed; scanned once for each ctime.

        `setfattr`, a mode that is set again and a link that came and went move the ctime, and so does an edit.
        Raises `Unreadable`.
        """
        if now[:2] != shard.stamp[:2]:
            return False
        if (shard.path, now) not in self._scanned:
            try:
                same = scan(shard.path).digest == shard.digest
            except DataError:
                same = False
            except StorageError as error:
                raise Unreadable(str(error)) from None
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
                if error.errno not in FULL or not self._open:
                    raise
                self._close(len(self._open) // 2)  # other parts of the process took more than was left to them
        self._open[path] = descriptor
        self._close(may_open(OPEN))
        return descriptor

    def _close(self, keep: int) -> None:
        while len(self._open) > keep:
            os.close(self._open.popitem(last=False)[1])

    def _forget(self, path: Path) -> None:
        if path in self._open:
            os.close(self._open.pop(path))

    def __getstate__(self) -> dict:
        return {"_open": OrderedDict(), "_scanned": dict(self._scanned)}

    def __del__(self):
        self._close(0)


def is_named(path: Path, descriptor: int, place: Place, headers: bytes) -> bool:
    """Whether what stands before the body names the field and its size."""
    if place.headers == 1 or is_silent(headers[:-BLOCK]):
        last = headers[-BLOCK:]
        if has_name(last, place.key + b"." + place.field.encode(), place.size):  # the usual case, and quick
            return True
        found, wanted = plain_member(last), (place.key.decode(), place.field)
        return found is not None and found[1] == place.size and split_name(found[0]) == wanted
    try:  # a long name, in headers of its own
        members = Archive(path, descriptor).between(place.offset - len(headers), place.offset + padded(place.size))
    except DataError:
        return False
    wanted = [((place.key.decode(), place.field), place.size)]
    return [(split_name(member.name), member.size) for member in members] == wanted


def _unreadable(error: OSError) -> Unreadable:
    if error.errno in FULL:
        return Unreadable(f"the shard cannot be opened: {error.strerror}; {MORE}")
    kind = Vanished if error.errno in (errno.ENOENT, errno.ENOTDIR) else Unreadable
    return kind(f"the shard cannot be read: {error.strerror}")
