"""AMDIM: the loss written out by hand, its limits, both directions, levels of any network."""

import math

import pytest
import torch
from small_features import WIDTHS, context, features
from torch.testing import assert_close

from mvssl.encoders import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import AMDIM

N, E = 5, 12


def amdim(views=("a_0", "a_1"), **options):
    return AMDIM(dict.fromkeys(views, WIDTHS), **({"embed": E} | options)).double()


def pair():
    return {"a_0": features(N), "a_1": features(N)}


def embedded(module, views):
    """(level, view) -> [n, l, embed], and the random location of each row of the last map as a source."""
    levels = {}
    for view, feature in views.items():
        levels["vector", view] = feature.vector[:, None]
        levels["last", view] = module.heads["last"][view](feature.maps[1])
        levels["previous", view] = module.heads["previous"][view](feature.maps[0])
    levels = {key: value.detach() for key, value in levels.items()}
    place = {view: context(N).draws.within(f"amdim/{view}").integers("last", 25) for view in views}
    return levels, place


def by_hand(module, views, clip=20.0, weight=0.05):
    levels, place = embedded(module.eval(), views)
    total = 0.0
    for source, target in (("vector", "last"), ("vector", "previous"), ("last", "last")):
        for a, b in (("a_0", "a_1"), ("a_1", "a_0")):
            losses, squares = [], []
            for i in range(N):
                row = levels[source, a][i]
                anchor = row[0] if source == "vector" else row[place[a][i]]
                s = [[float(anchor @ x) / math.sqrt(E) for x in levels[target, b][j]] for j in range(N)]
                c = [[clip * math.tanh(x / clip) for x in line] for line in s]
                squares += [x**2 for line in s for x in line]
                negative = sum(math.exp(x) for j in range(N) if j != i for x in c[j])
                losses += [-(x - math.log(math.exp(x) + negative)) for x in c[i]]
            total += (sum(losses) / len(losses) + weight * sum(squares) / len(squares)) / 2
    return total


@pytest.mark.parametrize(("clip", "weight"), [(20.0, 0.05), (1.0, 0.2)])
def test_the_loss_is_the_one_written_out_by_hand(clip, weight):
    module, views = amdim(soft_clip=clip, regulariser=weight), pair()
    expected = by_hand(module, views, clip, weight)
    assert module(views, context(N))[0].item() == pytest.approx(expected, abs=1e-9)


def test_blind_features_cost_the_log_of_the_candidates_at_every_scale():
    module = amdim()
    zero = Features(tuple(torch.zeros_like(m) for m in features(N).maps), torch.zeros(N, 12).double())
    for level in ("last", "previous"):
        torch.nn.init.zeros_(module.heads[level]["a"].norm.weight)
    loss, metrics = module({"a_0": zero, "a_1": zero}, context(N))
    per_scale = [math.log(1 + (N - 1) * p) for p in (25, 49, 25)]
    assert loss.item() == pytest.approx(sum(per_scale), abs=1e-9)
    assert metrics["ceiling/a_0-a_1/vector-previous"].item() == pytest.approx(per_scale[1])


@pytest.mark.parametrize("sign", [1, -1])
def test_the_clip_bounds_the_loss_from_both_sides(sign):
    """However large the scores, log(1 + (B-1) P e^-2t) <= loss <= log(1 + (B-1) P e^2t)."""
    clip, module = 2.0, amdim(scales=((1, 1),), soft_clip=2.0, regulariser=0.0).eval()
    views = pair()
    for feature in views.values():
        feature.maps[1].data *= 1e4
    loss = module({"a_0": views["a_0"], "a_1": views["a_0"] if sign > 0 else views["a_1"]}, context(N))[0].item()
    low, high = (math.log(1 + (N - 1) * 25 * math.exp(s * 2 * clip)) for s in (-1, 1))
    assert low <= loss <= high


def test_swapping_the_views_changes_nothing():
    module, views = amdim(scales=(("vector", "last"), ("vector", "previous"))), pair()
    swapped = {"a_0": views["a_1"], "a_1": views["a_0"]}
    assert_close(module(swapped, context(N))[0], module(views, context(N))[0])


def test_the_order_of_the_batch_does_not_matter():
    module, views, order = amdim(), pair(), torch.randperm(N)
    shuffled = {v: Features(tuple(m[order] for m in f.maps), f.vector[order]) for v, f in views.items()}
    known = context(N)
    reordered = type(known)(0, known.index[order], type(known.draws)(0, known.index[order]))
    assert_close(module(shuffled, reordered)[0], module(views, known)[0])


def test_three_views_are_the_mean_over_their_pairs():
    module = amdim(("a_0", "a_1", "a_2"), regulariser=0.01)
    views = {view: features(N) for view in ("a_0", "a_1", "a_2")}
    pairs = [("a_0", "a_1"), ("a_0", "a_2"), ("a_1", "a_2")]
    each = [module({view: views[view] for view in names}, context(N))[0] for names in pairs]
    assert_close(module(views, context(N))[0], sum(each) / 3)


def test_only_a_vector_of_another_width_is_projected():
    same, other = amdim(), amdim(embed=16)
    feature = features(N)
    assert_close(same.represent("a", feature), feature.vector)
    assert other.represent("a", feature).shape == (N, 16)


def test_absent_rows_are_neither_anchors_nor_candidates():
    module, views = amdim(), pair()
    present = torch.tensor([True, True, False, True, True])
    with torch.no_grad():
        views["a_1"].vector[2], views["a_1"].maps[0][2], views["a_1"].maps[1][2] = torch.nan, torch.nan, torch.nan
    loss, metrics = module(views, context(N, present={"a_1": present}))
    loss.backward()
    # Four anchors with a positive in both directions; into a_1 three negatives' worth, out of it four.
    mean = (math.log(1 + 3 * 25) + math.log(1 + 4 * 25)) / 2
    assert metrics["ceiling/a_0-a_1/vector-last"].item() == pytest.approx(mean)
    assert (views["a_1"].maps[1].grad[2] == 0).all()
    assert all(f.vector.grad.isfinite().all() for f in views.values())


def test_rows_absent_from_both_views_count_as_not_in_the_batch():
    module, views, known = amdim(embed=10, regulariser=0.5), pair(), context(N)
    present = torch.tensor([True, False, True, True, False])
    loss, _ = module(views, context(N, present={"a_0": present, "a_1": present}))
    rest = {v: Features(tuple(m[present] for m in f.maps), f.vector[present]) for v, f in views.items()}
    fewer = type(known)(0, known.index[present], type(known.draws)(0, known.index[present]))
    assert_close(loss, module(rest, fewer)[0])


def test_levels_are_found_in_other_networks():
    resnet = Widths(((64, 16, 16), (64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)), 512)
    module = AMDIM({"a_0": resnet, "a_1": resnet}, embed=8)
    assert module.layer == {"last": {"a_0": 2, "a_1": 2}, "previous": {"a_0": 1, "a_1": 1}}
    amdim_32 = Widths(((64, 7, 7), (64, 5, 5), (256, 1, 1)), 256)
    assert AMDIM({"a_0": amdim_32, "a_1": amdim_32}, embed=8).layer["last"]["a_0"] == 1


@pytest.mark.parametrize(
    ("views", "width", "options", "said"),
    [
        (("a",), WIDTHS, {}, "count: 2"),
        (("a", "b"), Widths(((4, 7, 7),), 8), {}, "'previous' needs 2"),
        (("a", "b"), Widths((), 8), {}, "'last' needs 1"),
        (("a", "b"), WIDTHS, {"scales": (("vector", 3),)}, "there is no map 3"),
    ],
)
def test_what_does_not_fit_is_refused_with_a_way_out(views, width, options, said):
    with pytest.raises(RecipeError, match=said):
        AMDIM(dict.fromkeys(views, width), **options)
