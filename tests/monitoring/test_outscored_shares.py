"""The share of negatives that outscore the positive, against counting by hand, and what objectives report of it."""

from dataclasses import replace

import pytest
import torch
from small_features import WIDTHS, context, features

from mvssl.monitoring.mispairing import MispairingTracker, outscored_share
from mvssl.objectives import AMDIM, CMC, MIB
from mvssl.objectives.masks import same_sample
from mvssl.recipe import ViewConfig

DEVICE = torch.device("cpu")


def shares(scores: torch.Tensor, *present) -> list[float]:
    n = len(scores)
    return outscored_share(scores.view(n, n, -1), same_sample(n, DEVICE, *(present or (None, None)))).tolist()


def test_a_perfect_critic_has_share_zero():
    assert shares(torch.eye(6)) == [0] * 6
    assert shares(-torch.eye(6)) == [1] * 6


def test_a_blind_critic_has_share_one_half():
    assert shares(torch.zeros(6, 6)) == [0.5] * 6
    by_chance = torch.tensor(shares(torch.randn(400, 400)))
    assert by_chance.mean().item() == pytest.approx(0.5, abs=0.05)


def test_negatives_are_counted_over_the_anchors_of_each_candidate():
    scores = torch.tensor([[5.0, 9.0, 1.0], [7.0, 2.0, 3.0], [6.0, 8.0, 4.0]])
    assert shares(scores) == [1.0, 1.0, 0.0]


def test_shares_are_averaged_over_locations():
    assert shares(torch.stack([torch.eye(4), -torch.eye(4)], 2)) == [0.5] * 4


def test_absent_rows_are_neither_positives_nor_negatives():
    anchors, candidates = torch.tensor([True, True, True, False]), torch.tensor([True, False, True, True])
    scores = torch.eye(4)
    scores[3, 0] = 9.0  # of an absent anchor
    found = shares(scores, anchors, candidates)
    assert found[0] == 0
    assert found[2] == 0
    assert all(value != value for value in (found[1], found[3]))


@pytest.mark.parametrize("made", [CMC, MIB, AMDIM])
def test_an_observer_sees_the_pairs_and_leaves_the_loss_unchanged(made):
    widths = {"a": WIDTHS, "b": WIDTHS, "c": WIDTHS}
    options = {AMDIM: {"embed": 12, "scales": (("vector", 0),)}, MIB: {"latent": 4, "units": 8, "beta_end": 0}}
    objective = made(widths, **options.get(made, {})).double()
    seen = {view: features(5) for view in widths}
    plain, _ = objective(seen, context(5))
    columns = {"a": "one", "b": "two", "c": "one"}
    views = {name: ViewConfig.model_validate({"from": column}) for name, column in columns.items()}
    observer = MispairingTracker(views, 5, DEVICE)
    observed, _ = objective(seen, replace(context(5), observer=observer))
    assert torch.equal(plain, observed)
    found = {pair: torch.stack(shares).mean(0) for pair, shares in observer.shares.items()}
    assert found.keys() == {"a-b", "b-c"}
    assert all(share.shape == (5,) and not share.requires_grad for share in found.values())
    if made is CMC:
        one, other = (objective.represent(view, seen[view]) for view in "ab")
        scores = one @ other.T
        expected = (torch.tensor(shares(scores)) + torch.tensor(shares(scores.T))) / 2
        assert torch.allclose(found["a-b"].float(), expected)
