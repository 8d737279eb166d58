"""Open a shard, and notice when it is no longer what it was.

in   a path
out  a descriptor, or the error that the way out of it asks for; `Stamp`, by which a file is known again

A file that is not there is a fault of the data (`DataError`). A disk that fails and a process that may open no more
files are none: they end with `StorageError`, so that a supervisor does not take the data for damaged.
"""

import errno
import os
import resource
from pathlib import Path
from typing import NamedTuple

from mvssl.errors import DataError, StorageError
from mvssl.text import printable

FULL = (errno.EMFILE, errno.ENFILE)  # no descriptor is left
_OF_THE_DATA = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


class Stamp(NamedTuple):
    """A file's size and times, and what else moves its ctime."""

    size: int
    mtime: int  # ns
    ctime: int  # ns
    mode: int
    links: int
    owner: int
    group: int

    @classmethod
    def of(cls, file: int | Path) -> "Stamp":
        """Of a descriptor or a path. Raises `OSError`."""
        stat = os.stat(file)
        return cls(
            stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid
        )

    def is_of(self, descriptor: int) -> bool:
        """Whether an open file's content is what it was. Raises `OSError`."""
        stat = os.fstat(descriptor)
        if (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) == self[:3]:  # the usual case, and quick
            return True
        return not self.differs(Stamp.of(descriptor))

    def differs(self, now: "Stamp") -> bool:
        """Whether the content may have changed.

        The ctime moves with every write, also where the mtime was put back. It moves with a new hard link, mode or
        owner too, as backups make them; these are told by the other numbers, and do not count.
        """
        if self[:2] != now[:2]:
            return True
        return self.ctime != now.ctime and self[3:] == now[3:]


def open_shard(path: Path) -> int:
    """A descriptor to read from. Raises `DataError`, `StorageError`."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise fault(path, error) from None


def read(path: Path, descriptor: int, size: int, place: int) -> bytes:
    """Up to `size` bytes from `place` on. Raises `StorageError`, `DataError`."""
    try:
        return os.pread(descriptor, size, place)
    except OSError as error:
        raise fault(path, error) from None


def fault(path: Path, error: OSError) -> DataError | StorageError:
    """The error to raise for what the system says of a shard."""
    name, reason = printable(str(path)), error.strerror
    if error.errno in FULL:
        return StorageError(f"shard {name} cannot be opened: {reason}; {MORE}")
    if error.errno in _OF_THE_DATA:
        return DataError(f"shard {name} cannot be opened: {reason}")
    return StorageError(f"shard {name} cannot be read: {reason}")


MORE = "allow more open files (ulimit -n 1024)"


def may_open(most: int, each: int = 1) -> int:
    """How many things that open `each` files this process may have open at once: at most `most`, at least 1.

    A quarter of the limit is for shards, the rest for libraries, loader processes and the network.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if soft == resource.RLIM_INFINITY else max(1, min(most, soft // (4 * each)))
