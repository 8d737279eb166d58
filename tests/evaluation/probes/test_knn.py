"""kNN against scikit-learn."""

import numpy as np
import pytest
from labelled_points import clusters, several
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from mvssl.evaluation import knn
from mvssl.evaluation.probes.knn import knn_scores


def test_votes_equal_scikit_learns_brute_force(monkeypatch):
    monkeypatch.setattr("mvssl.evaluation.probes.knn.CELLS", 1000)  # several chunks
    train, test = clusters(150, 2), clusters(70, 2, seed=1)
    brute = KNeighborsClassifier(
        20, algorithm="brute", metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train.features.numpy(), train.labels.numpy())
    expected = brute.predict_proba(test.features.numpy())
    assert np.allclose(knn_scores(train, test.features).numpy(), expected, atol=1e-5)


def test_with_fewer_samples_than_neighbours_all_samples_vote():
    train = clusters(8, 50)
    assert knn(train, train).protocol["k"] == 8


def test_multi_hot_labels_give_an_average_precision():
    train, test = several(200), several(90, seed=1)
    neighbours = knn_scores(train, test.features).numpy()
    assert knn(train, test).value == pytest.approx(average_precision_score(test.labels.numpy(), neighbours))
