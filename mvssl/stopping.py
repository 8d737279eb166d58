"""Being asked to stop: SIGTERM and Ctrl-C as a flag between steps, and as an end at once before the first one.

It needs neither torch nor timm, whose imports take seconds in which a signal is to be a sentence too.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from mvssl.errors import PREEMPTED, Interrupted

TOO_EARLY = "stopped before the first step, so there was nothing to save; the same command goes on"


class Stopped(BaseException):
    """A signal came where nothing is under way that must be finished. No `Exception`, lest someone's handler eat it."""


class StopSignal:
    """Turns SIGTERM and Ctrl-C into a flag that is read once per step; a second signal acts at once."""

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, object] = {}
        self._eager = False

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    @property
    def code(self) -> int:
        """The exit code that tells of the signal: 130 after Ctrl-C, else 143."""
        return 128 + signal.SIGINT if self.received == signal.SIGINT else PREEMPTED

    @contextlib.contextmanager
    def at_once(self, text: str) -> Iterator[None]:
        """Inside, the first signal ends what is under way: `Interrupted` with `text`."""
        self._eager = True
        try:
            yield
        except Stopped:
            raise Interrupted(text, self.code) from None
        finally:
            self._eager = False

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        for each, handler in self._before.items():
            signal.signal(each, handler)  # pyright: ignore[reportArgumentType]
        if self._eager:
            raise Stopped
