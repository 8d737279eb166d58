"""Heads: shapes, initial values, and absent rows."""

import pytest
import torch
from torch.testing import assert_close

from mvssl.encoders import Widths
from mvssl.errors import RecipeError
from mvssl.objectives.scoring.heads import AMDIMHead, DIMHead, NoHead, PerView, apply_to_present
from mvssl.objectives.scoring.masks import blank_absent


def test_the_residual_branch_of_an_amdim_head_is_zero_at_first():
    head, x = AMDIMHead(4, 9).eval(), torch.randn(2, 4, 3, 3)
    assert (head.net(x) == 0).all()
    copied = head(x)[..., :4]  # nearly the input, divided by BatchNorm's sqrt(1 + 1e-5)
    assert_close(copied, NoHead()(x) + head.shortcut.bias[:4], atol=0.1, rtol=0)


def test_a_dim_head_gives_each_location_mean_zero_and_variance_one():
    out = DIMHead(4, 64)(torch.randn(3, 4, 2, 2))
    assert out.shape == (3, 4, 64)
    assert_close(out.mean(-1), torch.zeros(3, 4), atol=1e-6, rtol=0)
    assert_close(out.var(-1, correction=0), torch.ones(3, 4), atol=1e-3, rtol=0)


def test_absent_rows_do_not_enter_batch_norm():
    x, present = torch.randn(5, 4, 3, 3), torch.tensor([True, False, True, True, False])
    head, twin = AMDIMHead(4, 6), AMDIMHead(4, 6)
    twin.load_state_dict(head.state_dict())
    out = apply_to_present(head, x, present)
    assert_close(out[present], twin(x[present]))
    assert (out[~present] == 0).all()
    assert_close(head.norm.running_mean, twin.norm.running_mean)


def test_a_head_without_rows_keeps_graph_and_statistics():
    head = AMDIMHead(4, 6)
    out = apply_to_present(head, torch.randn(5, 4, 3, 3), torch.zeros(5, dtype=torch.bool))
    out.sum().backward()
    assert all((p.grad == 0).all() for p in head.parameters())
    assert head.norm.running_mean.isfinite().all()


def test_nan_in_an_absent_row_does_not_reach_the_gradient():
    x = torch.tensor([[1.0], [torch.nan]], requires_grad=True)
    blank_absent(x, torch.tensor([True, False])).square().sum().backward()
    assert x.grad.tolist() == [[2], [0]]


def per_view(wide, share=None, **bases):
    """Heads for views of the given widths, drawn from the views that `bases` tells, or as their names tell."""
    widths = {view: Widths((), width, bases.get(view)) for view, width in wide.items()}
    return PerView(widths, wide, lambda view: torch.nn.Linear(wide[view], 2), share)


@pytest.mark.parametrize(("share", "modules"), [(None, 2), (True, 1), (False, 3)])
def test_draws_of_one_view_share_a_head_by_default(share, modules):
    heads = per_view({"a_0": 4, "a_1": 4, "half": 4}, share)
    assert len(list(heads.children())) == modules
    assert heads["a"] is heads["a_0"]
    assert (heads["a_0"] is heads["a_1"]) == (share is not False)
    assert (heads["a_0"] is heads["half"]) == (share is True)


def test_views_that_are_named_like_draws_of_one_do_not_share():
    """imu_0 and imu_1 are two sensors where the recipe says so, and two draws of one where it says that."""
    sensors = per_view({"imu_0": 4, "imu_1": 4}, imu_0="imu_0", imu_1="imu_1")
    assert sensors["imu_0"] is not sensors["imu_1"]
    draws = per_view({"imu_0": 4, "imu_1": 4}, imu_0="imu", imu_1="imu")
    assert draws["imu_0"] is draws["imu_1"]
    untold = per_view({"imu_1": 4, "imu_2": 4})
    assert untold["imu_1"] is not untold["imu_2"]


def test_views_of_different_sizes_never_share():
    heads = per_view({"a_0": 4, "a_1": 5})
    assert heads["a_0"] is not heads["a_1"]
    with pytest.raises(RecipeError, match=r"share_heads.* rgb 4, depth 5"):
        per_view({"rgb": 4, "depth": 5}, True)


def test_an_unknown_view_is_named_with_those_there_are():
    with pytest.raises(RecipeError, match=r"'c'.*a, b"):
        per_view({"a": 4, "b": 4})["c"]
