"""Bounds against Gaussians, whose information is known: I = -1/2 ln(1 - rho^2) nats per dimension."""

import math

import pytest
import torch
from labelled_points import largest_made

from mvssl.evaluation import Labelled
from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.probes.information import (
    ESTIMATES,
    estimate_information,
    information,
    input_information,
    ndm,
    off_diagonal,
    permute_columns,
    shares_of_pairs,
)
from mvssl.evaluation.results.metrics import NotPossible
from mvssl.objectives import estimators
from mvssl.objectives.estimators import MineByAnchor, dv_by_anchor, infonce_by_anchor, mine
from mvssl.objectives.scoring.critics import Separable


def gaussians(n: int, rho: float, d: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two vectors of d dimensions, each pair of dimensions correlated by rho."""
    x, noise = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def all_pairs(n: int) -> torch.Tensor:
    return (2 * torch.eye(n) - 1)[:, :, None].to(torch.int8)


@pytest.fixture(scope="module")
def correlated():
    results = estimate_information(
        gaussians(1000, 0.8), gaussians(600, 0.8, seed=1), steps=200, batch_size=100, rate=3e-3
    )
    return {result.what: result for result in results}


@pytest.mark.parametrize("name", ["infonce", "nwj", "mine", "smile"])
def test_bounds_are_near_the_information_of_gaussians_and_below_it(correlated, name):
    truth, result = 2 * 0.51083, correlated[name]
    assert result.value < truth + 3 * result.standard_error
    assert result.value > 0.7 * truth  # such a small critic learns that much in so few steps
    assert result.metric.unit == "nats"


def test_only_infonce_has_a_ceiling(correlated):
    assert correlated["infonce"].protocol["ceiling"] == pytest.approx(math.log(600))
    assert correlated["nwj"].protocol["ceiling"] is None
    assert "no bound" in correlated["smile"].protocol["estimator"]


def test_independent_views_have_no_information():
    """In 60 dimensions a critic can fit 100 samples without learning anything about others."""
    for result in estimate_information(gaussians(100, 0, 60), gaussians(200, 0, 60, seed=1), steps=50):
        assert abs(result.value) < max(4 * result.standard_error, 0.02)


def test_the_mean_over_anchors_is_the_estimator_of_the_objectives():
    scores = torch.randn(9, 9, dtype=torch.float64)
    own, others, mask = scores.diagonal(), off_diagonal(scores), all_pairs(9)
    by_anchor = {"infonce": infonce_by_anchor, "dv": dv_by_anchor}
    by_anchor |= {name: getattr(estimators, name).by_anchor for name in ("nwj", "jsd")}
    for name, ours in by_anchor.items():
        theirs = getattr(estimators, name)(scores[:, :, None], mask)
        assert ours(own, others).mean().item() == pytest.approx(theirs.item())
    by_smile = ESTIMATES["smile"].read_by(3 * own, 3 * others).mean().item()
    assert by_smile == pytest.approx(estimators.smile(3 * scores[:, :, None], mask).item())


def test_mine_has_values_and_gradients_of_the_objectives():
    """Three batches. The gradients of dv differ after the first."""
    ours, average = MineByAnchor(), torch.tensor(-math.inf)
    for step in range(3):
        scores = torch.randn(9, 9, dtype=torch.float64) * (step + 1)
        a, b, c = (scores.clone().requires_grad_() for _ in range(3))
        value, average = mine(a[:, :, None], all_pairs(9), average)
        value.backward()
        mean = ours(b.diagonal(), off_diagonal(b)).mean()
        mean.backward()
        assert mean.item() == pytest.approx(value.item())
        assert torch.allclose(a.grad, b.grad)
        dv_by_anchor(c.diagonal(), off_diagonal(c)).mean().backward()
        assert torch.allclose(c.grad, b.grad) == (step == 0)


def test_off_diagonal_leaves_out_only_the_diagonal():
    assert off_diagonal(torch.arange(9.0).view(3, 3)).tolist() == [[1, 2], [3, 5], [6, 7]]


def test_a_critic_whose_scores_are_0_gives_bounds_of_0():
    critic = Separable(3, 3, 4)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.zero_()
        for name, estimate in ESTIMATES.items():
            for bound in (estimate.make_bound(), estimate.chosen_by, estimate.read_by):
                assert shares_of_pairs(bound, critic, *gaussians(20, 0.9, 3)).abs().max() < 1e-12, name


def test_every_pair_of_views_and_every_view_with_its_input_is_measured():
    x, y = gaussians(100, 0.9)
    views = ByView({"a": x, "b": y, "c": x}, torch.zeros(0), {"a": y, "b": x, "c": x})
    names = [r.what for r in information(views, views, steps=1)]
    assert names[:: len(ESTIMATES)] == ["a and b, infonce", "a and c, infonce", "b and c, infonce"]
    names = [r.what for r in input_information(views, views, steps=1)]
    assert names[:: len(ESTIMATES)] == [f"{v} and its input, infonce" for v in "ab"]
    with pytest.raises(NotPossible):
        information(ByView({"a": x}, torch.zeros(0), {}), views)


def three_dimensions(n: int, rho: float, seed: int) -> Labelled:
    """Three dimensions: two correlated by rho and one alone. Their total correlation is -1/2 ln(1 - rho^2)."""
    x, y = gaussians(n, rho, 1, seed)
    alone = torch.randn(n, 1, generator=torch.Generator().manual_seed(seed + 99))
    return Labelled(torch.cat([x, 5 * y + 3, alone], 1), torch.zeros(0))


def test_dependence_of_gaussians_is_their_total_correlation():
    result = ndm(three_dimensions(1500, 0.9, 0), three_dimensions(1500, 0.9, 1), steps=100, batch_size=128, rate=1e-3)
    assert result.value < 0.83037 + 3 * result.standard_error
    assert result.value > 0.8 * 0.83037


def test_independent_dimensions_have_no_dependence():
    result = ndm(three_dimensions(500, 0, 0), three_dimensions(500, 0, 1), steps=50, rate=1e-3)
    assert abs(result.value) < max(4 * result.standard_error, 0.02)
    assert not result.metric.higher_is_better


def test_dependence_of_many_samples_is_measured_on_some_of_them(monkeypatch):
    """A permutation of every column of all samples may not fit in memory."""
    for name, value in (("MOST_PERMUTED", 400), ("HIDDEN", (4, 4))):
        monkeypatch.setattr(f"mvssl.evaluation.probes.information.{name}", value)
    train, test = three_dimensions(3000, 0.9, 0), three_dimensions(2000, 0.9, 1)
    wide = [split._replace(features=split.features.repeat(1, 4)) for split in (train, test)]
    with largest_made() as largest:
        result = ndm(*wide, steps=2, batch_size=64)
    assert largest[0] < 2000 * wide[0].features.shape[1]
    assert len(result.parts) == 400
    assert "400 of test" in result.protocol["samples_at_most"]


def test_one_dimension_depends_on_no_other():
    with pytest.raises(NotPossible):
        ndm(Labelled(torch.randn(50, 1), torch.zeros(0)), Labelled(torch.randn(50, 1), torch.zeros(0)))


def test_each_column_is_permuted_on_its_own():
    z = torch.arange(60.0).view(20, 3)
    mixed = permute_columns(z, torch.Generator().manual_seed(0))
    assert mixed.sort(dim=0).values.equal(z)
    assert not (mixed[:, 1] - mixed[:, 0] == 1).all()
