"""The papers' classifiers: layers, optimizer and schedule; what an MLP learns that a linear classifier cannot."""

import json
import math

import pytest
import torch
from labelled_points import clusters, largest_made, several
from sklearn.metrics import average_precision_score
from torch import nn

from mvssl.evaluation import Labelled, linear, mlp_probe
from mvssl.evaluation.features.labelled import Standardiser
from mvssl.evaluation.probes.classifiers import MLPS, HeadTraining, build_head
from mvssl.evaluation.probes.fitting import hold_out, loss

QUICK = {"epochs": 1, "least_steps": 150}


def product_signs(n: int, seed: int) -> Labelled:
    """The sign of a product of two features, which no linear classifier predicts."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return Labelled(x, (x[:, 0] * x[:, 1] > 0).long())


@pytest.mark.parametrize("head", MLPS)
def test_an_mlp_learns_what_a_linear_classifier_cannot(head):
    train, test = product_signs(1500, 0), product_signs(500, 1)
    assert mlp_probe(train, test, head=head, rates=(1e-2,), epochs=1, least_steps=200).value > 0.9
    assert linear(train, test, epochs=1, batch_size=64, least_steps=100).value < 0.7


def test_features_without_information_score_chance():
    result = mlp_probe(clusters(400, 0), clusters(1000, 0, seed=1), **QUICK)
    assert abs(result.value - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)


def test_an_mlp_learns_multi_hot_labels():
    train, test = several(600), several(300, seed=1)
    best_possible = average_precision_score(test.labels.numpy(), test.features.numpy())
    assert mlp_probe(train, test, rates=(1e-2,), **QUICK).value == pytest.approx(best_possible, abs=0.03)


def test_the_rate_is_chosen_without_the_test_set():
    train, test = clusters(200, 1), clusters(80, 1, seed=1)
    poisoned = Labelled(torch.full_like(test.features, torch.nan), test.labels)
    assert mlp_probe(train, test, **QUICK).chosen == mlp_probe(train, poisoned, **QUICK).chosen


def test_the_chosen_rate_is_the_best_on_held_out_samples():
    train = clusters(300, 3)
    training = HeadTraining(train, MLPS["dim"], Standardiser.of(train.features), **QUICK, seed=0)
    chosen = training.choose_rate((1e-9, 1e-2), share=0.2)
    assert chosen["learning_rate"] == 1e-2
    assert chosen["held_out_samples"] == 60
    assert chosen["held_out_score"] > 0.9


def test_features_that_are_not_standardised_are_not_copied():
    train = clusters(5000, 1, width=50)
    with largest_made() as largest:
        result = linear(train, clusters(20, 1, width=50), head="amdim", epochs=1, least_steps=1)
    assert result.protocol["scaling"] == "none"
    assert largest[0] < train.features.numel()


def test_without_rates_the_papers_rate_is_taken():
    train, test = clusters(100, 1), clusters(50, 1, seed=1)
    for head, rate in (("dim", 1e-4), ("amdim", 2e-4)):
        result = mlp_probe(train, test, head=head, rates=None, epochs=1, least_steps=2)
        assert result.chosen["learning_rate"] == rate
        assert result.protocol["chosen"] == "fixed beforehand"
        assert json.loads(json.dumps(result.protocol)) == result.protocol


@pytest.mark.parametrize(("head", "betas"), [("dim", "(0.5, 0.999)"), ("amdim", "(0.8, 0.999)")])
def test_adam_has_the_betas_of_the_papers_code(head, betas):
    """DIM's are the defaults of cortex, the library that its code trains with."""
    train = clusters(40, 1)
    assert f"betas {betas}," in mlp_probe(train, train, head=head, epochs=1, least_steps=1).protocol["optimizer"]


def test_dropout_is_at_the_places_of_the_papers():
    kinds = [type(layer).__name__ for layer in build_head(MLPS["dim"], 8, 3)]
    assert kinds == ["Identity", "Linear", "Dropout", "BatchNorm1d", "ReLU", "Identity", "Linear"]
    kinds = [type(layer).__name__ for layer in build_head(MLPS["amdim"], 8, 3)]
    assert kinds == ["Dropout", "Linear", "Identity", "BatchNorm1d", "ReLU", "Dropout", "Linear"]


def test_the_same_seed_gives_the_same_head_and_keeps_the_generator():
    training = HeadTraining(clusters(100, 1), MLPS["amdim"], nn.Identity(), epochs=1, least_steps=5, seed=3)
    before = torch.get_rng_state()
    fits = [training.fit(1e-3) for _ in range(2)]
    assert torch.get_rng_state().equal(before)
    for a, b in zip(fits[0].parameters(), fits[1].parameters(), strict=True):
        assert a.equal(b)


@pytest.mark.parametrize("n", [300, 1000])
def test_small_sets_have_the_papers_batch_size_too(n, monkeypatch):
    seen = []
    monkeypatch.setattr("mvssl.evaluation.probes.classifiers.loss", lambda s, y: seen.append(len(y)) or loss(s, y))
    result = mlp_probe(clusters(n, 1), clusters(20, 1), head="amdim", rates=None, epochs=1, least_steps=1)
    assert set(seen) == {min(480, n)} == {result.protocol["batch_size"]}


@pytest.mark.parametrize("head", ["dim", "amdim"])
def test_a_fit_on_some_rows_equals_the_fit_on_a_copy_of_them(head):
    train = clusters(300, 1, kinds=4)
    (kept, held), standard = hold_out(300, 0.2, 0), Standardiser.of(train.features)
    copy = Labelled(standard(train.features)[kept], train.labels[kept])
    of_rows = HeadTraining(train, MLPS[head], standard, epochs=1, least_steps=5, seed=0)
    of_copy = HeadTraining(copy, MLPS[head], nn.Identity(), epochs=1, least_steps=5, seed=0)
    expected = of_copy.scores(of_copy.fit(1e-3), standard(train.features)[held])
    assert torch.equal(of_rows.scores(of_rows.fit(1e-3, kept), train.features, held), expected)


def test_choosing_and_fitting_make_no_copy_of_train():
    train = clusters(3000, 3, width=64)
    with largest_made() as largest:
        mlp_probe(train, clusters(100, 3, width=64), rates=(1e-3, 1e-2), epochs=1, least_steps=1)
    assert largest[0] < train.features.numel()
