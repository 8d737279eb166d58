"""DIM: closed forms, the local loss written out by hand, the prior's two players, absent rows."""

import math

import pytest
import torch
from small_features import WIDTHS, context, features
from torch.testing import assert_close

from mvssl.encoders import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import DIM
from mvssl.objectives.dim import Prior

N = 6


def dim(views=("image",), **options):
    return DIM(dict.fromkeys(views, WIDTHS), **({"units": 16} | options)).double()


def loss_of(module, feature, **known):
    return module({"image": feature}, context(len(feature.vector), **known))[0]


def silence(module, part="local"):
    """Make every score zero: the vector's embedding is multiplied away."""
    torch.nn.init.zeros_(module.scores[part]["image"].anchor.norm.weight)
    return module


@pytest.mark.parametrize(
    ("estimator", "part", "loss"),
    [
        ("jsd", "local", 0),
        ("gan", "local", 2 * math.log(2)),
        ("kl", "local", 1 / math.e),
        ("hellinger", "local", 0),
        ("infonce", "local", math.log(1 + (N - 1) * 49)),
        ("infonce", "global", math.log(N)),
    ],
)
def test_blind_scores_have_the_loss_of_the_paper(estimator, part, loss):
    module = dim(estimator=estimator, local_weight=float(part == "local"), global_weight=float(part == "global"))
    assert loss_of(silence(module, part), features(N)).item() == pytest.approx(loss, abs=1e-9)


def test_local_infonce_is_the_loss_written_out_by_hand():
    module, feature = dim(estimator="infonce", layer=1), features(N)
    scores = module.scores["local"]["image"]
    u = scores.anchor(feature.vector[:, :, None, None])[:, 0]  # [n, units]
    v = scores.candidate(feature.maps[1]).detach()  # [n, 25, units]
    u = u.detach()
    losses = []
    for i in range(N):
        negative = sum(math.exp(u[i] @ v[j, q]) for j in range(N) if j != i for q in range(25))
        for q in range(25):
            positive = math.exp(u[i] @ v[i, q])
            losses.append(-math.log(positive / (positive + negative)))
    assert loss_of(module, feature).item() == pytest.approx(sum(losses) / len(losses), abs=1e-9)


def test_local_jsd_is_the_loss_written_out_by_hand():
    module, feature = dim(layer=1), features(N)
    scores = module.scores["local"]["image"]
    u, v = scores.anchor(feature.vector[:, :, None, None])[:, 0], scores.candidate(feature.maps[1])
    u, v = u.detach(), v.detach()
    positive = [math.log1p(math.exp(-(u[i] @ v[i, q]))) for i in range(N) for q in range(25)]
    negative = [math.log1p(math.exp(u[i] @ v[j, q])) for i in range(N) for j in range(N) if i != j for q in range(25)]
    by_hand = sum(positive) / len(positive) + sum(negative) / len(negative) - 2 * math.log(2)
    assert loss_of(module, feature).item() == pytest.approx(by_hand, abs=1e-9)


def test_a_vector_of_the_right_width_has_no_head():
    module, feature = dim(units=12), features(N)
    _, anchors = module.scores["local"]["image"](feature.vector, feature.maps[0], None)
    assert_close(anchors, feature.vector)


@pytest.mark.parametrize("options", [{}, {"estimator": "infonce"}, {"critic": "concat"}, {"global_weight": 1.0}])
def test_the_order_of_the_batch_does_not_matter(options):
    module, feature, order = dim(**options), features(N), torch.randperm(N)
    shuffled = Features(tuple(m[order] for m in feature.maps), feature.vector[order])
    assert_close(loss_of(module, shuffled), loss_of(module, feature))


def test_views_are_averaged_so_the_same_view_twice_is_the_loss_of_one():
    module, feature = dim(("a_0", "a_1"), prior_weight=0.0), features(N)
    single = module({"a_0": feature}, context(N))[0]
    assert_close(module({"a_0": feature, "a_1": feature}, context(N))[0], single)


def test_the_default_map_is_the_deepest_of_seven_by_seven():
    sizes = [(8, 16, 16), (16, 8, 8), (32, 4, 4)]  # the paper's network for 32 pixels: 8x8, its layer 1
    assert DIM({"image": Widths(tuple(sizes), 64)}, units=8).layer == {"image": 1}
    assert DIM({"image": Widths(((8, 5, 5), (9, 3, 3)), 64)}, units=8).layer == {"image": 0}


def test_subsampled_locations_are_locations_and_repeat_with_the_draw():
    module, feature = dim(subsample=5, estimator="infonce"), features(N)
    loss, metrics = module({"image": feature}, context(N))
    assert metrics["ceiling/image/local"].item() == pytest.approx(math.log(1 + (N - 1) * 5))
    assert_close(loss_of(module, feature), loss)
    assert loss_of(module, feature, start=100) != loss


def test_the_penalty_on_vectors_is_their_mean_square():
    feature = features(N)
    torch.manual_seed(3)
    plain = dim(units=12)
    torch.manual_seed(3)
    penalised = dim(units=12, vector_penalty=0.25)
    difference = loss_of(penalised, feature) - loss_of(plain, feature)
    assert_close(difference, 0.25 * feature.vector.square().mean())


@pytest.mark.parametrize("options", [{}, {"estimator": "infonce", "mask_value": -10.0}, {"critic": "concat"}])
def test_gradients_reach_map_vector_and_every_parameter(options):
    module, feature = dim(global_weight=0.5, prior_weight=0.1, **options), features(N)
    loss_of(module, feature).backward()
    reached = [feature.maps[0].grad, feature.vector.grad, *(p.grad for p in module.parameters())]
    assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in reached)


def test_absent_rows_are_as_if_they_were_not_in_the_batch():
    module = dim(estimator="infonce", global_weight=0.3, prior_weight=0.2, vector_penalty=0.1)
    feature, present = features(N), torch.tensor([True, True, False, True, False, True])
    with torch.no_grad():
        feature.vector[~present], feature.maps[0][~present] = torch.nan, torch.nan
    loss = loss_of(module, feature, present={"image": present})
    loss.backward()
    rest = Features(tuple(m[present].detach() for m in feature.maps), feature.vector[present].detach())
    known = context(N)
    known = type(known)(0, known.index[present], type(known.draws)(0, known.index[present]))
    assert_close(loss, module({"image": rest}, known)[0])
    assert (feature.vector.grad[~present] == 0).all()


def test_neither_player_of_the_prior_moves_the_other():
    prior, z, uniform = Prior(5).double(), torch.randn(N, 5).double().requires_grad_(), torch.rand(N, 5).double()
    fool, tell, _ = prior(z, uniform, None)
    weights = list(prior.parameters())
    assert torch.autograd.grad(tell, [z], allow_unused=True, retain_graph=True) == (None,)
    assert set(torch.autograd.grad(fool, weights, allow_unused=True, retain_graph=True)) == {None}
    assert torch.autograd.grad(fool, z)[0].abs().sum() > 0
    assert sum(g.abs().sum() for g in torch.autograd.grad(tell, weights)) > 0


def test_the_priors_terms_are_their_formulas():
    prior, z, uniform = Prior(5).double(), torch.randn(N, 5).double(), torch.rand(N, 5).double()
    fool, tell, penalty = prior(z, uniform, None)
    code, sp = torch.sigmoid(z).requires_grad_(), torch.nn.functional.softplus
    uniform.requires_grad_()
    score, score_uniform = prior.discriminator(code), prior.discriminator(uniform)
    slopes = torch.autograd.grad(score.sum() + score_uniform.sum(), [code, uniform])
    by_hand = sum((slope**2).sum(1).mean() for slope in slopes) / 2
    assert_close(penalty, by_hand)
    assert_close(fool, sp(-score).mean())
    assert_close(tell, sp(score).mean() + sp(-score_uniform).mean() + by_hand)


def test_the_weight_of_the_prior_scales_the_encoders_term_alone():
    feature = features(N)
    torch.manual_seed(0)
    light = dim(local_weight=0.0, prior_weight=0.1)
    torch.manual_seed(0)
    heavy = dim(local_weight=0.0, prior_weight=1.0)
    gradient = {}
    for name, module in (("light", light), ("heavy", heavy)):
        loss = loss_of(module, feature)
        gradient[name] = torch.autograd.grad(loss, [feature.vector, *module.parameters()])
    assert_close(gradient["heavy"][0], 10 * gradient["light"][0])
    assert_close(gradient["heavy"][1:], gradient["light"][1:])


def test_the_loss_can_be_measured_without_gradient():
    with torch.no_grad():
        assert loss_of(dim(prior_weight=1.0), features(N)).isfinite()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"layer": 2}, r"dim\.layer"),
        ({"mask_value": -10.0}, "mask_value"),
        ({"local_weight": 0.0}, "local_weight"),
        ({"subsample": 50}, r"dim\.subsample.*'image'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, key):
    with pytest.raises(RecipeError, match=key):
        dim(**options)


def test_an_encoder_without_maps_is_refused_with_a_way_out():
    with pytest.raises(RecipeError, match="image"):
        DIM({"age": Widths((), 8)})
