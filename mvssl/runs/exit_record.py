"""RUN/exit.json: how the last command on a run ended, or which process still runs.

in   the run folder, and the error that ended the command, if any
out  `{"code": 143, "reason": "...", "host": "...", "process": 17, "started": 1.7e9}`; `code` is null while it runs

Launchers hide exit codes, and a killed process writes nothing. So the file says "running" from the start, and a reader
checks whether that process still exists.
"""

import contextlib
import json
import math
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
from torch.distributed import DistError

from mvssl.checkpoints.state import JsonForm, Number, Text
from mvssl.distributed import collectives
from mvssl.errors import BUG, HANG, Interrupted, MvsslError, OtherProcessError, StorageError
from mvssl.files import read_json, write_file
from mvssl.process.signals import Stopped, StopRequest, exit_code
from mvssl.process.system_errors import as_storage_error

NAME = "exit.json"


class ExitRecord(JsonForm):
    """The content of exit.json. `code` is None while the command runs."""

    code: int | None
    reason: Text
    host: Text = ""
    process: int = 0
    started: Number = 0.0  # seconds since 1970, of the process

    @classmethod
    def of_this_process(cls, code: int | None, reason: str) -> "ExitRecord":
        """Return the record of this process."""
        process = psutil.Process()
        # a path in the reason may hold bytes that are no text
        reason = reason.encode(errors="replace").decode()
        return cls(
            code=code, reason=reason, host=socket.gethostname(), process=process.pid, started=process.create_time()
        )

    @property
    def alive(self) -> bool | None:
        """Whether the process that wrote the record still exists; None if it ran on another host."""
        if self.host != socket.gethostname():
            return None
        try:
            process = psutil.Process(self.process)
            return process.status() != psutil.STATUS_ZOMBIE and math.isclose(
                process.create_time(), self.started, rel_tol=0, abs_tol=1
            )
        except (psutil.Error, ValueError, OverflowError):
            return False

    def __str__(self) -> str:
        if self.code is not None:
            return f"ended with code {self.code}: {self.reason}"
        where = f"process {self.process} on {self.host}"
        return {
            True: f"running as {where}",
            False: f"killed: {where} ended and left no exit code",
            None: f"running as {where}, unless it was killed there",
        }[self.alive]


def write_running(folder: Path, reason: str = "running") -> None:
    """Write that this process works in the run folder. Raise `StorageError`."""
    write_file(folder / NAME, json.dumps(ExitRecord.of_this_process(None, reason).model_dump(), indent=1))


def write_end(folder: Path, error: BaseException | None, first: bool = True) -> None:
    """Write how the command ended.

    Of several processes, the one that knows the reason writes it. A process that only lost the others (`first` is
    false, or the error is an `OtherProcessError`) does not replace a reason that is already there.
    """
    if not folder.is_dir() or (error is None and collectives.rank()):
        return
    before = read_exit(folder)
    if (not first or isinstance(error, OtherProcessError)) and before is not None and before.code is not None:
        return
    code = error.code if isinstance(error, MvsslError) else 0 if error is None else BUG
    reason = "finished" if error is None else str(error) or type(error).__name__
    record = ExitRecord.of_this_process(code, reason)
    text = json.dumps(record.model_dump(), indent=1)
    try:
        write_file(folder / NAME, text)
    except (OSError, StorageError):  # a full disk has no room for a second file, so overwrite the file in place
        with contextlib.suppress(OSError), open(folder / NAME, "r+b", buffering=0) as handle:
            handle.truncate(handle.write(text.encode()))


def read_exit(folder: Path) -> ExitRecord | None:
    """Return the content of exit.json, or None if it is missing or damaged."""
    return ExitRecord.parse(read_json(folder / NAME))


@contextlib.contextmanager
def exit_recorded(folder: Path, stop: StopRequest) -> Iterator[None]:
    """Write to RUN/exit.json how the block ends."""
    try:
        yield
    except BaseException as raised:
        write_end(folder, _explained(raised, stop), first=not _is_of_a_lost_process(raised))
        raise
    write_end(folder, None)


@contextlib.contextmanager
def errors_explained(stop: StopRequest) -> Iterator[None]:
    """Turn errors of the machine and of lost processes inside the block into errors of mvssl."""
    try:
        yield
    except BaseException as raised:
        error = _explained(raised, stop)
        raise error from raised.__cause__ if error is raised else raised


def _explained(error: BaseException, stop: StopRequest) -> BaseException:
    """Return the `MvsslError` for a full disk, a lack of memory, a lost process or a signal, else the error itself."""
    if isinstance(error, Stopped):
        return Interrupted(
            "stopped between two parts of the run; the same command continues the run", exit_code(error.number)
        )
    if _is_of_a_lost_process(error):
        if stop.signal is not None:  # all processes were requested to stop, and another one was quicker
            return Interrupted("stopped with the other processes; the same command continues the run", stop.code)
        first = str(error).strip().partition("\n")[0]
        return (
            error
            if isinstance(error, OtherProcessError)
            else OtherProcessError(f"another process is gone: {first[:200]}")
        )
    known = as_storage_error(error)
    if known is None or collectives.world_size() == 1:
        return known or error
    return StorageError(f"process {collectives.rank()} of {collectives.world_size()}: {known}")


def _is_of_a_lost_process(error: BaseException) -> bool:
    """Return whether another process ended without a reason: its connections or its rendezvous store are closed."""
    if isinstance(error, OtherProcessError):
        return error.code == HANG
    if collectives.world_size() == 1 and os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    gone = re.search("closed by peer|reset by peer|connection refused|timed out|broken pipe", str(error), re.IGNORECASE)
    return isinstance(error, DistError | ConnectionError) or (isinstance(error, RuntimeError) and gone is not None)
