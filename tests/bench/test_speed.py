"""Benchmarks run, their shares sum to 1, and they record the machine; no speed is tested."""

import json

import pytest

from mvssl.bench import bench_reader, bench_train
from mvssl.bench.speed import compute_shares


def test_the_loop_is_measured_against_its_own_model(recipe, tmp_path, capsys):
    result = bench_train(recipe, blocks=2, steps=4, json_file=tmp_path / "train.json")
    assert json.loads((tmp_path / "train.json").read_text()) == result
    low, high = result["ratio_spread"]
    assert 0 < low <= result["ratio"] <= high
    assert sum(result["shares"].values()) == pytest.approx(1)
    assert {"model", "data", "copy", "views", "guard", "log", "checkpoint"} == set(result["shares"])
    assert result["hardware"]["cores"] >= 1
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_counts_for_its_share_of_steps():
    assert compute_shares({"model": 3.0, "data": 1.0}, saving=1.0, step=9.0) == pytest.approx(
        {"model": 0.75 * 0.9, "data": 0.25 * 0.9, "checkpoint": 0.1}
    )


def test_the_reader_reports_samples_per_second(recipe):
    assert bench_reader(recipe, seconds=0.01)["samples_per_second"] > 0
