"""Signals that ask a process to stop, or to save.

in   SIGTERM, SIGINT (Ctrl-C) and SIGHUP ask to save and stop; SIGUSR1 asks to save and go on
out  `StopSignal`: flags that the training loop reads between steps; elsewhere the work ends at once with `Interrupted`

The first request to stop counts, and later ones change nothing: launchers, schedulers and terminals send several. A
signal that was ignored when the process started stays ignored, as `nohup` wants it.
The module needs neither torch nor timm. Their imports take seconds, in which a signal may come as well.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from mvssl.errors import Interrupted

BEFORE_FIRST_STEP = "stopped before the first step, so there was nothing to save; the same command goes on"
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
_HANDLED = (*CODES, signal.SIGUSR1)


def exit_code(number: int) -> int:
    """143, 130 or 129: 128 and the number of the signal, as shells have it."""
    return CODES[signal.Signals(number)]


class Stopped(BaseException):
    """A signal came during work that may end at once. Not an `Exception`, so that no handler for errors catches it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class StopSignal:
    """What the signals of this process have asked for so far."""

    def __init__(self):
        self.received: int | None = None  # the first signal that asked to stop
        self.save_asked = False  # SIGUSR1 came; whoever has saved sets it back
        self._ends_at_once = False
        self._process = os.getpid()

    def is_asked(self) -> bool:
        """Return whether a signal asked this process to stop."""
        return self.received is not None

    @property
    def code(self) -> int:
        """The exit code that belongs to the signal: 143, 130 or 129."""
        return exit_code(self.received or signal.SIGTERM)

    @contextlib.contextmanager
    def at_once(self, text: str) -> Iterator[None]:
        """Inside, a signal ends the work at once: `Interrupted` with `text`, after its `finally` clauses have run."""
        if self.received is None:
            with contextlib.suppress(Stopped), self._ending_at_once(True):
                yield
        if self.received is not None:
            raise Interrupted(text, self.code)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, a signal only sets a flag."""
        with self._ending_at_once(False):
            yield

    @contextlib.contextmanager
    def _ending_at_once(self, value: bool) -> Iterator[None]:
        before, self._ends_at_once = self._ends_at_once, value
        try:
            yield
        finally:
            self._ends_at_once = before

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a child process between its fork and its own handlers: its parent decides
        if number == signal.SIGUSR1:
            self.save_asked = True
            self._say("SIGUSR1 received: saves after this step and goes on")
            return
        if self.received is not None:
            return
        self.received = number
        if self._ends_at_once:
            raise Stopped(number)
        self._say(f"{signal.Signals(number).name} received: saves and stops")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError):  # not print: the signal may have interrupted another print
            os.write(2, f"mvssl: {text}\n".encode())


_active: StopSignal | None = None


@contextlib.contextmanager
def stop_signals(restore: bool = True) -> Iterator[StopSignal]:
    """Install the handlers. Afterwards the earlier ones are back or, without `restore`, the signals are ignored.

    Inside another `stop_signals` it gives that one's `StopSignal`. Outside the main thread, where Python allows no
    handlers, the flags stay unset.
    """
    global _active
    if _active is not None:
        yield _active
        return
    stop, before = StopSignal(), {}
    if threading.current_thread() is threading.main_thread():
        _active = stop
        for number in _HANDLED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, stop._handle)
    try:
        yield stop
    finally:
        _active = None
        for number, handler in before.items():
            signal.signal(number, (handler or signal.SIG_DFL) if restore else signal.SIG_IGN)


def ignore_signals() -> None:
    """From here on no signal ends this process: for loader processes, and for the last moments of others."""
    for number in _HANDLED:
        signal.signal(number, signal.SIG_IGN)
