"""What holds for every probe: perfect and random features, degenerate features, and a protocol that is JSON."""

import json
import math

import pytest
import torch
from labelled_points import clusters

from mvssl.errors import RecipeError
from mvssl.evaluation import Labelled, cluster, fewlabel, knn, linear, mlp_probe
from mvssl.evaluation.features.labelled import Standardiser
from mvssl.evaluation.probes import PROBES, find_probe
from mvssl.evaluation.results.metrics import NotPossible

CLASSIFIERS = {
    "knn": knn,
    "linear": lambda a, b: linear(a, b, epochs=1, batch_size=64, least_steps=100),
    "few labels": lambda a, b: fewlabel(a, b, shots=2),
}
ALL = CLASSIFIERS | {
    "one label": lambda a, b: fewlabel(a, b, shots=1, draws=2),
    "mib": lambda a, b: fewlabel(a, b, shots=5, draws=2, head="mib"),
    "mlp": lambda a, b: mlp_probe(a, b, epochs=1, least_steps=5),
    "cluster": lambda a, b: cluster(a, b)[0],
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_separable_clusters_are_classified_without_error(name):
    assert CLASSIFIERS[name](clusters(200, 50, width=4), clusters(80, 50, width=4, seed=1)).value == 1.0


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_features_without_information_score_chance(name):
    result = CLASSIFIERS[name](clusters(400, 0), clusters(1000, 0, seed=1))
    assert abs(result.value - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_protocol_is_json(name):
    protocol = CLASSIFIERS[name](clusters(60, 3), clusters(20, 3, seed=1)).protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert "chosen" in protocol


DEGENERATE = {
    "zeros": torch.zeros(30, 80),
    "constant": torch.full((30, 80), 5.0),
    "rank one": torch.randn(30, 1) @ torch.randn(1, 80),
    "repeated": torch.randn(3, 80).repeat(10, 1),
    "one feature": torch.randn(30, 1),
    "one outlier": torch.cat([torch.randn(29, 80), torch.full((1, 80), 1e20)]),
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize("name", ALL)
def test_degenerate_features_give_a_score_from_0_to_1(name, kind):
    features, labels = DEGENERATE[kind], torch.arange(30) % 3
    assert 0 <= ALL[name](Labelled(features[:24], labels[:24]), Labelled(features[24:], labels[24:])).value <= 1


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e20, 1e30])
def test_the_scale_of_features_changes_no_score(factor):
    train, test = clusters(60, 2, width=40), clusters(30, 2, width=40, seed=1)
    scaled = [Labelled(part.features * factor, part.labels) for part in (train, test)]
    for probe in CLASSIFIERS.values():
        assert probe(*scaled).value == pytest.approx(probe(train, test).value, abs=1e-6)
    torch.testing.assert_close(
        Standardiser.of(scaled[0].features)(scaled[1].features), Standardiser.of(train.features)(test.features)
    )


@pytest.mark.parametrize("name", ALL)
def test_one_class_is_refused_by_every_classifier(name):
    train = Labelled(torch.randn(20, 4), torch.zeros(20, dtype=torch.long))
    with pytest.raises(NotPossible, match="one class"):
        ALL[name](train, train)


def test_a_class_that_is_no_probe_is_refused():
    assert find_probe("mvssl.evaluation.probes.ood:OOD", "here") is PROBES["ood"]
    with pytest.raises(RecipeError, match=r"here: 'torch\.nn:Linear'"):
        find_probe("torch.nn:Linear", "here")
