"""The few-label probe: the optimum of scikit-learn, and draws that are equal for every encoder."""

import numpy as np
import pytest
import torch
from labelled_points import clusters, largest_made, several
from sklearn.linear_model import LogisticRegression

from mvssl.evaluation import fewlabel
from mvssl.evaluation.features.labelled import Standardiser
from mvssl.evaluation.probes.few_label import draw_shots, logistic_regression, rows_of_classes
from mvssl.evaluation.results.metrics import NotPossible


def test_logistic_regression_reaches_the_optimum_of_scikit_learn():
    for n, width in ((30, 80), (80, 10)):
        train = clusters(n, 1, width=width)
        x, y = train.features.double() * width**-0.5, train.labels
        theirs = LogisticRegression(C=10, tol=1e-8, max_iter=10_000).fit(x.numpy(), y.numpy())
        fitted = logistic_regression(x, torch.eye(4)[y], c=10, multi=False, tolerance=1e-6)
        ours = (x @ fitted.weight + fitted.bias).softmax(1)
        assert np.allclose(ours.numpy(), theirs.predict_proba(x.numpy()), atol=1e-4)


def test_with_sigmoids_it_is_one_binary_regression_per_class():
    train = several(60)
    fitted = logistic_regression(train.features.double(), train.labels, c=10, multi=True, tolerance=1e-6)
    for c in range(3):
        theirs = LogisticRegression(C=10, tol=1e-8).fit(train.features.double().numpy(), train.labels[:, c].numpy())
        assert np.allclose(fitted.weight[:, c].numpy(), theirs.coef_[0], atol=1e-3)


def test_very_wide_inputs_reach_the_optimum_of_scikit_learn():
    """In float32 the products of 53,248 numbers err by more than the smallest eigenvalue of a draw."""
    n, width = 12, 53_248
    labels = torch.arange(n) % 3
    x = torch.randn(n, width, generator=torch.Generator().manual_seed(0)) * width**-0.5 + labels[:, None] * 1e-3
    x[3:6] = x[0:3]  # rows that repeat
    fitted = logistic_regression(x, torch.eye(3)[labels], c=10, multi=False, tolerance=1e-6)
    theirs = LogisticRegression(C=10, tol=1e-8, max_iter=10_000).fit(x.double().numpy(), labels.numpy())
    ours = (x.double() @ fitted.weight.double() + fitted.bias).softmax(1)
    assert np.allclose(ours.numpy(), theirs.predict_proba(x.double().numpy()), atol=1e-4)


def test_few_labels_of_many_classes_need_little_memory():
    """A row per class for all of train would be 1,000 x 50 numbers, the scores of all draws 12 x 100 x 50."""
    train, test = clusters(1000, 3, kinds=50, width=2), clusters(100, 3, kinds=50, width=2, seed=1)
    with largest_made() as largest:
        fewlabel(train, test, shots=1, draws=12)
    assert largest[0] <= 10_000


@pytest.mark.parametrize("labels", [torch.tensor([2, 0, 2, 4, 0, 2]), (torch.rand(30, 3) < 0.3).float()])
def test_rows_of_classes_are_those_with_the_label(labels):
    of_class = rows_of_classes(labels)
    assert len(of_class) == (5 if labels.ndim == 1 else 3)
    for kind, rows in enumerate(of_class):
        labelled = labels == kind if labels.ndim == 1 else labels[:, kind] > 0
        assert rows.tolist() == labelled.nonzero()[:, 0].tolist()


def draw(labels: torch.Tensor, shots: int, seed: int = 0, number: int = 0) -> torch.Tensor:
    return draw_shots(rows_of_classes(labels), shots, seed, number)


def test_draws_hold_the_same_number_of_every_class():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 3)
    for number in range(5):
        assert torch.bincount(labels[draw(labels, 3, number=number)]).tolist() == [3, 3, 3]
    assert torch.bincount(labels[draw(labels, 10)]).tolist() == [10, 10, 3]


def test_draws_of_multi_hot_labels_hold_enough_positives():
    labels = several(300).labels
    drawn = labels[draw(labels, 5)]
    assert (drawn.sum(0) >= 5).all()
    assert len(drawn) <= 15


def test_draws_depend_on_labels_seed_and_number_only():
    labels = torch.arange(200) % 4
    assert draw(labels, 5).equal(draw(labels.clone(), 5))
    assert not draw(labels, 5).equal(draw(labels, 5, number=1))
    assert not draw(labels, 5).equal(draw(labels, 5, seed=1))


def test_two_encoders_are_measured_with_the_same_labels(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "mvssl.evaluation.probes.few_label.draw_shots", lambda *a: seen.append(draw_shots(*a)) or seen[-1]
    )
    for width in (8, 12):
        fewlabel(clusters(100, 3, width=width), clusters(40, 3, width=width, seed=1), shots=2, draws=3)
    assert all(a.equal(b) for a, b in zip(seen[:3], seen[3:], strict=True))


def test_only_the_drawn_labels_are_used():
    train, test = clusters(100, 3), clusters(40, 3, seed=1)
    kept = draw(train.labels, 2)
    standard = Standardiser.of(train.features)
    x, y = standard(train.features)[kept] * 8**-0.5, train.labels[kept]
    fitted = logistic_regression(x, torch.eye(4)[y], c=10, multi=False)
    scores = standard(test.features) * 8**-0.5 @ fitted.weight + fitted.bias
    expected = (scores.argmax(1) == test.labels).double().mean().item()
    assert fewlabel(train, test, shots=2, draws=1).value == pytest.approx(expected)


def test_more_labels_than_most_classes_have_are_refused():
    train = clusters(90, 3)  # 22 or 23 of each class
    with pytest.raises(NotPossible, match="24 labels per class: 0 of 4"):
        fewlabel(train, train, shots=24)
    assert fewlabel(train, train, shots=23, draws=2).protocol["labels_per_draw"] == 90


def test_multi_hot_labels_give_an_average_precision():
    result = fewlabel(several(300), several(200, seed=1), shots=10, draws=5)
    assert 0.6 < result.value < 1.0
