"""The MLP probe: what a linear classifier cannot do, what chance gives, what the papers fixed."""

import json
import math

import pytest
import torch
from labelled_points import clusters, largest_made, several
from sklearn.metrics import average_precision_score

from mvssl.evaluation import Labelled, linear, mlp
from mvssl.evaluation.features.labelled import Standard
from mvssl.evaluation.probes.classifiers import MLPS, build, fit, scores, select
from mvssl.evaluation.probes.fitting import hold_out, loss, minibatches

QUICK = {"epochs": 1, "least_steps": 150}


def checkers(n: int, seed: int) -> Labelled:
    """The sign of a product: no line parts it."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return Labelled(x, (x[:, 0] * x[:, 1] > 0).long())


@pytest.mark.parametrize("head", MLPS)
def test_an_mlp_learns_what_no_line_parts(head):
    train, test = checkers(1500, 0), checkers(500, 1)
    found = mlp(train, test, head=head, rates=(1e-2,), epochs=1, least_steps=200)
    assert found.value > 0.9
    assert linear(train, test, epochs=1, batch_size=64, least_steps=100).value < 0.7


def test_labels_that_features_do_not_show_are_guessed_at_chance():
    found = mlp(clusters(400, 0), clusters(1000, 0, seed=1), **QUICK)
    assert abs(found.value - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1000)


def test_an_mlp_learns_multi_hot_labels():
    train, test = several(600), several(300, seed=1)
    best_possible = average_precision_score(test.labels.numpy(), test.features.numpy())
    assert mlp(train, test, rates=(1e-2,), **QUICK).value == pytest.approx(best_possible, abs=0.03)


def test_the_choice_of_the_rate_never_sees_the_test_set():
    train, test = clusters(200, 1), clusters(80, 1, seed=1)
    poisoned = Labelled(torch.full_like(test.features, torch.nan), test.labels)
    assert mlp(train, test, **QUICK).chosen == mlp(train, poisoned, **QUICK).chosen


def test_the_chosen_rate_is_the_better_one_on_what_was_held_out():
    train = clusters(300, 3)
    train = Labelled(Standard.of(train.features)(train.features), train.labels)
    chosen = select(train, MLPS["dim"], (1e-9, 1e-2), share=0.2, seed=0, kinds=4, **QUICK)
    assert chosen["learning_rate"] == 1e-2
    assert chosen["held_out_samples"] == 60
    assert chosen["held_out_score"] > 0.9


def test_features_that_are_taken_as_they_are_are_not_copied():
    train = clusters(5000, 1, width=50)
    with largest_made() as largest:
        found = linear(train, clusters(20, 1, width=50), head="amdim", epochs=1, least_steps=1)
    assert found.protocol["scaling"] == "none"
    assert largest[0] < train.features.numel()


def test_the_papers_rate_is_taken_where_nothing_is_to_be_chosen():
    train, test = clusters(100, 1), clusters(50, 1, seed=1)
    for head, rate in (("dim", 1e-4), ("amdim", 2e-4)):
        found = mlp(train, test, head=head, rates=None, epochs=1, least_steps=2)
        assert found.chosen["learning_rate"] == rate
        assert found.protocol["chosen"] == "fixed beforehand"
        assert json.loads(json.dumps(found.protocol)) == found.protocol


@pytest.mark.parametrize(("head", "betas"), [("dim", "(0.5, 0.999)"), ("amdim", "(0.8, 0.999)")])
def test_adam_has_the_betas_of_the_papers_code(head, betas):
    """DIM's are the defaults of cortex, the library that its code trains with."""
    train = clusters(40, 1)
    assert f"betas {betas}," in mlp(train, train, head=head, epochs=1, least_steps=1).protocol["optimizer"]


def test_dropout_stands_where_the_papers_have_it():
    kinds = [type(layer).__name__ for layer in build(MLPS["dim"], 8, 3)]
    assert kinds == ["Identity", "Linear", "Dropout", "BatchNorm1d", "ReLU", "Identity", "Linear"]
    kinds = [type(layer).__name__ for layer in build(MLPS["amdim"], 8, 3)]
    assert kinds == ["Dropout", "Linear", "Identity", "BatchNorm1d", "ReLU", "Dropout", "Linear"]


def test_the_same_seed_gives_the_same_head_and_leaves_the_generator_alone():
    train = clusters(100, 1)
    before = torch.get_rng_state()
    fits = [fit(train, MLPS["amdim"], 1e-3, kinds=4, epochs=1, least_steps=5, seed=3) for _ in range(2)]
    assert torch.get_rng_state().equal(before)
    for a, b in zip(fits[0].parameters(), fits[1].parameters(), strict=True):
        assert a.equal(b)


def test_an_epoch_shows_every_sample_at_most_once():
    steps = list(minibatches(130, batch_size=64, epochs=10, least_steps=1, seed=0))
    assert [len(rows) for rows in steps] == [64] * 20
    assert all(len(torch.cat(steps[e : e + 2]).unique()) == 128 for e in range(0, 20, 2))
    assert len(torch.cat(steps).unique()) == 130


def test_a_step_sees_the_same_samples_whenever_it_is_asked_for():
    steps = minibatches(130, batch_size=64, epochs=4, least_steps=1, seed=0)
    forwards = [rows.clone() for rows in steps]
    backwards = [steps[step] for step in reversed(range(8))]
    assert all(a.equal(b) for a, b in zip(forwards, reversed(backwards), strict=True))
    assert not forwards[0].equal(forwards[2])
    with pytest.raises(IndexError):
        steps[8]


def test_long_fits_hold_one_order_of_the_samples_at_a_time():
    """150 passes over 20,000 samples are 24 MB of numbers."""
    with largest_made() as largest:
        steps = minibatches(20_000, batch_size=512, epochs=150, least_steps=1, seed=0)
        assert len(list(zip(steps, range(100), strict=False))) == 100
    assert largest[0] <= 20_000


@pytest.mark.parametrize("n", [300, 1000])
def test_the_papers_batch_is_theirs_on_small_sets_too(n, monkeypatch):
    seen = []
    monkeypatch.setattr("mvssl.evaluation.probes.classifiers.loss", lambda s, y: seen.append(len(y)) or loss(s, y))
    found = mlp(clusters(n, 1), clusters(20, 1), head="amdim", rates=None, epochs=1, least_steps=1)
    assert set(seen) == {min(480, n)} == {found.protocol["batch_size"]}


def test_what_is_held_out_is_not_fitted_on():
    kept, held = hold_out(50, 0.2, 0)
    assert sorted(torch.cat([kept, held]).tolist()) == list(range(50))
    assert len(held) == 10


def test_the_loss_of_multi_hot_labels_is_that_of_so_many_binary_classifiers():
    scores, labels = torch.randn(6, 3), (torch.rand(6, 3) < 0.5).float()
    by_hand = -(labels * scores.sigmoid().log() + (1 - labels) * (1 - scores.sigmoid()).log()).sum(1).mean()
    assert loss(scores, labels).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("head", ["dim", "amdim"])
def test_a_fit_on_some_rows_equals_the_fit_on_a_copy(head):
    train = clusters(300, 1)
    (kept, held), standard = hold_out(300, 0.2, 0), Standard.of(train.features)
    copy = Labelled(standard(train.features)[kept], train.labels[kept])
    schedule = {"kinds": 4, "epochs": 1, "least_steps": 5, "seed": 0}
    there = fit(train, MLPS[head], 1e-3, part=kept, standard=standard, **schedule)
    taken = fit(copy, MLPS[head], 1e-3, **schedule)
    assert torch.equal(scores(there, train.features, held, standard), scores(taken, standard(train.features)[held]))


def test_choosing_and_fitting_make_no_copy_of_train():
    train = clusters(3000, 3, width=64)
    with largest_made() as largest:
        mlp(train, clusters(100, 3, width=64), rates=(1e-3, 1e-2), epochs=1, least_steps=1)
    assert largest[0] < train.features.numel()
