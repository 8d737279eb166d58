"""Flat, standardised and joined features."""

import importlib

import torch
from labelled_points import clusters, largest_made

from mvssl.evaluation.features.labelled import (
    Labelled,
    draw_rows,
    flatten,
    join_views,
    nonzero_lengths,
    one_hot,
    pooled_shape,
    unit_rows,
)
from mvssl.evaluation.probes.knn import knn_scores


def test_small_maps_are_flattened_and_large_ones_average_pooled():
    assert flatten(torch.randn(2, 8, 4, 4)).shape == (2, 128)
    x = torch.randn(2, 3, 224, 224)
    assert pooled_shape((3, 224, 224)) == (3, 52, 52)
    assert flatten(x).shape == (2, 3 * 52 * 52)
    assert pooled_shape((3, 64, 64), limit=3072) == (3, 32, 32)
    four = x.unflatten(2, (112, 2)).unflatten(4, (112, 2)).mean((3, 5))  # means of 2 x 2 pixels
    assert torch.allclose(flatten(x, limit=3 * 112 * 112), four.flatten(1), atol=1e-6)
    assert pooled_shape((6, 20_000)) == (6, 1365)  # signals
    assert pooled_shape((10_000, 2, 2)) == (10_000, 1, 1)  # channels are never mixed


def test_views_are_joined_after_each_is_standardised_by_its_train():
    train = {"a": torch.randn(50, 2) * 100, "b": torch.randn(50, 3)}
    test = {"a": train["a"][:5], "b": train["b"][:5]}
    fitted, tested = join_views(train, test)
    assert torch.allclose(fitted.mean(0), torch.zeros(5), atol=1e-5)
    assert torch.allclose(fitted.std(0, correction=0), torch.ones(5), atol=1e-5)
    assert tested.equal(fitted[:5])


def test_the_seed_draws_some_of_many_samples_or_all_of_few():
    assert draw_rows(5, 9, seed=0).tolist() == [0, 1, 2, 3, 4]
    drawn = draw_rows(1000, 9, seed=1)
    assert (len(drawn.unique()), drawn.tolist()) == (9, draw_rows(1000, 9, seed=1).tolist())
    assert drawn.tolist() != draw_rows(1000, 9, seed=2).tolist()


def test_one_hot_labels_and_unchanged_multi_hot_labels():
    result = one_hot(torch.tensor([2, 0, 2]), 4)
    assert (result.tolist(), result.dtype) == ([[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]], torch.float32)
    assert one_hot(result, 4).equal(result)


def test_votes_of_neighbours_need_little_memory(monkeypatch):
    monkeypatch.setattr(importlib.import_module("mvssl.evaluation.probes.knn"), "CELLS", 20_000)
    train, test = clusters(1000, 2), clusters(30, 2, seed=1).features
    many = Labelled(train.features, torch.arange(1000) % 300)
    with largest_made() as largest:
        result = knn_scores(many, test, k=5)
    assert largest[0] <= 20_000
    whole = one_hot(many.labels, 300)
    similarity = torch.nn.functional.cosine_similarity(test[:, None], train.features, dim=2)
    value, neighbour = similarity.topk(5, dim=1)
    assert torch.allclose(result, ((value / 0.07).softmax(1)[..., None] * whole[neighbour]).sum(1), atol=1e-5)


def test_lengths_of_rows_are_right_at_any_scale():
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    assert nonzero_lengths(x).equal(x.norm(dim=1))
    for factor in (1e-35, 1e-20, 1e20, 1e35):
        scaled = x.clone()
        scaled[::3] *= factor
        expected = scaled.double().norm(dim=1).float()
        torch.testing.assert_close(nonzero_lengths(scaled), expected, rtol=1e-5, atol=0)
        torch.testing.assert_close(unit_rows(scaled), unit_rows(x), rtol=1e-4, atol=1e-6)
    assert nonzero_lengths(torch.zeros(3, 4)).tolist() == [1, 1, 1]
    assert unit_rows(torch.zeros(3, 4)).tolist() == [[0] * 4] * 3
