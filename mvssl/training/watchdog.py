"""The watchdog: it finds a process that hangs and ends the run with a message that names this process.

in   a beat from the training loop whenever it begins a part of a step; the seconds without a beat that count as a hang
out  RUN/.alive/N, the state of process N of several; after a hang RUN/hang-N.txt with the stacks, exit.json, code 75

A thread watches, because the main thread can do nothing while it waits in a collective, for a disk or for a device.
It does not count as a hang if all processes of a run are suspended and continued. Loader processes that hang are
killed: the main thread, which may be reading from one, then gets an error and can save. If the launcher has ended, the
thread asks the run to save and stop.
"""

import contextlib
import faulthandler
import os
import re
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from mvssl.checkpoints.state import JsonForm
from mvssl.data import kill_workers
from mvssl.distributed import collectives
from mvssl.errors import HangError
from mvssl.files import read_json, written_beside
from mvssl.process.signals import StopRequest
from mvssl.runs import exit_record

FOLDER = ".alive"
_TICK = 1.0  # seconds between two checks
_MARGIN = 20.0  # seconds for the main thread to save, after its loader processes are killed
_LAST_WAIT = 5.0  # seconds for the next batch, after a single process is asked to stop
FOR_DATA, IN_A_CHECK = "waiting for data", "in a check"
_DOING = {
    "data": FOR_DATA,
    "views": "drawing views",
    "guard": "in the model",
    "model": "in the model",
    "log": "logging",
}


class ProcessState(JsonForm):
    """What a process does, in RUN/.alive/N."""

    step: int = 0
    doing: str = ""
    beats: int = 0
    at: str = ""  # file and line of the main thread
    waits: bool = False  # whether the main thread waits for other processes
    host: str = ""
    process: int = 0
    written: float = 0.0  # seconds since 1970


class Watchdog:
    """Watches this process, and the other processes through their files, inside a `with` block."""

    def __init__(self, folder: Path, limit: float, stop: StopRequest, launcher: int, step: int = 0):
        self.folder, self.limit, self.stop = folder, limit, stop
        self.loader_hang = ""  # the message about loader processes that hung and were killed
        self.tick = min(_TICK, limit / 10)
        self.doing, self.step, self.beats = "starting", step, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="mvssl watchdog")
        launched = (
            collectives.world_size() > 1 or "ACCELERATE_MIXED_PRECISION" in os.environ
        )  # accelerate launch sets it
        self._launcher = launcher if launched else None  # process number

    def beat(self, step: int, doing: str) -> None:
        """Record that the loop, after `step` steps, begins to wait for data, run the model, save or check."""
        self.step, self.doing = step, doing
        self.beats += 1

    def enter(self, part: str) -> None:
        """Record that the next step begins a part, see `mvssl.training.step`."""
        self.beat(self.step, _DOING.get(part, "in the model"))

    def is_stop_asked(self) -> bool:
        """Return whether this process was asked to stop; a check calls it after every batch."""
        self.beat(self.step, IN_A_CHECK)
        return self.stop.is_requested()

    def __enter__(self) -> "Watchdog":
        if collectives.world_size() > 1:
            self._write()  # now, as a process may be suspended before its thread first runs
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if collectives.world_size() > 1 and collectives.rank() == 0:
            shutil.rmtree(self.folder / FOLDER, ignore_errors=True)

    def _watch(self) -> None:
        idle, seen, written, before = 0.0, -1, -self.limit, time.monotonic()
        earlier: dict[int, ProcessState] | None = None  # of all processes, some time before the limit
        while not self._over.wait(self.tick):
            now = time.monotonic()
            # if the process itself was suspended, at most two ticks count
            idle, before = idle + min(now - before, 2 * self.tick), now
            if self.beats != seen:
                idle, seen, earlier = 0.0, self.beats, None
            if collectives.world_size() > 1 and now - written > self.limit / 10:
                self._write()
                written = now
            if self._launcher is not None and os.getppid() != self._launcher:
                self._launcher = None
                os.kill(os.getpid(), signal.SIGTERM)
            if earlier is None and idle > 0.7 * self.limit:
                earlier = self._read()
            self._help_main_thread(idle)
            if idle > self.limit + (_MARGIN if self.loader_hang else 0) and self.beats == seen:
                self._end(earlier or {})

    def _help_main_thread(self, idle: float) -> None:
        """Kill loader processes that hang while the main thread waits for them."""
        if self.doing not in (FOR_DATA, IN_A_CHECK):
            return
        if collectives.world_size() == 1 and self.stop.signal and idle > _LAST_WAIT:
            kill_workers()
        if idle > self.limit and not self.loader_hang:
            states = kill_workers()
            self.loader_hang = self._format_reason(states) if states else ""

    def _format_reason(self, cause: str) -> str:
        return f"no progress for {self.limit:g} s (train.hang_timeout): {cause}; start the same command again"

    def _write(self) -> None:
        (at, waits), file = _locate_main_thread(), self.folder / FOLDER / str(collectives.rank())
        with contextlib.suppress(OSError, ValueError):  # ValueError: a path or host name that is no text
            state = ProcessState(
                step=self.step, doing=self.doing, beats=self.beats, at=at, waits=waits, host=socket.gethostname(),
                process=os.getpid(), written=time.time(),
            )  # fmt: skip
            file.parent.mkdir(exist_ok=True)
            with written_beside(file) as beside:
                beside.write_text(state.model_dump_json())

    def _end(self, earlier: dict[int, ProcessState]) -> None:
        """Report which process hangs, write the stacks, and exit without waiting for other processes."""
        reason = self.loader_hang or self._format_reason(self._find_hanging(earlier))
        with contextlib.suppress(OSError), open(self.folder / f"hang-{collectives.rank()}.txt", "w") as file:
            faulthandler.dump_traceback(file, all_threads=True)
        exit_record.write_end(self.folder, HangError(reason))
        with contextlib.suppress(OSError):
            os.write(2, f"mvssl (process {collectives.rank()}): {reason}\n".encode())
        kill_workers()
        sys.stderr.flush()
        os._exit(HangError.code)

    def _find_hanging(self, earlier: dict[int, ProcessState]) -> str:
        """Return in words which process hangs, as far as this one can see."""
        now = self._read()
        if collectives.world_size() == 1 or not now:
            return f"process {os.getpid()} hangs {self.doing}, after step {self.step}, at {_locate_main_thread()[0]}"
        absent = [n for n in range(collectives.world_size()) if n not in now]
        if absent:
            return f"process {', '.join(map(str, absent))} wrote nothing to {self.folder / FOLDER}"
        stopped = [n for n in now if now[n] == earlier.get(n) and n != collectives.rank()]
        if stopped:  # their watchdogs do not run either
            return "; ".join(f"{_describe_process(n, now[n])} does not run" for n in stopped)
        behind = min(now, key=lambda n: (now[n].beats, now[n].waits, n))
        where = f"hangs {now[behind].doing}, at {now[behind].at}"
        return f"{_describe_process(behind, now[behind])} {where}; the others wait for it"

    def _read(self) -> dict[int, ProcessState]:
        """Return the states of all processes, as far as they can be read."""
        read = {
            n: ProcessState.parse(read_json(self.folder / FOLDER / str(n))) for n in range(collectives.world_size())
        }
        return {n: state for n, state in read.items() if state is not None}


def _locate_main_thread() -> tuple[str, bool]:
    """Return file and line of the main thread, and whether it waits there for other processes."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "an unknown place", False
    innermost = [frame, frame.f_back, frame.f_back and frame.f_back.f_back]
    files = [each.f_code.co_filename for each in innermost if each is not None]
    waits = any(re.search(r"torch/(distributed|autograd)/|mvssl/distributed/", file) for file in files)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}", waits


def _describe_process(n: int, state: ProcessState) -> str:
    return f"process {n} ({state.process} on {state.host}, after step {state.step})"
