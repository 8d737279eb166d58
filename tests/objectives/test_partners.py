"""The share of strangers that fit better than the partner, against counting by hand, and what objectives tell of it."""

import pytest
import torch
from toy import WIDTHS, context, features

from mvssl.objectives import AMDIM, CMC, MIB
from mvssl.objectives.context import same_sample
from mvssl.objectives.partners import Partners, share_ahead

DEVICE = torch.device("cpu")


def shares(scores: torch.Tensor, *present) -> list[float]:
    n = len(scores)
    return share_ahead(scores.view(n, n, -1), same_sample(n, DEVICE, *(present or (None, None)))).tolist()


def test_a_critic_that_knows_every_partner_leaves_no_stranger_ahead():
    assert shares(torch.eye(6)) == [0] * 6
    assert shares(-torch.eye(6)) == [1] * 6


def test_a_critic_that_knows_nothing_leaves_half_of_them_ahead():
    assert shares(torch.zeros(6, 6)) == [0.5] * 6
    by_chance = torch.tensor(shares(torch.randn(400, 400)))
    assert by_chance.mean().item() == pytest.approx(0.5, abs=0.05)


def test_strangers_ahead_are_counted_along_the_anchors_of_each_candidate():
    scores = torch.tensor([[5.0, 9.0, 1.0], [7.0, 2.0, 3.0], [6.0, 8.0, 4.0]])
    assert shares(scores) == [1.0, 1.0, 0.0]


def test_several_places_are_averaged():
    assert shares(torch.stack([torch.eye(4), -torch.eye(4)], 2)) == [0.5] * 4


def test_who_lacks_a_view_is_neither_sample_nor_stranger():
    anchors, candidates = torch.tensor([True, True, True, False]), torch.tensor([True, False, True, True])
    scores = torch.eye(4)
    scores[3, 0] = 9.0  # of an absent anchor
    found = shares(scores, anchors, candidates)
    assert found[0] == 0
    assert found[2] == 0
    assert all(value != value for value in (found[1], found[3]))


@pytest.mark.parametrize("made", [CMC, MIB, AMDIM])
def test_objectives_tell_of_their_pairs_without_another_loss(made):
    widths = {"a": WIDTHS, "b": WIDTHS, "c": WIDTHS}
    options = {AMDIM: {"embed": 12, "scales": (("vector", 0),)}, MIB: {"latent": 4, "units": 8, "beta_end": 0}}
    objective = made(widths, **options.get(made, {})).double()
    seen = {view: features(5) for view in widths}
    plain, _ = objective(seen, context(5))
    partners = Partners({("b", "a"): "a-b", ("b", "c"): "b-c"})
    with_notes = context(5)
    object.__setattr__(with_notes, "partners", partners)
    noted, _ = objective(seen, with_notes)
    assert torch.equal(plain, noted)
    found = partners.shares()
    assert found.keys() == {"a-b", "b-c"}
    assert all(share.shape == (5,) and not share.requires_grad for share in found.values())
    if made is CMC:
        one, other = (objective.represent(view, seen[view]) for view in "ab")
        scores = one @ other.T
        expected = (torch.tensor(shares(scores)) + torch.tensor(shares(scores.T))) / 2
        assert torch.allclose(found["a-b"].float(), expected)
