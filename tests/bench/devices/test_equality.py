"""Equality of losses with float64: the fast losses are as exact as plain ones, and a wrong loss is found."""

import torch

from mvssl.bench.devices.equality import PRECISIONS, compare_gradients, compare_losses
from mvssl.bench.losses import LossCase, build_cmc_case

CPU = torch.device("cpu")


def test_fast_losses_are_as_exact_as_plain_ones_in_every_precision():
    found = compare_losses(CPU, n=200, side=3)
    assert {equality.precision for equality in found} == set(PRECISIONS)
    assert len(found) == 5 * len(PRECISIONS)
    assert all(equality.holds for equality in found), found


def test_a_loss_with_another_gradient_is_found():
    plain = build_cmc_case(50).losses["dense torch"]
    case = LossCase(
        {"ours": lambda a, b: 1.001 * plain(a, b), "plain": plain}, (torch.randn(50, 8), torch.randn(50, 8))
    )
    found = compare_gradients("scaled", case, "fp32")
    assert not found.holds
    assert abs(found.ours - 0.001) < 1e-4
