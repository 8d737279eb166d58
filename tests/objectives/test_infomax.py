"""InfoMax: the loss written out by hand, and the input it reads."""

import math

import pytest
import torch
from small_features import WIDTHS, context
from torch.testing import assert_close

from mvssl.encoders import Features, Widths
from mvssl.objectives import InfoMax

N, PIXELS = 6, (1, 3, 3)
SEEN = Widths((PIXELS, *WIDTHS.maps), WIDTHS.vector)


def infomax(views=("a",), **options):
    return InfoMax(dict.fromkeys(views, SEEN), **({"latent": 4, "units": 16} | options)).double()


def images(*views):
    made = {}
    for view in views:
        maps = torch.randn(N, *PIXELS).double(), *(torch.randn(N, *size).double() for size in WIDTHS.maps)
        made[view] = Features(maps, torch.randn(N, 12, dtype=torch.float64, requires_grad=True))
    return made


@pytest.mark.parametrize("critic", ["concat", "separable"])
def test_the_loss_equals_jsd_computed_by_hand(critic):
    module, seen = infomax(critic=critic), images("a")
    raw = module.posterior_head["a"](seen["a"].vector)
    noise = context(N).draws.within("infomax/a").normal("posterior", 4)
    z = raw[:, :4] + ((1 + raw[:, 4:].exp()).log() + 1e-7) * noise
    x, sp = seen["a"].maps[0].flatten(1), lambda t: math.log1p(math.exp(t))
    score = module.critic["a"].score_rows
    loss = 0.0
    for i in range(N):
        loss += sp(-score(z[i, None], x[i, None]).item()) / N
        loss += sp(score(z[i - 1, None], x[i, None]).item()) / N
    assert module(seen, context(N))[0].item() == pytest.approx(loss - 2 * math.log(2), abs=1e-9)


def test_the_representation_is_the_posterior_mean_and_needs_no_input():
    module, seen = infomax(), images("a")["a"]
    plain = Features(seen.maps[1:], seen.vector)
    assert_close(module.represent("a", plain), module.posterior_head["a"](seen.vector)[:, :4])


def test_two_views_are_the_mean_of_both_and_do_not_meet():
    module, seen = infomax(("a", "b"), negatives="all", estimator="infonce"), images("a", "b")
    each = [module({view: feature}, context(N))[0] for view, feature in seen.items()]
    assert_close(module(seen, context(N))[0], sum(each) / 2)


def test_absent_rows_reach_neither_value_nor_gradient():
    module, seen = infomax(), images("a")
    present = torch.tensor([1, 1, 0, 1, 1, 0]).bool()
    loss, _ = module(seen, context(N, present={"a": present}))
    with torch.no_grad():
        seen["a"].vector[~present], seen["a"].maps[0][~present] = torch.nan, torch.nan
    again, _ = module(seen, context(N, present={"a": present}))
    again.backward()
    assert_close(again, loss)
    assert (seen["a"].vector.grad[~present] == 0).all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_it_finds_out_what_a_code_knows_of_its_input():
    torch.manual_seed(0)
    module = InfoMax({"a": Widths((PIXELS,), 4)}, latent=4, units=64, head=True)
    encoder = torch.nn.Linear(9, 4)
    optimizer = torch.optim.Adam([*encoder.parameters(), *module.parameters()], lr=5e-3)
    for step in range(150):
        x = torch.randn(64, *PIXELS)
        loss, metrics = module({"a": Features((x,), encoder(x.flatten(1)))}, context(64, step=step, start=64 * step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["bound/a"] > 0.7
