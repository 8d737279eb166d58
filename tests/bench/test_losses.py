"""The ways of `bench losses` compute the same; peak memory is that of known work."""

from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from mvssl.bench import losses
from mvssl.bench.losses import bench_losses, build_amdim_case, build_cmc_case, build_dim_case
from mvssl.bench.memory import measure_operations, measure_peak
from mvssl.bench.timing import CPU
from mvssl.objectives.estimators import EstimatorName


def gradients(case):
    """Of ours and the plain form; lightly's loss takes further negatives."""
    return [way() for name, way in case.build_ways().items() if name != "lightly"]


def test_ours_and_the_dense_form_of_cmc_have_the_same_gradients():
    ours, dense = gradients(build_cmc_case(300))
    assert_close(ours, dense, rtol=1e-4, atol=1e-7)


def test_ours_and_the_dense_form_of_amdim_have_the_same_gradients():
    ours, dense = gradients(build_amdim_case(6, 3, 32))
    assert_close(ours, dense, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("estimator", get_args(EstimatorName))
def test_ours_and_the_dense_form_of_dim_have_the_same_gradients(estimator):
    ours, dense = gradients(build_dim_case(estimator, 6, 3, 32))
    assert_close(ours, dense, rtol=1e-4, atol=1e-7)


def test_peak_memory_counts_what_is_held_at_once():
    def work():
        first = torch.ones(1000, 250)  # 1 MB
        second = first + 1
        del first
        return (second * 2).sum()

    assert 2e6 <= measure_peak(work, CPU) < 2.01e6
    assert "aten::mul" in measure_operations(work)


def test_the_table_has_a_row_for_each_loss_and_its_memory(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(losses, "SIZES", (64, 128, 256))
    monkeypatch.setattr(losses, "LARGEST_DENSE", 64)
    monkeypatch.setattr(
        losses, "compare_amdim", lambda *given: losses._compare("amdim", build_amdim_case(4, 3, 16), *given)
    )
    monkeypatch.setattr(
        losses, "compare_dim", lambda name, *given: losses._compare(name, build_dim_case(name, 4, 3, 16), *given)
    )
    result = bench_losses(largest=128, rounds=1, json_file=tmp_path / "losses.json")
    assert [row["what"].split(",")[0] for row in result["rows"]] == ["cmc", "cmc", "amdim", *get_args(EstimatorName)]
    assert result["rows"][0]["beside"] == "dense torch"
    assert result["rows"][0]["memory"]["dense torch"] > 0
    assert result["ratio"] > 0
    assert "%" in result["bottleneck"]
    assert (tmp_path / "losses.json").exists()
    assert "bottleneck: " in capsys.readouterr().out
