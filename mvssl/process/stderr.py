"""Standard error of a long run: the run continues when its reader is gone.

`mvssl train ... 2>&1 | tee log` loses its reader when tee is killed. A log file may fill its disk, and a terminal may
be closed. The run folder records what the run did in any case.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from mvssl.process.streams import discard_output


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
