"""Standard streams that can be written to the end, whatever the caller closed."""

import contextlib
import os
import sys
from typing import IO

from mvssl.errors import BROKEN_PIPE, StorageError


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
