"""Signals that ask a process to stop, or to save.

in   SIGTERM, SIGINT (Ctrl-C) and SIGHUP request to save and stop; SIGUSR1 requests to save and continue
out  `StopRequest`: flags that the training loop reads between steps; other work is interrupted with `Interrupted`

The first request to stop counts. Later ones change nothing, because launchers, schedulers and terminals send several.
A signal that was ignored when the process started stays ignored: `nohup` relies on this.
The module imports neither torch nor timm. Their imports take seconds, and a signal may come during them.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from mvssl.errors import Interrupted

BEFORE_FIRST_STEP = "stopped before the first step, so there was nothing to save; the same command continues the run"
CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGHUP: 129}
_HANDLED = (*CODES, signal.SIGUSR1)


def exit_code(number: int) -> int:
    """Return 143, 130 or 129: 128 plus the number of the signal, as shells do."""
    return CODES[signal.Signals(number)]


class Stopped(BaseException):
    """A signal came during interruptible work. It is no `Exception`, so that no error handler catches it."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class StopRequest:
    """The requests to stop or to save that signals have made to this process."""

    def __init__(self):
        self.signal: int | None = None  # the number of the first signal that requested to stop
        self.save_requested = False  # set by SIGUSR1; the code that saves resets it
        self._interrupts = False
        self._process = os.getpid()

    def is_requested(self) -> bool:
        """Return whether a signal requested this process to stop."""
        return self.signal is not None

    @property
    def code(self) -> int:
        """The exit code of the signal: 143, 130 or 129."""
        return exit_code(self.signal or signal.SIGTERM)

    @contextlib.contextmanager
    def interruptible(self, text: str) -> Iterator[None]:
        """End the work in the block when a signal comes. Raise `Interrupted` with `text` after its `finally` clauses.

        A request that came before the block raises at the end of the block.
        """
        if self.signal is None:
            with contextlib.suppress(Stopped), self._set_interrupts(True):
                yield
        if self.signal is not None:
            raise Interrupted(text, self.code)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside the block, a signal only sets a flag."""
        with self._set_interrupts(False):
            yield

    @contextlib.contextmanager
    def _set_interrupts(self, value: bool) -> Iterator[None]:
        before, self._interrupts = self._interrupts, value
        try:
            yield
        finally:
            self._interrupts = before

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a forked child that has no handlers of its own yet; its parent decides
        if number == signal.SIGUSR1:
            self.save_requested = True
            self._print("SIGUSR1 received: saving after this step, then continuing")
            return
        if self.signal is not None:
            return
        self.signal = number
        if self._interrupts:
            raise Stopped(number)
        self._print(f"{signal.Signals(number).name} received: saving, then stopping")

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # not print(): the signal may have interrupted another print()
            os.write(2, f"mvssl: {text}\n".encode())


_active: StopRequest | None = None


@contextlib.contextmanager
def stop_signals(restore: bool = True) -> Iterator[StopRequest]:
    """Install signal handlers and yield the `StopRequest` that they set.

    At the end the earlier handlers are restored; without `restore` the signals are ignored from then on.
    A nested call yields the `StopRequest` of the outer call. Python allows handlers in the main thread only, so in
    other threads the flags stay unset.
    """
    global _active
    if _active is not None:
        yield _active
        return
    stop, before = StopRequest(), {}
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
    """Ignore the signals from now on: for loader processes, and for other processes that are about to end."""
    for number in _HANDLED:
        signal.signal(number, signal.SIG_IGN)
