"""Scores reduced tile by tile equal the same sums over the whole matrix of scores, with their gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from mvssl.distributed import collectives
from mvssl.objectives import estimators
from mvssl.objectives.pairs import MaskedScores
from mvssl.objectives.scoring import tiled_scores, tiles
from mvssl.objectives.scoring.critics import Dot
from mvssl.objectives.scoring.masks import Present, same_sample
from mvssl.objectives.scoring.reductions import Balance, LogSumBothSides, LogSumNegatives, SumNegatives
from mvssl.objectives.scoring.tiled_scores import reduce_scores

SCALE = 0.7


def soft_clip(t):
    return 2 * torch.tanh(t / 2)


@pytest.fixture(params=[0, 10**9], ids=["computed again", "kept"])
def small_tiles(request, monkeypatch):
    """Tiles of 64 scores at most, which the backward pass computes again or has kept."""
    monkeypatch.setattr(tiles, "CPU_TILE", 64)
    monkeypatch.setattr(tiled_scores, "KEPT", request.param)


def embeddings(anchors, samples, places, per_anchor, width=3):
    a = torch.randn(anchors, per_anchor, width, dtype=torch.float64, requires_grad=True)
    c = torch.randn(samples, places, width, dtype=torch.float64, requires_grad=True)
    return a, c


def weigh(results, weights):
    """A scalar that depends on all finite results."""
    return sum((x.masked_fill(x.isinf(), 0) * w).sum() for x, w in zip(results, weights, strict=True))


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize(
    ("anchors", "samples", "first", "places", "per_anchor"),
    [(7, 7, 0, 1, 1), (12, 6, 6, 1, 1), (12, 4, 4, 3, 1), (40, 20, 20, 1, 1), (9, 3, 3, 2, 3), (33, 11, 11, 1, 1)],
)
def test_sums_and_gradients_equal_those_of_the_whole_matrix(
    small_tiles, monkeypatch, anchors, samples, first, places, per_anchor, absent
):
    monkeypatch.setattr(collectives, "own_rows", lambda n: slice(first, first + n))
    monkeypatch.setattr(collectives, "world_size", lambda: anchors // samples)
    a, c = embeddings(anchors, samples, places, per_anchor)
    present = Present(torch.rand(anchors) > 0.3, torch.rand(samples) > 0.3) if absent else Present()
    t = SCALE * torch.einsum("ikd,jqd->ikjq", a, c)
    mine = range(first, first + samples), slice(None), range(samples)
    counted = torch.ones(anchors, samples, dtype=torch.bool)
    counted[mine[0], mine[2]] = False
    if absent:
        counted &= present.anchors[:, None] & present.candidates
    negatives = t.masked_fill(~counted[:, None, :, None], torch.nan)
    whole = [
        t[mine].transpose(1, 2),
        negatives.square().nansum(),
        soft_clip(negatives).nan_to_num(-torch.inf).logsumexp((2, 3)).flatten(),
        negatives.nan_to_num(-torch.inf).logsumexp((0, 1)).flatten(),
    ]
    wanted = [SumNegatives(torch.square), LogSumNegatives(soft_clip), LogSumNegatives(of_columns=True)]
    if places == per_anchor == 1:
        wanted.append(LogSumBothSides())
        whole.append(torch.cat([negatives.nan_to_num(-torch.inf).logsumexp(dim).flatten() for dim in (2, 0)]))
    own, results = reduce_scores(a if per_anchor > 1 else a[:, 0], c, present, wanted, scale=SCALE)
    tiled = [own, *results]
    assert_close(tiled, whole)
    weights = [torch.randn_like(x) for x in whole]
    assert_close(
        torch.autograd.grad(weigh(tiled, weights), (a, c)),
        tuple(g.nan_to_num() for g in torch.autograd.grad(weigh(whole, weights), (a, c))),
    )


def test_gradients_equal_finite_differences(small_tiles):
    a, c = embeddings(6, 6, 1, 1)

    def f(a, c):
        own, results = reduce_scores(
            a[:, 0], c, Present(), [LogSumBothSides(), LogSumNegatives(soft_clip), SumNegatives(torch.square)]
        )
        return own, *results

    assert torch.autograd.gradcheck(f, (a, c))


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("name", estimators.ESTIMATORS)
def test_every_estimator_of_tiled_scores_equals_that_of_masked_scores(small_tiles, name, absent):
    a, c = embeddings(9, 9, 4, 1)
    present = Present(torch.rand(9) > 0.3, torch.rand(9) > 0.3) if absent else Present()
    critic = Dot(SCALE)
    loss, metrics = estimators.estimate(name, critic.pair(a[:, 0], c, present))
    mask = same_sample(9, a.device, present)
    by_mask, its_metrics = estimators.estimate(name, critic(a[:, 0], c), mask)
    assert_close(loss, by_mask)
    assert_close(metrics, its_metrics)
    assert_close(torch.autograd.grad(loss, (a, c)), torch.autograd.grad(by_mask, (a, c)))


def test_the_outscored_share_counts_equal_scores_as_half(small_tiles):
    a, c = embeddings(20, 20, 2, 1)
    a, c = a.detach().round(), c.detach().round()  # so that some scores are equal
    present = Present(torch.rand(20) > 0.3, torch.rand(20) > 0.3)
    tiled = Dot().pair(a[:, 0], c, present).outscored_share()
    masked = MaskedScores(Dot()(a[:, 0], c), same_sample(20, a.device, present)).outscored_share()
    assert_close(tiled, masked, equal_nan=True)
    assert not reduce_scores(a[:, 0], c.requires_grad_(), present, [Balance()])[1][0].requires_grad


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_scores_stay_in_the_range_of_float32(sign):
    """All scores have the largest size: each row's log-sum is +-LARGEST + log(n - 1)."""
    n = 2048
    a = F.normalize(torch.ones(n, 4), dim=1)
    _, (log_sums,) = reduce_scores(a, sign * a[:, None], Present(), [LogSumBothSides()], scale=LogSumBothSides.LARGEST)
    expected = sign * LogSumBothSides.LARGEST + torch.tensor(n - 1.0).log()
    assert_close(log_sums, expected.expand(2 * n), rtol=1e-6, atol=1e-5)


def test_float32_differs_from_float64_by_rounding_alone():
    z = [F.normalize(torch.randn(700, 16, dtype=torch.float64), dim=1) for _ in range(2)]
    found = []
    for dtype in (torch.float32, torch.float64):
        a, b = (x.to(dtype).requires_grad_() for x in z)
        own, (log_sums,) = reduce_scores(a, b[:, None], Present(), [LogSumBothSides()], scale=1 / 0.07)
        loss = (log_sums - own.flatten().repeat(2)).mean()
        found.append([loss.double(), *(g.double() for g in torch.autograd.grad(loss, (a, b)))])
    assert_close(*found, rtol=1e-4, atol=1e-7)


def test_no_tile_is_as_large_as_the_matrix_of_many_samples():
    a = torch.empty(5000, 8, device="meta")
    cut = tiles.cut_tiles(a, a[:, None], 1, Present())
    sizes = [tile.size for tile in cut]
    assert sum(sizes) == 5000**2
    assert max(sizes) <= tiles.GPU_TILE * 4
    assert [t.has_own for t in cut] == sorted((t.has_own for t in cut), reverse=True)


def test_what_checks_ask_of_the_pairs_leaves_the_gradient_of_the_loss_alone():
    a, c = embeddings(6, 6, 1, 1)
    gradients = []
    for asked in (False, True):
        pairs = Dot(SCALE).pair(a[:, 0], c, Present(None, None))
        if asked:
            assert not pairs.outscored_share().requires_grad
        gradients.append(torch.autograd.grad(estimators.infonce(pairs), (a, c)))
    assert_close(gradients[1], gradients[0])
