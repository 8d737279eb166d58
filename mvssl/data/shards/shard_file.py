"""Open a shard, read from it, and notice when it has changed.

in   a path
out  a `ShardFile` to read from; a `FileStamp`, by which a file is recognized later

A file that is absent is a fault of the data (`DataError`). A disk that fails, or a process that may open no more files,
is not: it raises `StorageError`, so that a supervisor does not take the data for damaged.
"""

import errno
import os
import resource
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from mvssl.errors import DataError, StorageError
from mvssl.text import printable

NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
MORE_FILES = "allow more open files (ulimit -n 1024)"
_CHUNK = 1 << 24  # bytes of a body that are read at once for its digest
_OF_THE_DATA = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


class FileStamp(NamedTuple):
    """A file's size and times, and the numbers whose change moves its ctime without a write."""

    size: int
    mtime: int  # ns
    ctime: int  # ns
    mode: int
    links: int
    owner: int
    group: int

    @classmethod
    def of(cls, file: int | Path) -> "FileStamp":
        """Return the stamp of a descriptor or a path. Raise `OSError`."""
        stat = os.stat(file)
        return cls(
            stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid
        )

    def matches(self, descriptor: int) -> bool:
        """Return whether an open file's content is unchanged. Raise `OSError`."""
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) == self[:3]:  # the usual case, and quick
            return True
        return not self.differs(FileStamp.of(descriptor))

    def differs(self, now: "FileStamp") -> bool:
        """Return whether the content may have changed.

        The ctime moves with every write, even if the mtime was put back. It also moves with a new hard link, mode or
        owner, as backups make them. The other numbers show these, and they do not count as a change.
        """
        if self[:2] != now[:2]:
            return True
        return self.ctime != now.ctime and self[3:] == now[3:]


def stamp_shard(path: Path, descriptor: int | None = None) -> FileStamp:
    """Return the stamp of a shard, which may be open. Raise `DataError`, `StorageError`."""
    try:
        return FileStamp.of(path if descriptor is None else descriptor)
    except OSError as error:
        raise shard_error(path, error) from None


class ShardFile(NamedTuple):
    """A shard that is open for reading. Its methods raise `StorageError` or `DataError`."""

    path: Path
    descriptor: int

    def stamp(self) -> FileStamp:
        return stamp_shard(self.path, self.descriptor)

    def read(self, size: int, place: int) -> bytes:
        """Return up to `size` bytes from byte `place` on."""
        try:
            return os.pread(self.descriptor, size, place)
        except OSError as error:
            raise shard_error(self.path, error) from None

    def digest(self, offset: int, size: int) -> int:
        """Return the digest of the `size` bytes from `offset` on, read in parts."""
        value = 0
        for place in range(offset, offset + size, _CHUNK):
            length = min(_CHUNK, offset + size - place)
            part = self.read(length, place)
            if len(part) < length:
                raise DataError(f"shard {printable(str(self.path))} became shorter while it was read")
            value = body_digest(part, value)
        return value


@contextmanager
def open_shard(path: Path) -> Iterator[ShardFile]:
    """Yield a shard to read from. Raise `DataError`, `StorageError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise shard_error(path, error) from None
    try:
        yield ShardFile(path, descriptor)
    finally:
        os.close(descriptor)


def body_digest(data: bytes, before: int = 0) -> int:
    """Return the CRC-32, which finds every flipped bit and all damage within 32 bits; other damage passes once in 4e9.

    A cryptographic hash would find no more: who can change a shard can also change the index beside it. blake2b took
    4.4 times as long, for 3 kB and for 30 kB.
    """
    return zlib.crc32(data, before)


def shard_error(path: Path, error: OSError) -> DataError | StorageError:
    """Return the error to raise if the system cannot open or read a shard."""
    name, reason = printable(str(path)), error.strerror
    if error.errno in NO_DESCRIPTORS:
        return StorageError(f"shard {name} cannot be opened: {reason}; {MORE_FILES}")
    if error.errno in _OF_THE_DATA:
        return DataError(f"shard {name} cannot be opened: {reason}")
    return StorageError(f"shard {name} cannot be read: {reason}")


def open_file_share(most: int, each: int = 1) -> int:
    """Return how many things that open `each` files this process may have open at once, from 1 to `most`.

    A quarter of the limit of open files is for shards, the rest for libraries, loader processes and the network.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft // (4 * each)))
