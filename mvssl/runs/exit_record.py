"""RUN/exit.json: how the last command on a run ended, or which process still runs.

in   the run folder, and the error that ended the command, if any
out  `{"code": 143, "reason": "...", "host": "...", "process": 17, "started": 1.7e9}`; `code` is null while it runs

Launchers hide exit codes, and a killed process writes nothing. So the file says "running" from the start, and a reader
checks whether that process still exists.
"""

import contextlib
import json
import math
import socket
from pathlib import Path

import psutil

from mvssl.checkpoints.state import JsonForm, Number, Text
from mvssl.distributed import collectives
from mvssl.errors import BUG, ElsewhereError, MvsslError, StorageError
from mvssl.files import read_json, write_file

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
    _write(folder, ExitRecord.of_this_process(None, reason))


def write_end(folder: Path, error: BaseException | None, first: bool = True) -> None:
    """Write how the command ended.

    Of several processes, the one that knows the reason writes it. A process that only lost the others (`first` is
    false, or the error is an `ElsewhereError`) does not replace a reason that is already there.
    """
    if not folder.is_dir() or (error is None and collectives.rank()):
        return
    before = read_exit(folder)
    if (not first or isinstance(error, ElsewhereError)) and before is not None and before.code is not None:
        return
    code = error.code if isinstance(error, MvsslError) else 0 if error is None else BUG
    reason = "finished" if error is None else str(error) or type(error).__name__
    record = ExitRecord.of_this_process(code, reason)
    try:
        _write(folder, record)
    except (OSError, StorageError):
        with contextlib.suppress(OSError):
            _write_over(folder / NAME, record)


def read_exit(folder: Path) -> ExitRecord | None:
    """Return the content of exit.json, or None if it is missing or damaged."""
    return ExitRecord.parse(read_json(folder / NAME))


def _write(folder: Path, record: ExitRecord) -> None:
    write_file(folder / NAME, json.dumps(record.model_dump(), indent=1))


def _write_over(file: Path, record: ExitRecord) -> None:
    """Overwrite the file in place, because a full disk has no room for a second file."""
    text = json.dumps(record.model_dump(), indent=1).encode()
    with open(file, "r+b", buffering=0) as handle:
        handle.truncate(handle.write(text))
