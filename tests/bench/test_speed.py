"""Benchmarks run, their shares sum to 1, and they record the machine; no speed is tested."""

import json

import pytest

from mvssl.bench import bench_reader, bench_train


def test_the_loop_is_measured_against_its_own_model(recipe, tmp_path, capsys):
    result = bench_train(recipe, rounds=2, steps=4, block=0.0, json_file=tmp_path / "train.json")
    assert json.loads((tmp_path / "train.json").read_text()) == json.loads(json.dumps(result))
    alone, parts, wall = result["rows"]
    assert result["ratio"] == min(row["ratio"] for row in result["rows"])
    assert alone["beside"] == wall["beside"] == "the bare model"
    assert parts["seconds"]["the loop"] == alone["seconds"]["the loop"]
    assert parts["seconds"]["model + reading + views"] > alone["seconds"]["the bare model"]
    assert result["overhead_ms"] > 0
    assert sum(result["shares"].values()) == pytest.approx(1)
    assert {"model", "data", "copy", "views", "guard", "log"} == set(result["shares"])
    assert result["hardware"]["cores"] >= 1
    assert not (tmp_path / "run").exists()


def test_the_reader_reports_samples_per_second(recipe):
    assert bench_reader(recipe, seconds=0.01)["samples_per_second"] > 0
