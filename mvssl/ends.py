"""How a command ends when the machine gives out: a sentence and a code for what is no `MvsslError`.

in   an exception, the streams of the process
out  an `MvsslError`, or None for a bug; streams that can be written, whatever the caller closed
"""

import contextlib
import errno
import os
import re
import sys
from typing import IO

from mvssl.errors import BROKEN_PIPE, MvsslError, StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FILES = (errno.EMFILE, errno.ENFILE)
OTHER = (errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.ESTALE)
OTHER += (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
NO_MEMORY = re.compile("out of memory|can.t allocate memory|cannot allocate memory|not enough memory", re.IGNORECASE)
NO_FILES = re.compile("too many open files", re.IGNORECASE)


def as_known(error: BaseException) -> MvsslError | None:
    """The sentence for a machine that gave out: disk, files, rights, memory. None for anything else."""
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
        way_out = "; make room and start again" if number in FULL else ""
        return StorageError(f"reading or writing failed: {place}{error.strerror}{way_out}")
    return None


def open_streams() -> None:
    """Put /dev/null where the caller closed a standard stream, lest the next file that is opened takes its place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 to the end


def flushed(code: int) -> int:
    """The exit code once all that was printed is written: `code`, or another where that fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or BROKEN_PIPE
        give_up(sys.stdout)
    except OSError as error:
        code = code or StorageError.code
        give_up(sys.stdout)
        complain(f"standard output cannot be written: {error.strerror}")
    return code


def complain(text: str) -> None:
    """On standard error, with the process's number where it is not the main one; silent where nobody reads it."""
    rank = os.environ.get("RANK", "0")
    try:
        print(f"mvssl{'' if rank == '0' else f' (process {rank})'}: {text}", file=sys.stderr, flush=True)
    except OSError:
        give_up(sys.stderr)


def give_up(stream: IO) -> None:
    """Send what is still to be printed nowhere; Python would complain of it at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
