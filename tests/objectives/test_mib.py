"""MIB: the divergence against its formula, negatives by roll, the schedule of beta, the estimate in nats."""

import math

import pytest
import torch
from small_features import WIDTHS, context
from torch.distributions import Normal
from torch.testing import assert_close

from mvssl.encoders import Features
from mvssl.errors import RecipeError
from mvssl.objectives import MIB
from mvssl.objectives.mib import ramp
from mvssl.objectives.scoring.gaussian import symmetric_kl

N = 6


def mib(views=("a", "b"), **options):
    return MIB(dict.fromkeys(views, WIDTHS), **({"latent": 4} | options)).double()


def vectors(*views):
    return {view: Features((), torch.randn(N, 12, dtype=torch.float64, requires_grad=True)) for view in views}


def posterior(n=3, d=4):
    return Normal(torch.randn(n, d).double(), torch.rand(n, d).double() + 0.3)


def codes(module, views):
    """z of each view: mean + sigma * noise of the sample's own draw."""
    z = {}
    for view, feature in views.items():
        p = module.posterior(view, feature)
        noise = context(N).draws.within(f"mib/{view}").normal("posterior", 4)
        z[view] = p.mean + p.stddev * noise
    return z


def test_the_posterior_is_the_linear_heads_mean_and_softplus():
    module, feature = mib(), vectors("a")["a"]
    p, raw = module.posterior("a", feature), module.posterior_head["a"](feature.vector)
    assert_close(p.mean, raw[:, :4])
    assert_close(p.stddev, (1 + raw[:, 4:].exp()).log() + 1e-7)
    assert_close(module.represent("a", feature), p.mean)


def test_the_closed_divergence_is_the_formula_for_gaussians():
    p, q = posterior(), posterior()
    variance_ratio = p.variance / q.variance
    one_way = (variance_ratio + (q.mean - p.mean) ** 2 / q.variance - 1 - variance_ratio.log()) / 2
    other_way = (1 / variance_ratio + (q.mean - p.mean) ** 2 / p.variance - 1 + variance_ratio.log()) / 2
    assert_close(symmetric_kl(p, q, p.mean, q.mean, "closed"), (one_way + other_way).sum(1) / 2)


def test_the_sampled_divergence_is_unbiased_and_may_be_negative():
    p, q = posterior(2), posterior(2)
    one = torch.stack([symmetric_kl(p, q, p.sample(), q.sample(), "sampled") for _ in range(4000)])
    closed = symmetric_kl(p, q, p.mean, q.mean, "closed")
    assert (abs(one.mean(0) - closed) < 4 * one.std(0) / math.sqrt(4000)).all()
    near = Normal(p.mean + 0.01, p.stddev)
    assert min(symmetric_kl(p, near, p.sample(), near.sample(), "sampled").min() for _ in range(50)) < 0


@pytest.mark.parametrize("how", ["closed", "sampled"])
def test_equal_posteriors_have_no_divergence(how):
    p = posterior()
    assert_close(symmetric_kl(p, p, p.sample(), p.sample(), how), torch.zeros(3).double())


@pytest.mark.parametrize(
    ("step", "beta"),
    [(0, 1e-3), (50_000, 1e-3), (100_000, 10**-1.5), (125_000, 10**-0.75), (150_000, 1.0), (10**6, 1.0)],
)
def test_beta_climbs_as_in_the_paper(step, beta):
    assert mib().beta(step) == pytest.approx(beta)
    exponent = -3 + 3 * (min(max(step, 50_000), 150_000) - 50_000) / 100_000
    assert mib().beta(step) == pytest.approx(10**exponent)


def test_beta_may_be_constant_or_zero_for_multi_view_infomax():
    assert mib(beta=0.3, beta_end=0).beta(0) == 0.3
    assert [mib(beta=0).beta(step) for step in (0, 100_000, 10**6)] == [0, 0, 0]
    loss, metrics = mib(beta=0)(vectors("a", "b"), context(N, step=10**6))
    assert_close(loss.detach(), -metrics["jsd/a-b"])


def test_a_ramp_with_no_length_is_its_end():
    assert ramp(0, start=1e-3, stop=4.0, begin=0, end=0) == 4.0


@pytest.mark.parametrize("kl", ["closed", "sampled"])
def test_the_loss_is_the_one_written_out_by_hand(kl):
    module, views = mib(kl=kl, beta=0.7, beta_end=0), vectors("a", "b")
    z, sp = codes(module, views), lambda x: math.log1p(math.exp(x))
    critic = module.critic["a-b"].score_rows
    positive = [critic(z["a"][i : i + 1], z["b"][i : i + 1]).item() for i in range(N)]
    negative = [critic(z["a"][i - 1 : i or None], z["b"][i : i + 1]).item() for i in range(N)]  # z_a rolled by one
    information = -sum(sp(-t) for t in positive) / N - sum(sp(t) for t in negative) / N
    skl = symmetric_kl(*(module.posterior(v, f) for v, f in views.items()), z["a"], z["b"], kl).mean().item()
    loss, metrics = module(views, context(N))
    assert loss.item() == pytest.approx(-(information + 2 * math.log(2)) + 0.7 * skl, abs=1e-9)
    assert metrics["skl/a-b"].item() == pytest.approx(skl)
    nwj = sum(positive) / N - sum(math.exp(t) for t in negative) / N + 1
    assert metrics["bound/a-b"].item() == pytest.approx(nwj, abs=1e-9)


def test_a_blind_critic_reads_zero_in_both_measures():
    module = mib()
    torch.nn.init.zeros_(module.critic["a-b"].rest[-1].weight)
    torch.nn.init.zeros_(module.critic["a-b"].rest[-1].bias)
    _, metrics = module(vectors("a", "b"), context(N))
    assert metrics["jsd/a-b"].item() == pytest.approx(0, abs=1e-12)  # the paper's -2 ln 2
    assert metrics["bound/a-b"].item() == pytest.approx(0, abs=1e-12)


def test_all_negatives_are_every_other_row_of_the_batch():
    module, views = mib(negatives="all", estimator="infonce", beta=0), vectors("a", "b")
    z = codes(module, views)
    t = torch.stack([module.critic["a-b"].score_rows(z["a"][i].expand(N, 4), z["b"]) for i in range(N)])
    loss, metrics = module(views, context(N))
    assert_close(loss, -t.log_softmax(1).diagonal().mean())
    assert metrics["ceiling/a-b"].item() == pytest.approx(math.log(N))


@pytest.mark.parametrize(("asked", "negatives"), [("roll", 1), (3, 3), (N - 1, N - 1), (100, N - 1)])
def test_a_number_of_negatives_takes_that_many_rows_before(asked, negatives):
    module, views = mib(negatives=asked, estimator="infonce", beta=0), vectors("a", "b")
    z = codes(module, views)
    t = [
        [module.critic["a-b"].score_rows(z["a"][j - k, None], z["b"][j, None]).item() for k in range(negatives + 1)]
        for j in range(N)
    ]
    # infonce asks of each z_a which z_b is its own, so column j is scattered to the anchors before it
    scores = torch.full((N, N), -math.inf).double()
    for j in range(N):
        for k in range(negatives + 1):
            scores[(j - k) % N, j] = t[j][k]
    assert_close(module(views, context(N))[0], -scores.log_softmax(1).diagonal().mean())
    assert module.candidates(N) == {"samples": negatives + 1}


def test_as_many_negatives_as_there_are_rows_is_all_of_them():
    many, every = mib(negatives=N - 1), mib(negatives="all")
    every.load_state_dict(many.state_dict())
    views = vectors("a", "b")
    assert_close(many(views, context(N)), every(views, context(N)))


def test_a_batch_of_one_has_no_negative_rather_than_itself():
    views = {view: Features((), f.vector[:1]) for view, f in vectors("a", "b").items()}
    _, metrics = mib()(views, context(1))
    assert metrics["jsd/a-b"].item() == 0


def test_absent_rows_reach_neither_value_nor_gradient():
    module, views = mib(beta=1.0, beta_end=0), vectors("a", "b")
    present = {"b": torch.tensor([1, 1, 0, 1, 0, 1]).bool()}
    loss, metrics = module(views, context(N, present=present))
    p = {view: module.posterior(view, f) for view, f in views.items()}
    z = codes(module, views)
    rows = symmetric_kl(p["a"], p["b"], z["a"], z["b"], "sampled")
    assert_close(metrics["skl/a-b"], rows[present["b"]].mean().detach())
    with torch.no_grad():
        views["b"].vector[~present["b"]] = torch.nan
    again, _ = module(views, context(N, present=present))
    again.backward()
    assert_close(again, loss)
    assert (views["b"].vector.grad[~present["b"]] == 0).all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_three_views_are_the_mean_over_their_pairs():
    module, views = mib(("a", "b", "c")), vectors("a", "b", "c")
    whole = module(views, context(N))[0]
    each = []
    for pair in module.pairs.copy():
        module.pairs = [pair]
        each.append(module(views, context(N))[0])
    assert_close(whole, torch.stack(each).mean())


def test_without_a_head_the_vector_itself_is_mean_and_raw_sigma():
    module, feature = mib(latent=6, head=False), vectors("a")["a"]
    assert_close(module.represent("a", feature), feature.vector[:, :6])
    assert not list(module.posterior_head.parameters())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"head": False}, "latent: 6"),
        ({"beta_begin": 10, "beta_end": 5}, "beta_begin.*beta_end"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, key):
    with pytest.raises(RecipeError, match=key):
        mib(**options)
