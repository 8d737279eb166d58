"""Turn errors of the operating system and of memory into a `StorageError` that says what to do.

in   an exception
out  a `StorageError`, or None for any other exception
"""

import errno
import os
import re

from mvssl.errors import MvsslError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FILES = (errno.EMFILE, errno.ENFILE)
OTHER = (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE)
OTHER += (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
NO_MEMORY = re.compile("out of memory|can.t allocate memory|cannot allocate memory|not enough memory", re.IGNORECASE)
NO_FILES = re.compile("too many open files", re.IGNORECASE)


def as_storage_error(error: BaseException) -> MvsslError | None:
    """Return the `StorageError` for an error of disk, open files, permissions or memory, else None."""
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and NO_MEMORY.search(str(error))):
        return StorageError(
            f"out of memory{f': {first}' if first else ''}; take a smaller data.batch_size, smaller views or encoder, "
            "or fewer data.workers"
        )
    number = error.errno if isinstance(error, OSError) else None
    if number in FILES or (isinstance(error, RuntimeError | OSError) and NO_FILES.search(str(error))):
        return StorageError("too many open files; raise the limit, as with `ulimit -n 4096`, or lower data.workers")
    if isinstance(error, OSError) and number in (*FULL, *OTHER):
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        hint = "; free some space and start again" if number in FULL else ""
        return StorageError(f"reading or writing failed: {place}{error.strerror}{hint}")
    return None
