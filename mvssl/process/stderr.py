"""Standard error of a long run: whoever reads it may go away, and the run goes on.

`mvssl train ... 2>&1 | tee log` loses its reader when tee is killed, a log file may fill its disk, and a terminal may
hang up. What a run did stands in its folder in any case.
"""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from mvssl.process.streams import give_up


class _Forgiving:
    """A text stream whose errors are dropped: after the first one nothing more is written."""

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
            give_up(self._stream)  # also what is still in the buffer, and what torch's own code prints

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def forgiving_stderr() -> Iterator[None]:
    """Inside, standard error never fails."""
    before = sys.stderr
    sys.stderr = _Forgiving(before)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stderr = before
