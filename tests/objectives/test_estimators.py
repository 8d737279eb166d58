"""Estimators against closed forms that can be checked by hand."""

import math

import pytest
import torch
from fault_views import exchanges
from torch.testing import assert_close

from mvssl.objectives import estimators
from mvssl.objectives.estimators import ESTIMATORS, F_DIVERGENCES, IGNORE, NEGATIVE, POSITIVE
from mvssl.objectives.pairs import MaskedScores

N, L = 5, 3
OWN = torch.full((N, N, 1), NEGATIVE, dtype=torch.int8)
OWN[torch.arange(N), torch.arange(N)] = POSITIVE


def zeros(dtype=torch.float64):
    return torch.zeros(N, N, L, dtype=dtype, requires_grad=True)


def random(n=N, l=L):
    return torch.randn(n, n, l, dtype=torch.float64, requires_grad=True)


def value_and_gradient(name, scores, mask, **options):
    scores = scores.detach().requires_grad_()
    value = ESTIMATORS[name](scores, mask, **options)
    (gradient,) = torch.autograd.grad(value, scores)
    return value.detach(), gradient


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("jsd", 0),
        ("gan", 2 * math.log(2)),
        ("kl", 1 / math.e),
        ("nwj", 1 / math.e),
        ("reverse_kl", 0),
        ("hellinger", 0),
        ("chi2", 0),
        ("wasserstein", 0),
        ("dv", 0),
        ("smile", 0),
        ("infonce", math.log(1 + (N - 1) * L)),
    ],
)
def test_a_blind_critic_has_the_loss_of_the_papers(name, loss):
    assert estimators.estimate(name, zeros(), OWN)[0].item() == pytest.approx(loss, abs=1e-12)


def test_mask_value_raises_the_infonce_loss_of_a_blind_critic():
    value = ESTIMATORS["infonce"](zeros(), OWN, mask_value=-10.0)
    loss = math.log(1 + (N - 1) * L) - value.item()
    assert loss == pytest.approx(math.log(1 + (N - 1) * L + L * math.exp(-10)), abs=1e-12)


@pytest.mark.parametrize("name", ["infonce", "dv"])
def test_a_constant_added_to_every_score_changes_nothing(name):
    scores = random()
    assert_close(ESTIMATORS[name](scores + 7, OWN), ESTIMATORS[name](scores, OWN))


def test_with_the_papers_mask_value_a_constant_does_change_infonce():
    scores = random()
    shifted = ESTIMATORS["infonce"](scores - 9, OWN, mask_value=-10.0)
    assert abs(shifted - ESTIMATORS["infonce"](scores, OWN, mask_value=-10.0)) > 1e-3


def test_a_perfect_critic_reaches_the_largest_values():
    scores = torch.where(OWN == POSITIVE, 100.0, -100.0).double().expand(N, N, L)
    assert estimators.infonce(scores, OWN).item() == pytest.approx(math.log(1 + (N - 1) * L))
    assert estimators.ceiling(scores, OWN).item() == pytest.approx(math.log(1 + (N - 1) * L))
    assert estimators.jsd(scores, OWN).item() == pytest.approx(2 * math.log(2))


def test_dv_is_nwj_at_the_best_constant_and_never_below_it():
    scores = random()
    assert ESTIMATORS["dv"](scores, OWN) >= ESTIMATORS["nwj"](scores, OWN)

    log_mean = scores[(OWN == NEGATIVE).expand_as(scores)].exp().mean().log()
    assert_close(ESTIMATORS["nwj"](scores + 1 - log_mean, OWN), ESTIMATORS["dv"](scores, OWN))


# Two distributions on three outcomes, written as counts of positives (p) and of negatives (q).
P, Q = torch.tensor([6.0, 1.0, 5.0]).double() / 12, torch.tensor([3.0, 4.0, 5.0]).double() / 12
DIVERGENCE = {  # the integral of q f(p / q), and f' on the critic's scale: what Nowozin et al. call T = g_f(v)
    "jsd": (lambda p, q: p * (2 * p / (p + q)).log() + q * (2 * q / (p + q)).log(), lambda r: r.log()),
    "gan": (lambda p, q: p * (p / (p + q)).log() + q * (q / (p + q)).log(), lambda r: r.log()),
    "kl": (lambda p, q: p * (p / q).log(), lambda r: 1 + r.log()),
    "reverse_kl": (lambda p, q: q * (q / p).log(), lambda r: r.log()),
    "hellinger": (lambda p, q: (p.sqrt() - q.sqrt()).square(), lambda r: r.log() / 2),
    "chi2": (lambda p, q: (p - q).square() / q, lambda r: 2 * (r - 1)),
}


def counted(critic):
    """One anchor with 12 positives drawn from P and 12 negatives from Q, all under the given critic of outcomes."""
    outcome = torch.arange(3)
    drawn = torch.cat([outcome.repeat_interleave((12 * x).long()) for x in (P, Q)])
    mask = torch.tensor([POSITIVE] * 12 + [NEGATIVE] * 12, dtype=torch.int8)[None, :, None]
    return critic[drawn][None, :, None], mask


@pytest.mark.parametrize("name", DIVERGENCE)
def test_the_best_critic_attains_the_divergence_and_no_other_exceeds_it(name):
    divergence, best = DIVERGENCE[name]
    truth, critic = divergence(P, Q).sum(), best(P / Q)
    assert_close(ESTIMATORS[name](*counted(critic)), truth)
    for _ in range(20):
        assert ESTIMATORS[name](*counted(critic + 0.5 * torch.randn(3).double())) < truth


@pytest.mark.parametrize("name", DIVERGENCE)
def test_the_best_critic_holds_the_log_ratio_and_gives_kl_in_nats(name):
    critic = DIVERGENCE[name][1](P / Q)
    assert_close(F_DIVERGENCES[name].log_ratio(critic), (P / Q).log())
    assert_close(estimators.in_nats(name, *counted(critic)), (P * (P / Q).log()).sum())


def test_smile_clips_only_the_partition_function_of_dv():
    scores = 3 * random()
    assert_close(estimators.smile(scores, OWN, clip=1e9), estimators.dv(scores, OWN))

    value, gradient = value_and_gradient("smile", scores, OWN, clip=2.0)
    positive, negative = (scores[(kind == OWN).expand_as(scores)] for kind in (POSITIVE, NEGATIVE))
    by_definition = positive.mean() - negative.exp().clamp(math.exp(-2), math.exp(2)).mean().log()
    assert_close(value, by_definition.detach())
    assert_close(gradient, torch.autograd.grad(by_definition, scores)[0])


def test_smile_is_trained_by_jsd_and_logs_its_own_value():
    scores = random()
    loss, metrics = estimators.estimate("smile", scores, OWN, clip=1.0)
    jsd_loss, jsd_metrics = estimators.estimate("jsd", scores, OWN)
    assert_close(torch.autograd.grad(loss, scores), torch.autograd.grad(jsd_loss, scores))
    assert_close(metrics["smile"], estimators.smile(scores, OWN, clip=1.0).detach())
    assert_close(metrics["bound"], jsd_metrics["bound"])


def test_wasserstein_is_the_difference_of_means():
    critic = torch.randn(3).double()
    assert_close(ESTIMATORS["wasserstein"](*counted(critic)), ((P - Q) * critic).sum())


def test_infonce_is_the_cross_entropy_among_the_anchors_negatives():
    scores = random()
    losses = []
    for i in range(N):
        others = [scores[i, j, q] for j in range(N) if j != i for q in range(L)]
        losses += [torch.stack([scores[i, i, q], *others]).log_softmax(0)[0] for q in range(L)]
    assert_close(estimators.infonce(scores, OWN), torch.stack(losses).mean() + math.log(1 + (N - 1) * L))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_ignored_pairs_reach_neither_value_nor_gradient(name):
    scores, mask = random().detach(), OWN.expand(N, N, L).clone()
    mask[1, 2], mask[3, 3, 1], mask[:, 4] = IGNORE, IGNORE, IGNORE
    value, gradient = value_and_gradient(name, scores, mask)
    for strange in (1e30, -math.inf, math.nan):
        other, its_gradient = value_and_gradient(name, scores.masked_fill(mask == IGNORE, strange), mask)
        assert_close(other, value)
        assert_close(its_gradient, gradient)
    assert (gradient[mask == IGNORE] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("absent", [POSITIVE, NEGATIVE, None])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_without_positives_or_negatives_value_and_gradient_are_zero(name, absent, dtype):
    mask = torch.full_like(OWN, IGNORE) if absent is None else OWN.masked_fill(absent == OWN, IGNORE)
    value, gradient = value_and_gradient(name, random().to(dtype), mask)
    assert value.item() == 0
    assert value.dtype == gradient.dtype == dtype
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_large_positive_scores_leave_the_gradient_finite(name):
    scores = torch.where(OWN == POSITIVE, 120.0, -1.0).expand(N, N, L)  # e^120 is no float32
    value, gradient = value_and_gradient(name, scores, OWN)
    assert value.isfinite()
    assert gradient.isfinite().all()


def test_infonce_of_an_anchor_without_negatives_is_certain():
    mask = OWN.clone()
    mask[0] = mask[0].clamp(min=IGNORE)
    scores = random()
    rest = estimators.infonce(scores[1:], mask[1:])
    assert_close(estimators.infonce(scores, mask), rest * (N - 1) / N)


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "infonce"])
def test_duplicated_locations_change_nothing(name):
    scores = random()
    assert_close(ESTIMATORS[name](scores.repeat(1, 1, 2), OWN), ESTIMATORS[name](scores, OWN))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_order_of_the_batch_does_not_matter(name):
    scores, order = random(), torch.randperm(N)
    assert_close(ESTIMATORS[name](scores[order][:, order], OWN), ESTIMATORS[name](scores, OWN))


def test_recipes_accept_the_names_of_all_estimators():
    assert set(estimators.EstimatorName.__args__) == {*ESTIMATORS, "mine"}  # which needs a memory besides


def exchanged(name):
    """The numbers of collectives of an estimate, forward and backward."""
    scores = torch.randn(2 * N, N, L, requires_grad=True)
    mask = torch.full((2 * N, N, 1), NEGATIVE, dtype=torch.int8)
    mask[torch.arange(N), torch.arange(N)] = POSITIVE
    with exchanges() as names:
        loss, _ = estimators.estimate(name, scores, mask)
        forward = len(names)
        loss.backward()
    return forward, len(names) - forward


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("infonce", 4, 2), ("nwj", 1, 1), ("jsd", 1, 1), ("chi2", 1, 1), ("dv", 2, 2), ("smile", 3, 1)],
)
def test_nothing_is_exchanged_between_processes_twice(processes, name, forward, backward):
    assert processes(exchanged, name) == [(forward, backward)] * 2


def test_a_mask_entry_counts_for_all_pairs_that_it_stands_for():
    """A mask's entry stands for all places of a map, on however few dimensions it is given."""
    scores = random()
    whole = OWN.expand(N, N, L).contiguous()
    for mask in (OWN, whole, OWN[:1], OWN[:, :1]):
        full = mask.expand(N, N, L)
        for kind in (POSITIVE, NEGATIVE):
            assert MaskedScores(scores, mask).count(kind).tolist() == (full == kind).sum(dim=(1, 2)).tolist()
        assert_close(estimators.ceiling(scores, mask), estimators.ceiling(scores, full.contiguous()))


@pytest.mark.parametrize("name", ["jsd", "gan", "nwj", "reverse_kl", "hellinger", "chi2", "dv", "infonce", "mine"])
def test_the_mean_over_anchors_is_the_value_over_the_batch(name):
    scores = random(l=1).detach()
    positive, negatives = scores[:, :, 0].diagonal(), scores[OWN == NEGATIVE].view(N, N - 1)
    by_anchor = {name: f.by_anchor for name, f in F_DIVERGENCES.items()} | {
        "nwj": estimators.nwj.by_anchor,
        "dv": estimators.dv_by_anchor,
        "infonce": estimators.infonce_by_anchor,
        "mine": estimators.MineByAnchor(),
    }
    parts = by_anchor[name]
    assert parts(positive, negatives).shape == (N,)
    assert_close(parts(positive, negatives).mean(), ESTIMATORS[{"mine": "dv"}.get(name, name)](scores, OWN))


def test_mine_by_anchor_has_the_gradient_and_the_average_of_mine():
    ours, log_average = estimators.MineByAnchor(0.2), torch.tensor(-math.inf, dtype=torch.float64)
    for _ in range(3):
        scores = random(l=1)
        value, log_average = estimators.mine(scores, OWN, log_average, 0.2)
        again = ours(scores[:, :, 0].diagonal(), scores[OWN == NEGATIVE].view(N, N - 1)).mean()
        assert_close(torch.autograd.grad(again, scores), torch.autograd.grad(value, scores))
        assert_close(ours.log_average, log_average)
