"""Critics: scores of anchors with candidates, and the pairs that are scored."""

import pytest
import torch
from torch.testing import assert_close

from mvssl.objectives.pairs import IGNORE, NEGATIVE, POSITIVE, MaskedScores
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
    listed = score_pairs(critic, a, c, negatives, None, None)
    back = (torch.arange(8) - torch.arange(8)[:, None]) % 8  # how many rows the anchor is before the candidate
    mask = torch.where(back == 0, POSITIVE, torch.where(back <= count, NEGATIVE, IGNORE))[..., None].to(torch.int8)
    whole = MaskedScores(critic(a, c[:, None]), mask)
    for kind in (POSITIVE, NEGATIVE):
        assert_close(listed.count(kind), whole.count(kind))
    assert_close(listed.sum_negatives(torch.sin, torch.exp), whole.sum_negatives(torch.sin, torch.exp))
    assert_close(listed.log_sum_negatives(torch.sin), whole.log_sum_negatives(torch.sin))
    assert_close(listed.sum_positives(torch.sin), whole.sum_positives(torch.sin))
    assert_close(listed.sum_log_shares(torch.arange(8.0)), whole.sum_log_shares(torch.arange(8.0)))
    assert_close(listed.outscored_share(), whole.outscored_share())
