"""The linear probe against scikit-learn: the fit, the choice of settings on held-out samples, and missing views."""

import math

import numpy as np
import pytest
import torch
from labelled_points import clusters, largest_made, several
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from mvssl.evaluation import Labelled, linear, view_ablation
from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.features.labelled import Standardiser
from mvssl.evaluation.probes.fitting import hold_out
from mvssl.evaluation.probes.linear import PAIRS, choose_settings, fit_linear
from mvssl.evaluation.results.metrics import NotPossible

QUICK = {"epochs": 1, "batch_size": 64, "least_steps": 100}


def test_linear_is_as_good_as_scikit_learns_best_logistic_regression():
    train, test = clusters(600, 1.5, width=16), clusters(2000, 1.5, width=16, seed=1)
    standard = Standardiser.of(train.features)
    x, y = standard(train.features).numpy(), train.labels.numpy()
    theirs = max(
        LogisticRegression(C=c, max_iter=500).fit(x, y).score(standard(test.features).numpy(), test.labels.numpy())
        for c in (0.01, 0.1, 1.0)
    )
    assert linear(train, test).value == pytest.approx(theirs, abs=0.01)


def test_wide_and_narrow_features_have_the_same_protocol():
    protocols = [linear(clusters(90, 3, width=d), clusters(40, 3, width=d), **QUICK).protocol for d in (8, 400)]
    assert protocols[0] == protocols[1]


def test_linear_learns_multi_hot_labels():
    train, test = several(600), several(300, seed=1)
    best_possible = average_precision_score(test.labels.numpy(), test.features.numpy())
    assert linear(train, test).value == pytest.approx(best_possible, abs=0.02)


def test_settings_are_chosen_without_the_test_set():
    train, test = clusters(200, 1), clusters(80, 1, seed=1)
    poisoned = Labelled(torch.full_like(test.features, torch.nan), test.labels)
    a, b = linear(train, test, **QUICK), linear(train, poisoned, **QUICK)
    assert a.protocol == b.protocol
    assert a.chosen == b.chosen == choose_settings(train, **QUICK)


def test_settings_are_chosen_by_the_held_out_score(monkeypatch):
    """Of two rates one is too small to learn anything."""
    monkeypatch.setattr("mvssl.evaluation.probes.linear.PAIRS", [(1e-9, 0.0), (1e-2, 0.0)])
    chosen = choose_settings(clusters(300, 3), **QUICK)
    assert chosen["learning_rate"] == 1e-2
    assert chosen["held_out_samples"] == 60
    assert chosen["held_out_score"] > 0.9


def test_held_out_samples_are_not_trained_on():
    """In 200 dimensions a classifier can fit random labels, but only of samples that it was trained on."""
    noise = clusters(200, 0, width=200)
    assert choose_settings(noise, epochs=1, batch_size=64, least_steps=300)["held_out_score"] < 0.6


def test_held_out_scores_are_in_memory_for_one_pair_at_a_time():
    """For all twelve at once they would be 600 x 12 x 4 numbers."""
    train = clusters(3000, 1, width=4)
    with largest_made() as largest:
        choose_settings(train, epochs=1, batch_size=64, least_steps=2)
    assert largest[0] < 600 * 12 * 4


def test_weight_decay_gives_the_optimum_of_the_penalised_loss():
    """Mean cross-entropy + decay |w|^2 / 2 is scikit-learn's loss at C = 1 / (n decay)."""
    train, decay = clusters(64, 1), 0.1
    x = Standardiser.of(train.features)(train.features)
    theirs = LogisticRegression(C=1 / (64 * decay), tol=1e-8, max_iter=1000).fit(x.numpy(), train.labels.numpy())
    ours = fit_linear(train, [(1e-2, decay)], width=4, epochs=1, batch_size=64, least_steps=1000, seed=0)
    assert np.allclose(ours.weight[0].numpy(), theirs.coef_, atol=5e-3)


def test_the_same_seed_gives_the_same_classifier():
    train, test = clusters(200, 1), clusters(80, 1, seed=1)
    assert linear(train, test, **QUICK).parts.equal(linear(train, test, **QUICK).parts)


@pytest.mark.parametrize("samples", [2, 3])
def test_too_few_samples_are_refused_with_the_number_needed(samples):
    few = Labelled(torch.randn(samples, 4), torch.arange(samples) % 2)
    with pytest.raises(NotPossible, match="at least 4"):
        linear(few, few)


def test_a_fit_on_some_rows_equals_the_fit_on_a_copy_of_them():
    kept, held = hold_out(300, 0.2, 0)
    schedule = {"width": 3, "epochs": 1, "batch_size": 64, "least_steps": 20, "seed": 0}
    for train in (clusters(300, 1, kinds=3), several(300)):
        copy = Labelled(train.features[kept], train.labels[kept])
        of_rows, of_copy = fit_linear(train, PAIRS, part=kept, **schedule), fit_linear(copy, PAIRS, **schedule)
        assert all(torch.equal(a, b) for a, b in zip(of_rows[1:], of_copy[1:], strict=True))
        assert torch.equal(of_rows(train.features, held), of_copy(train.features[held]))


def test_choosing_settings_makes_no_copy_of_train(monkeypatch):
    monkeypatch.setattr("mvssl.evaluation.features.labelled.BLOCK", 2**14)
    train = clusters(3000, 3, width=64)
    with largest_made() as largest:
        choose_settings(train, epochs=1, batch_size=64, least_steps=3)
    assert largest[0] < train.features.numel() / 3


def test_statistics_of_some_rows_equal_those_of_a_copy(monkeypatch):
    train, rows = clusters(200, 3), torch.randperm(200)[:150]
    of_copy = Standardiser.of(train.features[rows])
    assert all(torch.equal(a, b) for a, b in zip(of_copy, Standardiser.of(train.features, rows), strict=True))
    monkeypatch.setattr("mvssl.evaluation.features.labelled.BLOCK", 300)  # two columns at a time
    torch.testing.assert_close(Standardiser.of(train.features, rows), of_copy)


def two_bits(n: int, seed: int) -> ByView:
    """Labels of two bits; `left` shows one of them, `right` the other, `none` neither."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (n, 2), generator=generator)
    noise = torch.randn(n, 3, 4, generator=generator)
    left, right = (20 * bits[:, i, None] + noise[:, i] for i in (0, 1))
    return ByView({"left": left, "right": right, "none": noise[:, 2]}, 2 * bits[:, 0] + bits[:, 1], {})


def test_a_missing_view_loses_only_what_no_other_view_shows():
    results = {r.what: r.value for r in view_ablation(two_bits(400, 0), two_bits(400, 1), **QUICK)}
    views = ("left", "right", "none")
    assert list(results) == ["all", *(f"without {v}" for v in views), *(f"only {v}" for v in views)]
    assert results["all"] == results["without none"] == 1
    for name in ("without left", "without right", "only left", "only right"):
        assert results[name] == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 400))
    assert results["only none"] == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))


def test_a_missing_view_is_its_mean_whatever_its_features_are():
    train, test = two_bits(200, 0), two_bits(100, 1)
    other = test._replace(features=test.features | {"left": 1000 * torch.randn(100, 4)})
    before, after = (view_ablation(train, split, **QUICK)[1] for split in (test, other))
    assert before.what == after.what == "without left"
    assert before.parts.equal(after.parts)


def test_with_all_views_sensors_equals_the_linear_probe():
    train, test = two_bits(200, 0), two_bits(100, 1)
    joined = [Labelled(torch.cat(list(split.features.values()), 1), split.labels) for split in (train, test)]
    assert view_ablation(train, test, **QUICK)[0].parts.equal(linear(*joined, **QUICK).parts)


def test_a_single_view_cannot_be_missing():
    one = ByView({"left": torch.randn(10, 3)}, torch.arange(10) % 2, {})
    with pytest.raises(NotPossible):
        view_ablation(one, one)
