"""AMDIM's mixture: the loss written out by hand, its limits, and who takes which place."""

import math

import pytest
import torch
from small_features import WIDTHS, context, features
from torch import nn
from torch.testing import assert_close

from mvssl.encoders import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import AMDIM
from mvssl.objectives.mixture import Components, Mixture, estimate_mixture
from mvssl.recipe.options import construct

N, L, K, E = 4, 3, 5, 12
CEILING = torch.tensor(1 + (N - 1) * L).double().log()


def shares(k=K):
    """s [N, L, k]: log of e^T over itself and the component's scores with the places of other images."""
    t, s = torch.randn(N, k, N, L, dtype=torch.float64), torch.zeros(N, L, k).double()
    for i in range(N):
        for j in range(k):
            others = torch.cat([t[i, j, other] for other in range(N) if other != i])
            for place in range(L):
                s[i, place, j] = torch.cat([t[i, j, i, place, None], others]).log_softmax(0)[0]
    return s


def loss_of(s, **options):
    return estimate_mixture(s, CEILING, None, Mixture(components=K, **options))[0]


@pytest.mark.parametrize(("sharpness", "weight"), [(1.0, None), (3.0, None), (2.0, 0.7), (0.5, 0.0)])
def test_the_loss_equals_expected_share_and_entropy_by_hand(sharpness, weight):
    s = shares()
    q = (sharpness * s).softmax(-1)
    alpha = 1 / sharpness if weight is None else weight
    by_hand = (q * s).sum(-1) - alpha * (q * q.log()).sum(-1)
    assert_close(loss_of(s, sharpness=sharpness, entropy_weight=weight).detach(), -by_hand.mean())


def test_in_the_limits_all_components_count_equally_or_only_the_best():
    s = shares()
    assert_close(loss_of(s, sharpness=1e-9, entropy_weight=0.0).detach(), -s.mean())
    assert_close(loss_of(s, sharpness=1e9, entropy_weight=0.0).detach(), -s.amax(-1).mean())
    _, metrics = estimate_mixture(s, CEILING, None, Mixture(components=K, sharpness=1e-9, entropy_weight=0.0))
    assert metrics["entropy"].item() == pytest.approx(math.log(K))
    assert metrics["used"].item() == pytest.approx(K)


def test_the_posterior_is_optimal_at_the_default_entropy_weight():
    s, sharpness = shares(), 2.0
    best = -(s * sharpness).logsumexp(-1) / sharpness

    def loss(q):
        return -(q * s).sum(-1) + (q * q.log()).sum(-1) / sharpness

    assert_close(loss((s * sharpness).softmax(-1)), best)
    for _ in range(20):
        assert (loss(torch.rand_like(s).softmax(-1)) > best).all()


def test_its_bound_is_that_of_a_mixture_of_equally_likely_components():
    s = shares()
    _, metrics = estimate_mixture(s, CEILING, None, Mixture(components=K))
    by_hand = s.exp().mean(-1).log().mean() + math.log(1 + (N - 1) * L)
    assert_close(metrics["bound"], by_hand)
    assert metrics["bound"] < metrics["ceiling"]
    assert metrics["ceiling"].item() == pytest.approx(math.log(1 + (N - 1) * L))

    alike = -CEILING.expand(N, L, K)
    blind, metrics = estimate_mixture(alike, CEILING, None, Mixture(components=K))
    assert metrics["bound"].item() == pytest.approx(0, abs=1e-9)
    assert blind.item() == pytest.approx(math.log(1 + (N - 1) * L) - math.log(K))


def test_a_component_that_wins_every_place_is_the_only_one_in_use():
    s = shares()
    s[..., 2] = 0.0  # a share of 1
    _, metrics = estimate_mixture(s, CEILING, None, Mixture(components=K, sharpness=50))
    assert metrics["used"].item() == pytest.approx(1, abs=1e-3)


def amdim(mixture, views=("a_0", "a_1"), **options):
    torch.manual_seed(1)
    return AMDIM(dict.fromkeys(views, WIDTHS), **({"embed": E} | options), mixture=mixture).double()


def without_branches(module):
    """The same, with each component the vector itself."""
    for made in module.modules():
        if isinstance(made, Components):
            nn.init.zeros_(made.net[-1].weight)
            nn.init.zeros_(made.net[-1].bias)
    return module


def pair(n=N):
    return {"a_0": features(n), "a_1": features(n)}


@pytest.mark.parametrize("options", [{}, {"embed": 10}, {"scales": (("vector", 0), (1, 0)), "soft_clip": None}])
def test_one_component_that_is_the_vector_itself_is_plain_amdim(options):
    views, mixed = pair(), without_branches(amdim(Mixture(components=1), **options))
    plain = amdim(None, **options)
    plain.load_state_dict({key: value for key, value in mixed.state_dict().items() if "components" not in key})
    loss, metrics = mixed(views, context(N))
    plain_loss, plain_metrics = plain(views, context(N))
    assert_close(loss, plain_loss)
    assert_close({key: metrics[key] for key in plain_metrics}, plain_metrics)


def test_equal_components_cost_plain_amdim_less_log_k():
    views, mixed = pair(), without_branches(amdim(Mixture(components=3)))
    plain = amdim(None)
    plain.load_state_dict({key: value for key, value in mixed.state_dict().items() if "components" not in key})
    loss, metrics = mixed(views, context(N))
    plain_loss, plain_metrics = plain(views, context(N))
    assert_close(loss, plain_loss - 2 * math.log(3))  # two of the three scales start from the vector
    assert metrics["used/a_0-a_1/vector-last"].item() == pytest.approx(3)
    assert_close(metrics["bound/a_0-a_1/vector-last"], plain_metrics["bound/a_0-a_1/vector-last"])


def test_components_start_out_different():
    made = Components(E, 3)(torch.randn(N, E))
    assert made.shape == (N, 3, E)
    assert (made[:, 0] - made[:, 1]).abs().mean() > 0.1


def test_absent_rows_are_as_if_they_were_not_in_the_batch():
    module, views, known = amdim(Mixture(components=3), embed=10, regulariser=0.5), pair(5), context(5)
    present = torch.tensor([True, False, True, True, False])
    loss, metrics = module(views, context(5, present={"a_0": present, "a_1": present}))
    rest = {v: Features(tuple(m[present] for m in f.maps), f.vector[present]) for v, f in views.items()}
    fewer = type(known)(0, known.index[present], type(known.draws)(0, known.index[present]))
    alone, its_metrics = module(rest, fewer)
    assert_close(loss, alone)
    assert_close(metrics, its_metrics)
    loss.backward()
    assert (views["a_0"].vector.grad[~present] == 0).all()
    assert all(f.vector.grad.isfinite().all() for f in views.values())


def test_segments_are_the_posterior_of_each_place_of_the_image_itself():
    module, feature = amdim(Mixture(components=3, sharpness=2.0)).eval(), features(N)
    found = module.segments("a", feature)
    assert {level: tuple(q.shape) for level, q in found.items()} == {"last": (N, 3, 5, 5), "previous": (N, 3, 7, 7)}
    assert_close(found["last"].sum(1), torch.ones(N, 5, 5).double())

    components = module.components["a"](feature.vector)
    places = module.heads["last"]["a"](feature.maps[1])
    t = 20 * (torch.einsum("ikd,jld->ikjl", components, places) / math.sqrt(E) / 20).tanh()
    for row, column in ((0, 0), (3, 2)):
        s = torch.stack(
            [
                torch.cat([t[1, j, 1, row * 5 + column, None], t[1, j, [0, 2, 3]].flatten()]).log_softmax(0)[0]
                for j in range(3)
            ]
        )
        assert_close(found["last"][1, :, row, column], (2 * s).softmax(0))


def test_two_things_in_an_image_are_told_apart():
    """Each image shows one scene on the left and another on the right; two components take a half each."""
    torch.manual_seed(0)
    widths = Widths(((6, 4, 4),), 12)
    options = {"embed": 12, "scales": (("vector", 0),), "regulariser": 0.0, "mixture": Mixture(components=2)}
    module = AMDIM(dict.fromkeys(("a_0", "a_1"), widths), **options)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)

    def images(n):
        left, right = torch.randn(n, 6, 1, 1), torch.randn(n, 6, 1, 1)
        places = torch.cat([left.expand(n, 6, 4, 2), right.expand(n, 6, 4, 2)], dim=3)
        vector = torch.cat([left, right], dim=1).flatten(1)
        return {view: Features((places + 0.3 * torch.randn(n, 6, 4, 4),), vector) for view in ("a_0", "a_1")}

    for step in range(150):
        loss, _ = module(images(32), context(32, step=step, start=32 * step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    taken = module.eval().segments("a", images(32)["a_0"])["0"].argmax(1)  # [n, 4, 4]
    left, right = taken[..., :2].flatten(1), taken[..., 2:].flatten(1)
    owner = left.mode(1).values[:, None]
    assert (left == owner).float().mean() > 0.9
    assert (right != owner).float().mean() > 0.9


def test_a_recipe_sets_the_options_and_wrong_ones_are_refused():
    def made(**mixture):
        return construct(AMDIM, {"mixture": mixture}, "objective.0", {"a": WIDTHS, "b": WIDTHS})

    assert made(components=3).mixture == Mixture(components=3, sharpness=1.0)
    for key in ("components", "sharpness"):
        with pytest.raises(RecipeError, match=rf"objective\.0\.mixture\.{key}: .*greater than 0"):
            made(**{key: 0})
    with pytest.raises(RecipeError, match=r"objective\.0\.mixture\.component: .*components"):
        made(component=3)
    with pytest.raises(RecipeError, match=r"amdim\.mixture"):
        amdim(Mixture(), scales=((1, 0),))
    with pytest.raises(RecipeError, match="mixture"):
        amdim(None).segments("a", features(N))
