"""Files of JSON lines: metrics.jsonl and bad.jsonl, which grow during a run, and mispaired.jsonl.

in   records, one line each; or a file that a kill, a person or another version may have changed
out  complete lines in the file; while the disk is full they wait in memory, and training goes on;
     or the records of a file; damaged lines are left out and reported in a list
"""

import errno
import json
import os
from pathlib import Path
from typing import Any

from mvssl.errors import DataError, StorageError
from mvssl.files import parse_json, write_file
from mvssl.text import warn

_MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ESTALE, errno.ENFILE, errno.EMFILE)
_MOST_WAITING = 100_000  # lines
MAX_LINES_NAMED = 5  # damaged lines of a file whose numbers are reported
MAX_BYTES = 256 * 2**20  # of a file that is read; the rest is left out


def step_of_line(line: Any) -> int | None:
    """Return the step of a line of metrics, or None if it has none."""
    step = line.get("step") if isinstance(line, dict) else None
    return step if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 2**63 else None


def is_plottable(value: Any) -> bool:
    """Return whether this is null or a number that can be plotted; integers of JSON may exceed every float."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300)


class LineFile:
    """Appends records to a file."""

    def __init__(self, file: Path):
        self.file = file
        self._waiting: list[str] = []
        self._warned = False

    def append(self, records: list[dict[str, Any]]) -> None:
        """Write these records and the waiting lines. Raise `StorageError` if waiting cannot help."""
        self._waiting += [json.dumps(record) + "\n" for record in records]
        try:
            _append("".join(self._waiting).encode(), self.file)
        except OSError as error:
            if error.errno not in _MAY_PASS or len(self._waiting) > _MOST_WAITING:
                removed = "; was it removed?" if error.errno == errno.ENOENT else ""
                raise StorageError(f"{self.file} cannot be written: {error.strerror}{removed}") from None
            if not self._warned:
                warn(f"{self.file} cannot be written: {error.strerror}; training goes on, and the lines wait")
            self._warned = True
        else:
            self._waiting, self._warned = [], False


def _append(text: bytes, file: Path) -> None:
    """Append all of `text`, or nothing."""
    handle = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    before = os.fstat(handle).st_size
    try:
        while text:
            text = text[os.write(handle, text) :]
    except OSError:
        os.ftruncate(handle, before)
        raise
    finally:
        os.close(handle)


def cut_lines_after(file: Path, step: int) -> None:
    """Drop the lines that a resumed run will write again, and lines that a kill cut short."""
    if file.is_file():
        lines = file.read_text(errors="replace").splitlines()
        steps = [step_of_line(parse_json(line)) for line in lines]
        kept = [line for line, of in zip(lines, steps, strict=True) if of is not None and of <= step]
        write_file(file, "".join(f"{line}\n" for line in kept))


def read_text(file: Path, damage: list[str]) -> str:
    """Return the text of a file, or "" if there is none; a file over the limit is cut. Raise `DataError`."""
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_BYTES).decode(errors="replace")
            if opened.read(1):
                damage.append(f"{file.name}: everything after {MAX_BYTES:,} bytes")
            return text
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None


def read_json_lines(file: Path, damage: list[str]) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; other lines are reported in `damage`. Raise `DataError`."""
    objects, damaged = [], []
    for number, line in enumerate(read_text(file, damage).split("\n"), 1):
        value = parse_json(line)
        if isinstance(value, dict):
            objects.append(value)
        elif line.strip():
            damaged.append(str(number))
    if damaged:
        more = f" and {len(damaged) - MAX_LINES_NAMED:,} more" if len(damaged) > MAX_LINES_NAMED else ""
        damage.append(f"{file.name}: line {', '.join(damaged[:MAX_LINES_NAMED])}{more}, no JSON object")
    return objects
