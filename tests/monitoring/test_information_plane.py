"""The information plane against Gaussians, whose information is known."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.distributions import Normal

from mvssl.monitoring import feature_metrics, information_plane
from mvssl.monitoring.held_out import CleanFeatures


def gaussian(n: int, dims: int, noise: float) -> tuple[torch.Tensor, ...]:
    """p(z | x) = N(x, noise^2) of standard normal x: I = dims / 2 ln(1 + 1 / noise^2)."""
    x = torch.randn(n, dims, dtype=torch.float64)
    scale = torch.full_like(x, noise)
    return x, scale, x + scale * torch.randn_like(x)


@pytest.mark.parametrize(("dims", "noise"), [(1, 1.0), (2, 0.7), (4, 1.5)])
def test_the_bounds_enclose_the_information_of_a_gaussian_channel(dims, noise):
    found = information_plane.input_information_bounds(*gaussian(2048, dims, noise))
    truth = dims / 2 * math.log(1 + 1 / noise**2)
    assert found.lower < found.upper
    assert found.lower == pytest.approx(truth, abs=0.1)
    assert found.upper == pytest.approx(truth, abs=0.1)


def test_above_its_ceiling_the_lower_bound_is_log_n_and_the_upper_is_more():
    found = information_plane.input_information_bounds(*gaussian(256, 16, 0.01))
    assert found.lower == pytest.approx(math.log(256), abs=1e-6)
    assert found.upper > 16 / 2 * math.log(1 + 1e4)


def test_codes_independent_of_the_input_have_no_information():
    zeros = torch.zeros(512, 3)
    found = information_plane.input_information_bounds(zeros, zeros + 1, torch.randn(512, 3))
    assert abs(found.lower) < 1e-9
    assert abs(found.upper) < 1e-9


def test_densities_are_those_of_torch():
    mean, scale, z = gaussian(40, 5, 0.3)
    scale = scale * torch.rand_like(scale).add(0.1)
    normal = torch.distributions.Normal(mean[None], scale[None])
    expected = normal.log_prob(z[:, None]).sum(2)
    assert torch.allclose(information_plane.log_density(mean, scale, z), expected)


def test_blocks_of_rows_give_the_result_of_one_block(monkeypatch):
    given = gaussian(100, 3, 0.5)
    expected = information_plane.input_information_bounds(*given)
    monkeypatch.setattr(information_plane, "CELLS", 700)
    assert information_plane.input_information_bounds(*given) == pytest.approx(expected)


def test_a_code_equal_to_the_label_has_its_entropy_and_noise_has_none():
    labels, fit_labels = torch.arange(400) % 4, torch.arange(2000) % 4
    codes = torch.eye(4) * 20
    measured = information_plane.label_information_bound(codes[labels], labels, codes[fit_labels], fit_labels)
    assert measured == pytest.approx(math.log(4), abs=0.02)
    assert (
        information_plane.label_information_bound(torch.randn(400, 4), labels, torch.randn(2000, 4), fit_labels) < 0.02
    )


def test_half_of_the_bits_of_a_label_have_half_of_its_entropy():
    labels, fit_labels = torch.arange(400) % 4, torch.arange(2000) % 4
    codes, fit_codes = ((of % 2)[:, None] * 9.0 for of in (labels, fit_labels))
    measured = information_plane.label_information_bound(codes, labels, fit_codes, fit_labels)
    assert measured == pytest.approx(math.log(2), abs=0.02)


def test_a_label_unknown_to_the_probe_has_a_finite_loss():
    labels = torch.tensor([0, 1, 7])
    measured = information_plane.label_information_bound(
        torch.randn(3, 2), labels, torch.randn(20, 2), torch.arange(20) % 2
    )
    assert math.isfinite(measured)


def test_codes_that_are_not_finite_have_no_plane():
    term = SimpleNamespace(
        posterior=lambda _, found: Normal(found.vector, torch.ones_like(found.vector), validate_args=False)
    )
    labels, index = torch.arange(12) % 3, torch.arange(12)
    clean, broken = (
        CleanFeatures({"a": x}, {}, labels, index) for x in (torch.randn(12, 4), torch.full((12, 4), torch.nan))
    )
    assert set(feature_metrics._plane(term, "a", clean, clean, 0)) == {"xz", "xz_upper", "zy"}
    assert feature_metrics._plane(term, "a", broken, clean, 0) == {}
    assert set(feature_metrics._plane(term, "a", clean, broken, 0)) == {"xz", "xz_upper"}
