"""Effective rank, spread, alignment and uniformity against closed forms."""

import math

import pytest
import torch

from mvssl.evaluation import Labelled
from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.probes.spectrum import (
    alignment,
    alignment_probe,
    effective_rank,
    singular_values,
    spectrum,
    spread,
    uniformity,
)
from mvssl.evaluation.results.metrics import NotPossible


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cross(d: int) -> torch.Tensor:
    """The 2d points at +-1 on every axis: mean 0, equal variance in all directions."""
    return torch.cat([torch.eye(d), -torch.eye(d)])


def test_the_rank_counts_directions_of_equal_variance():
    for d in (1, 3, 8):
        assert effective_rank(cross(d)).item() == pytest.approx(d, rel=1e-9)


def test_effective_rank_is_the_exponential_of_the_entropy():
    x = torch.tensor([3.0, 1.0]).diag()
    by_hand = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert effective_rank(torch.cat([x, -x])).item() == pytest.approx(by_hand, rel=1e-9)


def test_singular_values_are_right_for_wide_and_tall_matrices():
    for shape in ((30, 7), (7, 30)):
        x = normal(*shape)
        assert torch.allclose(singular_values(x, centred=False), torch.linalg.svdvals(x.double()).flip(0), atol=1e-6)


def test_rank_ignores_scale_rotation_and_constant_dimensions():
    x, (turn, _) = normal(50, 6), torch.linalg.qr(normal(6, 6, seed=1))
    same = effective_rank(x).item()
    assert effective_rank(1000 * x @ turn).item() == pytest.approx(same, rel=1e-5)
    assert effective_rank(torch.cat([x, torch.full((50, 4), 7.0)], 1)).item() == pytest.approx(same, rel=1e-5)


def test_constant_features_have_rank_0_centred_and_1_as_rankme():
    same = torch.full((40, 5), 0.3)
    assert effective_rank(same) == 0
    assert effective_rank(same, centred=False).item() == pytest.approx(1)
    assert effective_rank(torch.zeros(40, 5), centred=False) == 0


def test_a_large_mean_hides_other_directions_only_if_not_centred():
    x = cross(6) + 1000
    assert effective_rank(x).item() == pytest.approx(6, rel=1e-3)
    assert effective_rank(x, centred=False).item() < 1.1


def test_more_samples_of_fewer_directions_do_not_raise_the_rank():
    planted = normal(500, 3) @ normal(3, 40, seed=1)
    assert effective_rank(planted) <= 3
    assert len(singular_values(planted)) == 40


def test_spread_is_1_for_uniform_directions_and_0_for_a_single_one():
    assert torch.allclose(spread(cross(5)), torch.ones(5, dtype=torch.float64))
    assert spread(normal(1, 5) * torch.rand(30, 1)).abs().max() < 1e-6


def test_mean_squared_spread_is_1_minus_the_squared_mean_direction():
    x = normal(60, 9) + 0.5
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    assert spread(x).square().mean().item() == pytest.approx(1 - unit.mean(0).square().sum().item())


def test_alignment_of_equal_opposite_and_unrelated_vectors():
    x, y = normal(2000, 64), normal(2000, 64, seed=1)
    assert alignment(x, 3 * x).item() == pytest.approx(0, abs=1e-12)
    assert alignment(x, -x).item() == pytest.approx(4)
    assert alignment(x, y).item() == pytest.approx(2, abs=0.03)


def test_uniformity_is_the_mean_over_all_pairs_in_any_chunks(monkeypatch):
    x = normal(23, 4)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    by_hand = (-2 * torch.pdist(unit).square()).exp().mean().log().item()
    assert uniformity(x).item() == pytest.approx(by_hand)
    monkeypatch.setattr("mvssl.evaluation.probes.spectrum.CELLS", 50)
    assert uniformity(x).item() == pytest.approx(by_hand)


def test_uniformity_is_0_for_one_direction_and_lower_for_others():
    assert uniformity(torch.ones(10, 3)).item() == pytest.approx(0, abs=1e-12)
    assert uniformity(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == pytest.approx(-8)
    assert uniformity(normal(500, 128)) < -3.7


def test_no_statistic_has_a_gradient():
    x = normal(8, 3).requires_grad_()
    assert not any(f(x).requires_grad for f in (effective_rank, spread, uniformity))
    assert not alignment(x, x).requires_grad


def test_the_probes_return_the_values_of_the_functions():
    x, y = normal(30, 5), normal(30, 5, seed=1)
    test = Labelled(x, torch.zeros(0))
    assert [r.value for r in spectrum(test, test)] == [effective_rank(x), spread(x).mean(), uniformity(x)]
    views = ByView({"a": x, "b": y, "wide": normal(30, 6)}, torch.zeros(0), {})
    (found,) = alignment_probe(views, views)
    assert found.what == "a and b"
    assert found.value == pytest.approx(alignment(x, y).item())


def test_one_sample_is_refused_because_it_has_no_standard_error():
    one = ByView({"a": torch.randn(1, 3), "b": torch.randn(1, 3)}, torch.zeros(0), {})
    with pytest.raises(NotPossible, match="one sample"):
        alignment_probe(one, one)
