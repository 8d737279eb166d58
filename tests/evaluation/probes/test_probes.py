"""Probes against scikit-learn, chance and perfection."""

import importlib
import json
import math

import numpy as np
import pytest
import torch
from labelled_points import clusters, largest_made, several
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from mvssl.evaluation import Labelled, cluster, fewlabel, knn, linear, mlp
from mvssl.evaluation.features.labelled import Standard
from mvssl.evaluation.probes.few_label import draw_shots, logistic_regression, rows_of_classes
from mvssl.evaluation.probes.fitting import hold_out
from mvssl.evaluation.probes.knn import votes
from mvssl.evaluation.probes.linear import PAIRS, fit, select
from mvssl.evaluation.results.metrics import NotPossible

QUICK = {"epochs": 1, "batch_size": 64, "least_steps": 100}


def module(name: str):
    """A probe's module; its package shows the probe itself under that name."""
    return importlib.import_module(f"mvssl.evaluation.probes.{name}")


@pytest.mark.parametrize("probe", [knn, lambda a, b: linear(a, b, **QUICK), lambda a, b: fewlabel(a, b, shots=2)])
def test_separable_clusters_are_told_apart_by_every_probe(probe):
    assert probe(clusters(200, 50, width=4), clusters(80, 50, width=4, seed=1)).value == 1.0


@pytest.mark.parametrize("probe", [knn, lambda a, b: linear(a, b, **QUICK), lambda a, b: fewlabel(a, b, shots=2)])
def test_labels_that_features_do_not_show_are_guessed_at_chance(probe):
    result = probe(clusters(400, 0), clusters(1000, 0, seed=1))
    assert abs(result.value - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)


def test_knn_is_scikit_learns_brute_force_with_the_same_weights(monkeypatch):
    monkeypatch.setattr(module("knn"), "CELLS", 1000)  # several chunks
    train, test = clusters(150, 2), clusters(70, 2, seed=1)
    brute = KNeighborsClassifier(
        20, algorithm="brute", metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(train.features.numpy(), train.labels.numpy())
    expected = brute.predict_proba(test.features.numpy())
    assert np.allclose(votes(train, test.features).numpy(), expected, atol=1e-5)


def test_knn_with_fewer_samples_than_neighbours_asks_them_all():
    train = clusters(8, 50)
    assert knn(train, train).protocol["k"] == 8


def test_knn_on_multi_hot_labels_gives_an_average_precision():
    train, test = several(200), several(90, seed=1)
    neighbours = votes(train, test.features).numpy()
    assert knn(train, test).value == pytest.approx(average_precision_score(test.labels.numpy(), neighbours))


def test_linear_is_as_good_as_scikit_learns_best_logistic_regression():
    train, test = clusters(600, 1.5, width=16), clusters(2000, 1.5, width=16, seed=1)
    standard = Standard.of(train.features)
    x, y = standard(train.features).numpy(), train.labels.numpy()
    theirs = max(
        LogisticRegression(C=c, max_iter=500).fit(x, y).score(standard(test.features).numpy(), test.labels.numpy())
        for c in (0.01, 0.1, 1.0)
    )
    assert linear(train, test).value == pytest.approx(theirs, abs=0.01)


def test_wide_features_are_classified_by_the_same_protocol_as_narrow_ones():
    """Adam knows its coordinates, so no rotation leaves it alone: pixels and columns of an encoder are fitted alike."""
    protocols = [linear(clusters(90, 3, width=d), clusters(40, 3, width=d), **QUICK).protocol for d in (8, 400)]
    assert protocols[0] == protocols[1]


def test_linear_learns_multi_hot_labels():
    train, test = several(600), several(300, seed=1)
    best_possible = average_precision_score(test.labels.numpy(), test.features.numpy())
    assert linear(train, test).value == pytest.approx(best_possible, abs=0.02)


def test_the_choice_of_settings_never_sees_the_test_set():
    train, test = clusters(200, 1), clusters(80, 1, seed=1)
    poisoned = Labelled(torch.full_like(test.features, torch.nan), test.labels)
    a, b = linear(train, test, **QUICK), linear(train, poisoned, **QUICK)
    assert a.protocol == b.protocol
    assert a.chosen == b.chosen == select(train, **QUICK)


def test_the_choice_of_settings_is_that_of_the_part_held_out(monkeypatch):
    """Of two rates one is too small to learn anything."""
    monkeypatch.setattr(module("linear"), "RATES", (1e-9, 1e-2))
    chosen = select(clusters(300, 3), **QUICK)
    assert chosen["learning_rate"] == 1e-2
    assert chosen["held_out_samples"] == 60
    assert chosen["held_out_score"] > 0.9


def test_the_part_held_out_is_not_trained_on():
    """Labels that features do not show can be learned by heart in 200 dimensions, and only by heart."""
    noise = clusters(200, 0, width=200)
    assert select(noise, epochs=1, batch_size=64, least_steps=300)["held_out_score"] < 0.6


def test_scores_of_the_part_held_out_are_held_for_one_candidate_at_a_time():
    """Of all twelve at once they would be 600 x 12 x 4 numbers."""
    train = clusters(3000, 1, width=4)
    with largest_made() as largest:
        select(train, epochs=1, batch_size=64, least_steps=2)
    assert largest[0] < 600 * 12 * 4


def test_weight_decay_finds_the_optimum_of_the_penalised_loss():
    """Mean cross-entropy + decay |w|^2 / 2 is scikit-learn's loss at C = 1 / (n decay)."""
    train, decay = clusters(64, 1), 0.1
    x = Standard.of(train.features)(train.features)
    theirs = LogisticRegression(C=1 / (64 * decay), tol=1e-8, max_iter=1000).fit(x.numpy(), train.labels.numpy())
    ours = fit(train, [(1e-2, decay)], width=4, epochs=1, batch_size=64, least_steps=1000, seed=0)
    assert np.allclose(ours.weight[0].numpy(), theirs.coef_, atol=5e-3)


def test_the_same_seed_gives_the_same_linear_probe():
    train, test = clusters(200, 1), clusters(80, 1, seed=1)
    assert linear(train, test, **QUICK).parts.equal(linear(train, test, **QUICK).parts)


def test_logistic_regression_reaches_the_optimum_of_scikit_learn():
    for n, width in ((30, 80), (80, 10)):
        train = clusters(n, 1, width=width)
        x, y = train.features.double() * width**-0.5, train.labels
        theirs = LogisticRegression(C=10, tol=1e-8, max_iter=10_000).fit(x.numpy(), y.numpy())
        made = logistic_regression(x, torch.eye(4)[y], c=10, multi=False, tolerance=1e-6)
        ours = (x @ made.weight + made.bias).softmax(1)
        assert np.allclose(ours.numpy(), theirs.predict_proba(x.numpy()), atol=1e-4)


def test_logistic_regression_with_sigmoids_is_one_binary_regression_per_class():
    train = several(60)
    made = logistic_regression(train.features.double(), train.labels, c=10, multi=True, tolerance=1e-6)
    for c in range(3):
        theirs = LogisticRegression(C=10, tol=1e-8).fit(train.features.double().numpy(), train.labels[:, c].numpy())
        assert np.allclose(made.weight[:, c].numpy(), theirs.coef_[0], atol=1e-3)


def test_few_labels_of_many_classes_need_little_memory():
    """A row per class for all of train would be 1,000 x 50 numbers, the scores of all draws 12 x 100 x 50."""
    train, test = clusters(1000, 3, kinds=50, width=2), clusters(100, 3, kinds=50, width=2, seed=1)
    with largest_made() as largest:
        fewlabel(train, test, shots=1, draws=12)
    assert largest[0] <= 10_000


@pytest.mark.parametrize("labels", [torch.tensor([2, 0, 2, 4, 0, 2]), (torch.rand(30, 3) < 0.3).float()])
def test_the_members_of_a_class_are_where_the_labels_name_it(labels):
    found = rows_of_classes(labels)
    assert len(found) == (5 if labels.ndim == 1 else 3)
    for kind, rows in enumerate(found):
        named = labels == kind if labels.ndim == 1 else labels[:, kind] > 0
        assert rows.tolist() == named.nonzero()[:, 0].tolist()


def test_draws_hold_the_same_number_of_every_class():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 3)
    for number in range(5):
        drawn = draw_shots(rows_of_classes(labels), 3, seed=0, number=number)
        assert torch.bincount(labels[drawn]).tolist() == [3, 3, 3]
    assert torch.bincount(labels[draw_shots(rows_of_classes(labels), 10, seed=0, number=0)]).tolist() == [10, 10, 3]


def test_draws_of_multi_hot_labels_hold_enough_positives():
    labels = several(300).labels
    drawn = labels[draw_shots(rows_of_classes(labels), 5, seed=0, number=0)]
    assert (drawn.sum(0) >= 5).all()
    assert len(drawn) <= 15


def test_draws_differ_from_each_other_and_depend_on_seed_and_labels_alone():
    labels = torch.arange(200) % 4
    a, again = (
        draw_shots(rows_of_classes(labels), 5, seed=0, number=0),
        draw_shots(rows_of_classes(labels.clone()), 5, seed=0, number=0),
    )
    assert a.equal(again)
    assert not a.equal(draw_shots(rows_of_classes(labels), 5, seed=0, number=1))
    assert not a.equal(draw_shots(rows_of_classes(labels), 5, seed=1, number=0))


def test_two_encoders_are_given_the_same_labels(monkeypatch):
    seen = []
    monkeypatch.setattr(module("few_label"), "draw_shots", lambda *a: seen.append(draw_shots(*a)) or seen[-1])
    for width in (8, 12):
        fewlabel(clusters(100, 3, width=width), clusters(40, 3, width=width, seed=1), shots=2, draws=3)
    assert all(a.equal(b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_few_labels_use_no_label_but_those_drawn():
    train, test = clusters(100, 3), clusters(40, 3, seed=1)
    before = fewlabel(train, test, shots=2, draws=1)
    kept = draw_shots(rows_of_classes(train.labels), 2, 0, 0)
    x, y = Standard.of(train.features)(train.features)[kept] * 8**-0.5, train.labels[kept]
    alone = logistic_regression(x, torch.eye(4)[y], c=10, multi=False)
    scores = Standard.of(train.features)(test.features) * 8**-0.5 @ alone.weight + alone.bias
    assert before.value == pytest.approx((scores.argmax(1) == test.labels).double().mean().item())


def test_more_labels_than_most_classes_have_are_not_drawn():
    train = clusters(90, 3)  # 22 or 23 of each class
    with pytest.raises(NotPossible, match="24 labels per class: 0 of 4"):
        fewlabel(train, train, shots=24)
    assert fewlabel(train, train, shots=23, draws=2).protocol["labels_per_draw"] == 90


def test_few_labels_on_multi_hot_labels_give_an_average_precision():
    result = fewlabel(several(300), several(200, seed=1), shots=10, draws=5)
    assert 0.6 < result.value < 1.0


@pytest.mark.parametrize("probe", [knn, lambda a, b: linear(a, b, **QUICK), lambda a, b: fewlabel(a, b, shots=1)])
def test_every_protocol_is_json(probe):
    protocol = probe(clusters(60, 3), clusters(20, 3, seed=1)).protocol
    assert json.loads(json.dumps(protocol)) == protocol
    assert "chosen" in protocol


@pytest.mark.parametrize("samples", [2, 3])
def test_a_linear_probe_of_hardly_any_samples_says_how_many_it_needs(samples):
    few = Labelled(torch.randn(samples, 4), torch.arange(samples) % 2)
    with pytest.raises(NotPossible, match="at least 4"):
        linear(few, few)


def test_a_fit_on_some_rows_is_the_fit_on_a_copy_of_them_bit_for_bit():
    kept, held = hold_out(300, 0.2, 0)
    schedule = {"width": 3, "epochs": 1, "batch_size": 64, "least_steps": 20, "seed": 0}
    for train in (clusters(300, 1, kinds=3), several(300)):
        copy = Labelled(train.features[kept], train.labels[kept])
        there, taken = fit(train, PAIRS, part=kept, **schedule), fit(copy, PAIRS, **schedule)
        assert all(torch.equal(a, b) for a, b in zip(there[1:], taken[1:], strict=True))
        assert torch.equal(there(train.features, held), taken(train.features[held]))


def test_choosing_settings_makes_no_copy_of_train(monkeypatch):
    monkeypatch.setattr(importlib.import_module("mvssl.evaluation.features.labelled"), "BLOCK", 2**14)
    train = clusters(3000, 3, width=64)
    with largest_made() as largest:
        select(train, epochs=1, batch_size=64, least_steps=3)
    assert largest[0] < train.features.numel() / 3


def test_statistics_of_some_rows_are_those_of_a_copy_in_one_block_or_many(monkeypatch):
    train, rows = clusters(200, 3), torch.randperm(200)[:150]
    whole = Standard.of(train.features[rows])
    assert all(torch.equal(a, b) for a, b in zip(whole, Standard.of(train.features, rows), strict=True))
    monkeypatch.setattr(
        importlib.import_module("mvssl.evaluation.features.labelled"), "BLOCK", 300
    )  # two columns at a time
    torch.testing.assert_close(Standard.of(train.features, rows), whole)


def test_few_labels_on_very_wide_inputs_reach_scikit_learns_optimum():
    """In float32 the products of 53,248 numbers err by more than the smallest eigenvalue of a draw."""
    n, width = 12, 53_248
    labels = torch.arange(n) % 3
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(0)) * width**-0.5 + labels[:, None] * 1e-3
    x[3:6] = x[0:3]  # rows that repeat
    made = logistic_regression(x, torch.eye(3)[labels], c=10, multi=False, tolerance=1e-6)
    theirs = LogisticRegression(C=10, tol=1e-8, max_iter=10_000).fit(x.double().numpy(), labels.numpy())
    ours = (x.double() @ made.weight.double() + made.bias).softmax(1)
    assert np.allclose(ours.numpy(), theirs.predict_proba(x.double().numpy()), atol=1e-4)


DEGENERATE = {
    "zeros": torch.zeros(30, 80),
    "constant": torch.full((30, 80), 5.0),
    "rank one": torch.randn(30, 1) @ torch.randn(1, 80),
    "repeated": torch.randn(3, 80).repeat(10, 1),
    "one feature": torch.randn(30, 1),
    "one outlier": torch.cat([torch.randn(29, 80), torch.full((1, 80), 1e20)]),
}


@pytest.mark.parametrize("kind", DEGENERATE)
@pytest.mark.parametrize(
    "probe",
    [
        knn,
        lambda a, b: linear(a, b, **QUICK),
        lambda a, b: fewlabel(a, b, shots=1, draws=2),
        lambda a, b: fewlabel(a, b, shots=5, draws=2),
        lambda a, b: fewlabel(a, b, shots=5, draws=2, head="mib"),
        lambda a, b: mlp(a, b, epochs=1, least_steps=5),
        lambda a, b: cluster(a, b)[0],
    ],
    ids=["knn", "linear", "one label", "five labels", "mib", "mlp", "cluster"],
)
def test_degenerate_features_end_in_a_share_of_right_answers(probe, kind):
    features, labels = DEGENERATE[kind], torch.arange(30) % 3
    assert 0 <= probe(Labelled(features[:24], labels[:24]), Labelled(features[24:], labels[24:])).value <= 1


@pytest.mark.parametrize("factor", [1e-30, 1e-12, 1e20, 1e30])
def test_the_scale_of_features_does_not_matter_to_any_probe(factor):
    train, test = clusters(60, 2, width=40), clusters(30, 2, width=40, seed=1)
    scaled = [Labelled(part.features * factor, part.labels) for part in (train, test)]
    for probe in (knn, lambda a, b: linear(a, b, **QUICK), lambda a, b: fewlabel(a, b, shots=5, draws=2)):
        assert probe(*scaled).value == pytest.approx(probe(train, test).value, abs=1e-6)
    torch.testing.assert_close(
        Standard.of(scaled[0].features)(scaled[1].features), Standard.of(train.features)(test.features)
    )


@pytest.mark.parametrize("probe", [knn, linear, mlp, cluster, lambda a, b: fewlabel(a, b, shots=1)])
def test_one_class_is_refused_by_every_classifier(probe):
    train = Labelled(torch.randn(20, 4), torch.zeros(20, dtype=torch.long))
    with pytest.raises(NotPossible, match="one class"):
        probe(train, train)
