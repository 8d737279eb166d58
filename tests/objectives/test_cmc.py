"""CMC: the loss written out by hand, full graph and core view, rows that lack a view."""

import math

import pytest
import torch
from small_features import WIDTHS, context
from torch.testing import assert_close

from mvssl.encoders import Features
from mvssl.errors import RecipeError
from mvssl.objectives import CMC

N = 6


def cmc(views=("l", "ab"), **options):
    return CMC(dict.fromkeys(views, WIDTHS), **({"embed": 8} | options)).double()


def vectors(*views):
    return {view: Features((), torch.randn(N, 12, dtype=torch.float64, requires_grad=True)) for view in views}


def one_way(anchors, candidates, here, there, temperature):
    """Mean cross-entropy of each anchor that is in both views, among the rows that are in the other view."""
    anchors, candidates = anchors.detach(), candidates.detach()
    losses = []
    for i in range(N):
        if here[i] and there[i]:
            s = {j: float(anchors[i] @ candidates[j]) / temperature for j in range(N) if there[j]}
            losses.append(-s[i] + math.log(sum(math.exp(x) for x in s.values())))
    return sum(losses) / len(losses) if losses else 0.0


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5])  # 1 / 0.01 needs running maxima
def test_the_loss_of_two_views_equals_both_directions_by_hand(temperature):
    module, views = cmc(temperature=temperature), vectors("l", "ab")
    z = {view: module.represent(view, f) for view, f in views.items()}
    everyone = [True] * N
    forth = one_way(z["l"], z["ab"], everyone, everyone, temperature)
    back = one_way(z["ab"], z["l"], everyone, everyone, temperature)
    assert module(views, context(N))[0].item() == pytest.approx(forth + back, abs=1e-9)


def test_rows_that_lack_a_view_are_neither_anchors_nor_candidates():
    module, views = cmc(), vectors("l", "ab")
    z = {view: module.represent(view, f) for view, f in views.items()}
    present = {"ab": torch.tensor([1, 0, 1, 1, 0, 1]).bool(), "l": torch.tensor([1, 1, 0, 1, 1, 1]).bool()}
    by_hand = one_way(z["l"], z["ab"], present["l"], present["ab"], 0.07)
    by_hand += one_way(z["ab"], z["l"], present["ab"], present["l"], 0.07)
    with torch.no_grad():
        views["ab"].vector[1] = torch.nan
    loss, _ = module(views, context(N, present=present))
    loss.backward()
    assert loss.item() == pytest.approx(by_hand, abs=1e-9)
    assert (views["ab"].vector.grad[~present["ab"]] == 0).all()


def test_a_pair_that_no_row_has_costs_nothing_and_keeps_its_graph():
    module, views = cmc(), vectors("l", "ab")
    loss, _ = module(views, context(N, present={"ab": torch.zeros(N, dtype=torch.bool)}))
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in module.parameters())


def test_equal_views_of_different_samples_reach_the_ceiling_log_n():
    module = cmc(("a_0", "a_1"), embed=12, temperature=0.01)
    torch.nn.init.eye_(module.project["a"][0].weight)
    apart = Features((), torch.eye(N, 12).double() * 100)
    _, metrics = module({"a_0": apart, "a_1": apart}, context(N))
    assert metrics["bound/a_0-a_1"].item() == pytest.approx(math.log(N))
    assert metrics["ceiling/a_0-a_1"].item() == pytest.approx(math.log(N))


def test_features_without_difference_say_nothing():
    module = cmc(("a_0", "a_1"))
    flat = Features((), torch.ones(N, 12).double())
    loss, metrics = module({"a_0": flat, "a_1": flat}, context(N))
    assert metrics["bound/a_0-a_1"].item() == pytest.approx(0, abs=1e-9)
    assert loss.item() == pytest.approx(2 * math.log(N))


def test_pairs_of_the_full_graph_and_of_the_core_view():
    views = ("l", "ab", "depth")
    assert cmc(views).pairs == [("l", "ab"), ("l", "depth"), ("ab", "depth")]
    assert cmc(views, pairs="depth").pairs == [("depth", "l"), ("depth", "ab")]


def test_the_full_graph_is_the_sum_of_its_pairs():
    module, views = cmc(("l", "ab", "depth")), vectors("l", "ab", "depth")
    whole = module(views, context(N))[0]
    parts = []
    for a, b in module.pairs:
        module.pairs = [(a, b)]
        parts.append(module(views, context(N))[0])
        module.pairs = [("l", "ab"), ("l", "depth"), ("ab", "depth")]
    assert_close(whole, sum(parts))


def test_the_order_of_the_batch_does_not_matter():
    module, views, order = cmc(head="mlp"), vectors("l", "ab"), torch.randperm(N)
    shuffled = {view: Features((), f.vector[order]) for view, f in views.items()}
    assert_close(module(shuffled, context(N))[0], module(views, context(N))[0])


def test_the_representation_has_unit_length():
    lengths = cmc().represent("l", vectors("l")["l"]).norm(dim=1)
    assert_close(lengths, torch.ones(N).double())


def test_half_precision_features_are_compared_in_float32():
    module = CMC({"l": WIDTHS, "ab": WIDTHS}, embed=8)
    half = {view: Features((), f.vector.bfloat16()) for view, f in vectors("l", "ab").items()}
    assert module(half, context(N))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("views", "pairs", "said"), [(("l",), "full", "count: 2"), (("l", "ab"), "lab", "full or one of l, ab")]
)
def test_pairs_that_cannot_be_made_are_refused(views, pairs, said):
    with pytest.raises(RecipeError, match=said):
        cmc(views, pairs=pairs)
