"""Critics: scores of anchors with candidates, and the pairs that are scored."""

import pytest
import torch
from torch.testing import assert_close

from mvssl.objectives.estimators import IGNORE, NEGATIVE, POSITIVE
from mvssl.objectives.scoring.critics import ConcatMLP, Dot, Separable, build_critic, count_negatives, score_pairs


def test_dot_is_the_inner_product_of_every_anchor_with_every_location():
    a, c = torch.randn(4, 5), torch.randn(3, 2, 5)
    scores = Dot(0.5)(a, c)
    assert scores.shape == (4, 3, 2)
    assert_close(scores[1, 2, 0], 0.5 * (a[1] @ c[2, 0]))


def test_the_concat_critic_scores_the_concatenation_of_every_pair():
    critic = ConcatMLP(5, 3, (16, 8))
    a, c = torch.randn(4, 5), torch.randn(6, 2, 3)
    scores = critic(a, c)
    assert scores.shape == (4, 6, 2)
    assert_close(scores[3, 5, 1], critic.rest(critic.first(torch.cat([a[3], c[5, 1]])))[0])
    assert_close(critic.score_rows(a, c[:4, 0]), scores[range(4), range(4), 0])


def test_the_separable_critic_scores_rows_as_it_scores_all_pairs():
    critic = Separable(5, 3, 8)
    a, c = torch.randn(4, 5), torch.randn(4, 3)
    assert_close(critic.score_rows(a, c), critic(a, c[:, None])[range(4), range(4), 0])


@pytest.mark.parametrize(("negatives", "count"), [("roll", 1), (3, 3), (99, 7), ("all", 7)])
def test_each_candidate_is_scored_with_its_own_anchor_and_earlier_rows(negatives, count):
    assert count_negatives(negatives, 8) == count
    critic = build_critic("concat", 5, 3, 8)
    a, c = torch.randn(8, 5), torch.randn(8, 3)
    scores, mask = score_pairs(critic, a, c, negatives, None, None)
    assert (mask[:, :, 0].diagonal() == POSITIVE).all()
    assert ((mask == NEGATIVE).sum(0) == count).all()
    assert_close(scores[mask != IGNORE], critic(a, c[:, None])[mask != IGNORE])
    assert mask[1, 2] == NEGATIVE
    assert (scores[mask == IGNORE] == 0).all()
