"""Lines of a run: complete, in order, and none lost while the disk is full."""

import errno
import json
import os

import pytest

from mvssl.errors import StorageError
from mvssl.runs.line_files import LineFile, cut_lines_after


def test_lines_wait_while_the_disk_is_full_and_none_is_lost(tmp_path, monkeypatch):
    file = tmp_path / "metrics.jsonl"
    lines = LineFile(file)
    lines.append([{"step": 1}])
    write, room = os.write, [3]

    def full(handle: int, text: bytes) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = write(handle, text[: room[0]])
        room[0] = 0
        return taken

    monkeypatch.setattr(os, "write", full)
    lines.append([{"step": 2}])
    lines.append([{"step": 3}, {"step": 4}])
    assert file.read_text() == '{"step": 1}\n'
    monkeypatch.setattr(os, "write", write)
    lines.append([{"step": 5}])
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3, 4, 5]


def test_a_folder_that_was_removed_is_an_error(tmp_path):
    with pytest.raises(StorageError):
        LineFile(tmp_path / "gone" / "metrics.jsonl").append([{"step": 1}])


@pytest.mark.parametrize("tail", ["", '{"step": 5, "lo', "garbage\n", "[]\n", '{"step": "6"}\n', "[" * 50_000 + "\n"])
def test_a_resumed_run_drops_later_and_damaged_lines(tmp_path, tail):
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps({"step": step}) + "\n" for step in (1, 2, 3, 4)) + tail)
    cut_lines_after(file, 3)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3]
