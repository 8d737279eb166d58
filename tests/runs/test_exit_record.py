"""exit.json: running, killed, or ended."""

import json
import os
import subprocess
import sys

import psutil
import pytest

from mvssl.errors import DataError, OtherProcessError, StorageError
from mvssl.runs import exit_record
from mvssl.runs.exit_record import ExitRecord, read_exit, write_end, write_running


def ended(folder) -> tuple[int | None, str]:
    record = read_exit(folder)
    return record.code, record.reason


def test_a_record_is_running_during_a_command_and_then_has_its_code(tmp_path):
    write_running(tmp_path)
    found = read_exit(tmp_path)
    assert (found.code, found.process, found.alive) == (None, os.getpid(), True)
    write_end(tmp_path, DataError("no shards"))
    assert ended(tmp_path) == (65, "no shards")


def test_a_missing_process_counts_as_killed_also_if_its_number_is_reused(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(child.pid).create_time()
    child.wait()
    host = exit_record.socket.gethostname()
    gone = ExitRecord(code=None, reason="running", host=host, process=child.pid, started=started)
    again = gone.model_copy(update={"process": os.getpid(), "started": started - 1000})
    assert [gone.alive, again.alive] == [False, False]
    assert gone.model_copy(update={"host": "elsewhere"}).alive is None


def test_a_process_that_lost_its_peers_keeps_their_reason(tmp_path):
    write_running(tmp_path)
    write_end(tmp_path, DataError("the reason"))
    write_end(tmp_path, OtherProcessError("a peer is gone"))
    assert read_exit(tmp_path).reason == "the reason"
    write_running(tmp_path)
    write_end(tmp_path, OtherProcessError("a peer is gone"))
    assert read_exit(tmp_path).code == 75


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"code": "0", "reason": 1}', "[" * 100_000, '{"code": 0}', "\x00"])
def test_an_invalid_record_reads_as_none(tmp_path, text):
    (tmp_path / "exit.json").write_text(text)
    assert read_exit(tmp_path) is None


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    (tmp_path / "exit.json").write_text(json.dumps({"code": 143, "reason": "stopped"}))
    assert ended(tmp_path) == (143, "stopped")


def test_on_a_full_disk_the_end_overwrites_the_running_record(tmp_path, monkeypatch):
    write_running(tmp_path, "running, " + "and so on, " * 20)

    def full(*_):
        raise StorageError("No space left on device")

    monkeypatch.setattr(exit_record, "write_file", full)
    write_end(tmp_path, StorageError("the disk is full"))
    assert ended(tmp_path) == (74, "the disk is full")
