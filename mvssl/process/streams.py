"""Standard streams of a command: they stay usable if the caller closes one or stops reading.

`mvssl train ... 2>&1 | tee log` loses its reader when tee is killed. A log file may fill its disk, and a terminal may
be closed. The run continues, and its folder records what it did.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO, Any, TextIO

from mvssl.errors import BROKEN_PIPE, StorageError


def reopen_closed_streams() -> None:
    """Open /dev/null for each standard stream that the caller closed. Otherwise the next open file gets its number."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this stream's
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 stays open


def flush_stdout(code: int) -> int:
    """Flush standard output and return the exit code: `code`, or the code of the error if flushing fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = code or BROKEN_PIPE
        discard_output(sys.stdout)
    except OSError as error:
        code = code or StorageError.code
        discard_output(sys.stdout)
        print_error(f"standard output cannot be written: {error.strerror}")
    return code


def print_error(text: str) -> None:
    """Print a message on standard error, with the rank unless it is 0. Do nothing if it cannot be read."""
    rank = os.environ.get("RANK", "0")
    try:
        print(f"mvssl{'' if rank == '0' else f' (process {rank})'}: {text}", file=sys.stderr, flush=True)
    except OSError:
        discard_output(sys.stderr)


def discard_output(stream: IO) -> None:
    """Send the rest of a stream's output to /dev/null; otherwise Python reports an error when it exits."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _TolerantStream:
    """A text stream that ignores errors of writing. After the first error it writes nothing more."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        with self._errors_dropped():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._errors_dropped():
            self._stream.flush()

    @contextlib.contextmanager
    def _errors_dropped(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            discard_output(self._stream)  # also the text in the buffer, and what torch's C++ code prints

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def tolerant_stderr() -> Iterator[None]:
    """Inside the block, writing to standard error never raises."""
    before = sys.stderr
    sys.stderr = _TolerantStream(before)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stderr = before
