"""What counts as a feature, and which samples count."""

from unittest.mock import Mock

import pytest
import torch

from mvssl.data import Bad, Batch
from mvssl.encoders import Features
from mvssl.errors import DataError, RecipeError
from mvssl.evaluate.features import at_layer, extract, flatten, join, pooled


def batch(labels: list, start: int = 0, bad: int = 0, present: dict | None = None) -> Batch:
    rows = torch.arange(start, start + len(labels))
    x = rows.float()[:, None].expand(-1, 3)
    lost = [Bad(0, "k", "s", "x", "broken", "")] * bad
    return Batch({"x": x, "label": torch.tensor(labels)}, rows, rows, present or {}, lost)


def column(batch: Batch) -> dict[str, torch.Tensor]:
    return {"x": batch.columns["x"]}


def test_features_come_in_order_with_their_labels():
    found = extract(column, [batch([3, 1, 2]), batch([0], start=3)], samples=4)
    assert found.features["x"][:, 0].tolist() == [0, 1, 2, 3]
    assert found.labels.tolist() == [3, 1, 2, 0]
    assert found.left_out == {"undecodable": 0, "without_label": 0}


def test_samples_without_a_label_or_that_cannot_be_decoded_are_left_out_and_counted():
    masked = batch([1, 1], start=4, present={"label": torch.tensor([True, False])})
    found = extract(column, [batch([5, -1, 2], bad=2), masked], samples=7)
    assert found.features["x"][:, 0].tolist() == [0, 2, 4]
    assert found.labels.tolist() == [5, 2, 1]
    assert found.left_out == {"undecodable": 2, "without_label": 2}


def test_no_label_at_all_says_where_labels_are_named():
    with pytest.raises(DataError, match=r"data\.label"):
        extract(column, [batch([-1, -1])], samples=2)


def test_features_carry_no_graph():
    weight = torch.ones(3, requires_grad=True)
    found = extract(lambda b: {"x": b.columns["x"] * weight}, [batch([0])], samples=1)
    assert not found.features["x"].requires_grad


def test_small_maps_are_flattened_and_large_ones_average_pooled():
    assert flatten(torch.randn(2, 8, 4, 4)).shape == (2, 128)
    x = torch.randn(2, 3, 224, 224)
    assert pooled((3, 224, 224)) == (3, 52, 52)
    assert flatten(x).shape == (2, 3 * 52 * 52)
    assert pooled((3, 64, 64), limit=3072) == (3, 32, 32)
    four = x.unflatten(2, (112, 2)).unflatten(4, (112, 2)).mean((3, 5))  # means of 2 x 2 pixels
    assert torch.allclose(flatten(x, limit=3 * 112 * 112), four.flatten(1), atol=1e-6)
    assert pooled((6, 20_000)) == (6, 1365)  # signals
    assert pooled((10_000, 2, 2)) == (10_000, 1, 1)  # channels are never mixed


def test_views_are_joined_after_each_is_standardised_by_its_train():
    train = {"a": torch.randn(50, 2) * 100, "b": torch.randn(50, 3)}
    test = {"a": train["a"][:5], "b": train["b"][:5]}
    fitted, tested = join(train, test)
    assert torch.allclose(fitted.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(fitted.std(0, correction=0), torch.ones(5), atol=1e-5)
    assert tested.equal(fitted[:5])


class Model:
    """Objectives by label; those of the labels in `known` say what they compare."""

    def __init__(self, **known):
        self.labels = ["plain", *known]
        self.objective = [object(), *(Mock(**{"represent.return_value": x}) for x in known.values())]


def test_a_layer_that_does_not_exist_is_refused_with_those_that_do():
    features = Features((torch.zeros(2, 4, 3, 3), torch.zeros(2, 8, 1, 1)), torch.zeros(2, 8))
    assert at_layer(Model(), "a", features, "0").shape == (2, 36)
    for layer in ("head", "2", "-1", "fc"):
        with pytest.raises(RecipeError, match=r"accepted: vector, 0, 1\)"):
            at_layer(Model(), "a", features, layer)


def test_a_head_is_that_of_the_first_objective_that_has_one_or_of_the_objective_named():
    model, features = Model(cmc="c", mib="m"), Features((), torch.zeros(2, 8))
    found = {layer: at_layer(model, "a", features, layer) for layer in ("head", "head:cmc", "head:mib")}
    assert found == {"head": "c", "head:cmc": "c", "head:mib": "m"}
    with pytest.raises(RecipeError, match=r"accepted: vector, head, head:cmc, head:mib\)"):
        at_layer(model, "a", features, "head:plain")
