"""Loops in processes of their own are measured in turns; no speed is tested."""

import json

from mvssl.bench.growth import Setting
from mvssl.bench.processes.loop_processes import bench_busy, bench_processes

SMALL = Setting(batch=8, pixels=16)


def test_two_processes_are_measured_beside_one_with_two_threads(tmp_path):
    file = tmp_path / "processes.json"
    result = bench_processes(setting=SMALL, rounds=1, steps=2, json_file=file)
    assert json.loads(file.read_text())["rows"] == json.loads(json.dumps(result["rows"]))
    (row,) = result["rows"]
    assert list(row["seconds"]) == ["2 processes", "1 process, 2 threads"]
    assert row["ratio"] > 0
    assert "waits for the other" in result["bottleneck"]


def test_the_loop_is_measured_alone_and_beside_a_busy_process():
    result = bench_busy(setting=SMALL, rounds=1, steps=3)
    alone, beside, kept = result["rows"]
    assert kept["seconds"] == {
        "short spins": beside["seconds"]["short spins"],
        "alone": alone["seconds"]["short spins"],
    }
