"""Clusters that agree with the labels, clusters that do not, and class numbers that do not matter."""

import pytest
import torch
from labelled_points import clusters, several

from mvssl.evaluation import Labelled
from mvssl.evaluation.probes.clustering import cluster
from mvssl.evaluation.results.metrics import NotPossible


def test_distant_groups_are_found_without_labels():
    for result in cluster(clusters(200, 50, width=4), clusters(80, 50, width=4, seed=1), seeds=3):
        assert max(result.parts) == pytest.approx(1)


def test_features_without_information_agree_with_labels_by_chance():
    nmi, ari = cluster(clusters(400, 0), clusters(1000, 0, seed=1))
    assert abs(ari.value) < 0.02
    assert nmi.value < 0.02


def test_train_labels_only_give_the_number_of_clusters():
    train, test = clusters(200, 3), clusters(80, 3, seed=1)
    shuffled = Labelled(train.features, train.labels[torch.randperm(200)])
    assert cluster(train, test)[1].parts.equal(cluster(shuffled, test)[1].parts)


def test_class_numbers_do_not_matter():
    train, test = clusters(200, 3), clusters(80, 3, seed=1)
    renamed = Labelled(test.features, 7 - 2 * test.labels)
    assert [r.value for r in cluster(train, test)] == pytest.approx([r.value for r in cluster(train, renamed)])


def test_the_standard_error_is_over_seeds():
    result = cluster(clusters(100, 1), clusters(60, 1, seed=1), seeds=4)[1]
    assert len(result.parts) == 4
    assert result.standard_error == pytest.approx(result.parts.std().item() / 2)


def test_multi_hot_labels_are_refused():
    with pytest.raises(NotPossible, match="one class per sample"):
        cluster(several(40), several(20, seed=1))
