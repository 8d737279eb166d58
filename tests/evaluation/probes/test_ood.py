"""Outlier scores against closed forms and scikit-learn, and outliers of the same distribution as test."""

import math

import numpy as np
import pytest
import torch
from labelled_points import clusters, largest_made, several
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

from mvssl.evaluation import Labelled
from mvssl.evaluation.probes.ood import auroc, mahalanobis, neighbour_distance, ood


def test_distant_outliers_are_all_separated():
    train, test = clusters(200, 3), clusters(60, 3, seed=1)
    found = ood(train, test, other=-20 + clusters(50, 3, seed=2).features)
    assert {result.what: result.value for result in found} == {"mahalanobis": 1.0, "neighbour": 1.0}


def test_samples_of_the_same_distribution_score_chance():
    for result in ood(clusters(300, 3), clusters(400, 3, seed=1), other=clusters(400, 3, seed=2).features):
        assert abs(result.value - 0.5) < 4 * math.sqrt(1 / (6 * 400))


def test_auroc_equals_scikit_learns_with_ties_and_without():
    outlier = torch.rand(80) < 0.4
    for scores in (torch.randn(80), torch.randint(5, (80,)).float()):
        assert auroc(scores, outlier).item() == pytest.approx(roc_auc_score(outlier, scores))


def test_a_weight_of_two_is_the_sample_twice():
    scores, outlier = torch.randint(6, (30,)).float(), torch.arange(30) % 3 == 0
    counts = torch.randint(1, 3, (2, 30))
    for row, found in zip(counts, auroc(scores, outlier, counts.float()), strict=True):
        twice = torch.repeat_interleave(torch.arange(30), row)
        assert found.item() == pytest.approx(roc_auc_score(outlier[twice], scores[twice]))


def mahalanobis_by_hand(train: Labelled, features: torch.Tensor) -> np.ndarray:
    """The squared distance to the nearest of four class means, in scikit-learn's covariance."""
    means = torch.stack([train.features[train.labels == c].mean(0) for c in range(4)]).double()
    within = train.features.double() - means[train.labels]
    precision = np.linalg.inv(ledoit_wolf(within.numpy(), assume_centered=True)[0])
    offsets = (features.double()[:, None] - means).numpy()
    return np.einsum("ncd,de,nce->nc", offsets, precision, offsets).min(1)


def test_mahalanobis_uses_the_covariance_of_scikit_learn():
    train, some = clusters(60, 4, width=5), clusters(20, 4, width=5, seed=1).features
    expected = mahalanobis_by_hand(train, some)
    assert mahalanobis(train, some).numpy() == pytest.approx(expected, rel=1e-5)


def test_scores_do_not_depend_on_chunks_and_make_no_copy_of_train(monkeypatch):
    train, some = clusters(3000, 3), clusters(200, 3, seed=1).features
    at_once = mahalanobis(train, some), neighbour_distance(train, some)
    monkeypatch.setattr("mvssl.evaluation.probes.ood.CELLS", 4000)
    with largest_made() as largest:
        assert torch.allclose(mahalanobis(train, some), at_once[0])
        assert largest[0] < 4 * 3000  # features are 8 wide
    assert torch.allclose(neighbour_distance(train, some), at_once[1], atol=1e-5)


def test_mahalanobis_with_few_samples_and_constant_dimensions():
    train = clusters(20, 3, width=50)
    train = Labelled(torch.cat([train.features, torch.zeros(20, 4)], 1), train.labels)
    assert mahalanobis(train, train.features).isfinite().all()


def test_a_training_sample_is_its_own_neighbour():
    train = clusters(100, 1)
    assert neighbour_distance(train, train.features, k=1).max() < 1e-3
    expected = torch.cdist(*[torch.nn.functional.normalize(train.features)] * 2).sort(dim=1).values[:, 4]
    assert torch.allclose(neighbour_distance(train, train.features, k=5), expected, atol=1e-3)


def test_multi_hot_labels_are_not_used():
    train, test = several(100), several(50, seed=1)
    found = ood(train, test, other=test.features + 10)[0]
    assert found.value == 1
    assert "multi-hot" in found.protocol["means"]


def test_every_encoder_has_the_same_resamples():
    train, test, others = clusters(100, 1), clusters(50, 1, seed=1), clusters(40, 1.5, seed=2).features
    first, again = (ood(train, test, other=others)[1] for _ in range(2))
    assert first.parts.equal(again.parts)
    assert first.standard_error == pytest.approx(math.sqrt(1 / (6 * 45)), rel=0.5)


def test_wide_features_need_no_square_covariance_matrix():
    train, some = clusters(24, 4, width=300), clusters(20, 4, width=300, seed=1).features
    expected = mahalanobis_by_hand(train, some)
    with largest_made() as largest:
        assert mahalanobis(train, some).numpy() == pytest.approx(expected, rel=1e-5)
    assert largest[0] < 300 * 300


@pytest.mark.parametrize("features", [torch.zeros(20, 30), torch.full((20, 3), 1e6)])
def test_constant_features_separate_no_outlier(features):
    assert [
        r.value
        for r in ood(
            Labelled(features, torch.arange(20) % 2), Labelled(features[:8], torch.zeros(8)), other=features[:5]
        )
    ] == [0.5, 0.5]
