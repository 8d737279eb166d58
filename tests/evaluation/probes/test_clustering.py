"""Clusters against labels they are, labels they are not, and names that do not matter."""

import pytest
import torch
from labelled_points import clusters, several

from mvssl.evaluation import Labelled
from mvssl.evaluation.probes.clustering import cluster
from mvssl.evaluation.results.metrics import NotPossible


def test_groups_that_are_far_apart_are_found_without_labels():
    for result in cluster(clusters(200, 50, width=4), clusters(80, 50, width=4, seed=1), seeds=3):
        assert max(result.parts) == pytest.approx(1)


def test_labels_that_features_do_not_show_agree_by_chance():
    nmi, ari = cluster(clusters(400, 0), clusters(1000, 0, seed=1))
    assert abs(ari.value) < 0.02
    assert nmi.value < 0.02


def test_train_labels_give_the_number_of_clusters_and_no_more():
    train, test = clusters(200, 3), clusters(80, 3, seed=1)
    shuffled = Labelled(train.features, train.labels[torch.randperm(200)])
    assert cluster(train, test)[1].parts.equal(cluster(shuffled, test)[1].parts)


def test_names_of_classes_do_not_matter():
    train, test = clusters(200, 3), clusters(80, 3, seed=1)
    renamed = Labelled(test.features, 7 - 2 * test.labels)
    assert [r.value for r in cluster(train, test)] == pytest.approx([r.value for r in cluster(train, renamed)])


def test_the_error_is_that_of_the_seeds():
    found = cluster(clusters(100, 1), clusters(60, 1, seed=1), seeds=4)[1]
    assert len(found.parts) == 4
    assert found.standard_error == pytest.approx(found.parts.std().item() / 2)


def test_several_labels_per_sample_are_no_partition():
    with pytest.raises(NotPossible, match="one class per sample"):
        cluster(several(40), several(20, seed=1))
