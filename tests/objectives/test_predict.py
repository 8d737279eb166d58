"""Prediction across views: the error by hand, what it is measured against, rows that lack a view."""

import pytest
import torch
import torch.nn.functional as F
from small_features import context
from torch.testing import assert_close

from mvssl.encoders import Features, Widths
from mvssl.errors import RecipeError
from mvssl.objectives import Predict
from mvssl.objectives.predict import compute_variance

N = 6
WIDTHS = {"l": Widths(((1, 8, 8), (5, 2, 2)), 12), "ab": Widths(((2, 8, 8), (5, 2, 2)), 12)}


def predict(widths=WIDTHS, **options):
    return Predict(widths, **({"size": 4, "units": 16} | options)).double()


def seen(widths=WIDTHS):
    return {
        view: Features(
            tuple(torch.randn(N, *size).double() for size in w.maps),
            torch.randn(N, w.vector, dtype=torch.float64, requires_grad=True),
        )
        for view, w in widths.items()
    }


@pytest.mark.parametrize(("distance", "size"), [("l2", torch.square), ("l1", torch.abs)])
def test_the_loss_is_the_mean_error_of_both_directions(distance, size):
    module, features = predict(distance=distance), seen()
    errors = {}
    for a, b in (("l", "ab"), ("ab", "l")):
        content = F.avg_pool2d(features[b].maps[0], 2).flatten(1)  # 8x8 down to 4x4
        errors[f"{a}-{b}"] = size(module.decoder[f"{a}-{b}"](features[a].vector) - content).mean()
    loss, metrics = module(features, context(N))
    assert_close(loss, sum(errors.values()) / 2)
    assert_close(metrics["error/l-ab"], errors["l-ab"].detach())


def test_explained_is_the_share_of_variance_around_the_batch_mean():
    module, features = predict(), seen()
    torch.nn.init.zeros_(module.decoder["l-ab"][-1].weight)
    with torch.no_grad():  # a decoder that says the mean of the batch whatever it is given
        module.decoder["l-ab"][-1].bias.copy_(F.avg_pool2d(features["ab"].maps[0], 2).flatten(1).mean(0))
    _, metrics = module(features, context(N))
    assert metrics["explained/l-ab"].item() == pytest.approx(0, abs=1e-12)
    assert metrics["explained/ab-l"] < 0  # a decoder that knows nothing yet is worse than the mean


def test_a_perfect_prediction_explains_everything():
    widths = {view: Widths(((1, 4, 4),), 16) for view in "ab"}
    module = predict(widths)
    content = torch.rand(N, 1, 4, 4).double()  # not below 0, where a ReLU would cut
    features = {view: Features((content,), content.flatten(1)) for view in widths}
    for decoder in module.decoder.values():
        for layer in decoder[::2]:
            torch.nn.init.eye_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    loss, metrics = module(features, context(N))
    assert loss.item() == 0
    assert metrics["explained/a-b"] == metrics["explained/b-a"] == 1


def test_the_variance_is_over_present_rows():
    x, present = torch.randn(N, 5).double(), torch.tensor([1, 0, 1, 1, 0, 1]).bool()
    assert_close(compute_variance(x, None), x.var(dim=0, correction=0).mean())
    assert_close(
        compute_variance(x.masked_fill(~present[:, None], torch.nan), present), x[present].var(0, correction=0).mean()
    )
    assert compute_variance(x, torch.zeros(N, dtype=torch.bool)) > 0


def test_rows_that_lack_either_view_count_in_no_direction():
    module, features = predict(), seen()
    present = {"l": torch.tensor([1, 1, 0, 1, 1, 1]).bool(), "ab": torch.tensor([1, 0, 1, 1, 1, 0]).bool()}
    both = present["l"] & present["ab"]
    with torch.no_grad():
        features["ab"].vector[1], features["ab"].maps[0][1], features["l"].maps[0][2] = (torch.nan,) * 3
    loss, metrics = module(features, context(N, present=present))
    loss.backward()
    rest = {v: Features(tuple(m[both] for m in f.maps), f.vector[both]) for v, f in features.items()}
    alone, its_metrics = module(rest, context(int(both.sum())))
    assert_close(loss, alone)
    assert_close(metrics["error/l-ab"], its_metrics["error/l-ab"])
    assert (features["ab"].vector.grad[~both] == 0).all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


def test_no_gradient_reaches_what_is_predicted():
    module, features = predict(), seen()
    features["ab"].maps[0].requires_grad_()
    module(features, context(N))[0].backward()
    assert features["ab"].maps[0].grad is None


def test_signals_and_vectors_are_predicted_as_they_are():
    widths = {"imu": Widths(((9, 1, 50), (8, 1, 25)), 12), "age": Widths(((3, 1, 1),), 7)}
    assert predict(widths).shape == {"imu": (9, 1, 4), "age": (3, 1, 1)}
    assert predict(widths)(seen(widths), context(N))[0].isfinite()


def test_the_core_view_is_in_every_direction():
    widths = dict.fromkeys(("l", "ab", "depth"), WIDTHS["l"])
    assert predict(widths, pairs="ab").directions == [("ab", "l"), ("l", "ab"), ("ab", "depth"), ("depth", "ab")]


def test_a_single_view_has_nothing_to_predict():
    with pytest.raises(RecipeError, match="predict"):
        predict({"l": WIDTHS["l"]})
