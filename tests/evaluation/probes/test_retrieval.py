"""Retrieval of the other view: perfect and random embeddings, ties, and ranks by hand."""

import pytest
import torch
from sklearn.metrics import average_precision_score

from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.probes.retrieval import (
    Ranks,
    expected_precision,
    precision_by_label,
    rank_positives,
    recall,
    reciprocal_rank,
    retrieval,
    score_retrieval,
)
from mvssl.evaluation.results.metrics import NotPossible


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_equal_directions_of_any_length_give_a_recall_of_1():
    x = normal(40, 8)
    assert all(result.value == 1 for result in score_retrieval(x, 5 * x))


def test_equal_embeddings_score_exactly_chance():
    x, n = torch.ones(40, 8), 40
    found = {result.metric.name: result for result in score_retrieval(x, x)}
    for k in (1, 5, 10):
        assert found[f"recall_at_{k}"].value == pytest.approx(k / n)
    assert found["mean_average_precision"].value == pytest.approx(sum(1 / r for r in range(1, n + 1)) / n)
    for result in found.values():
        assert result.value == pytest.approx(result.chance)


def test_chance_by_label_is_the_score_of_random_embeddings():
    labels = torch.tensor([0] * 30 + [1] * 10)
    results = [
        score_retrieval(normal(40, 8, seed=2 * i), normal(40, 8, seed=2 * i + 1), labels)[-1] for i in range(100)
    ]
    values = torch.tensor([result.value for result in results])
    assert abs(values.mean().item() - results[0].chance) < 4 * values.std().item() / 10


def test_expected_precision_of_one_correct_candidate_of_three():
    assert expected_precision(1, 3) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert expected_precision(2, 3) == pytest.approx((1 + (1 + 2 / 3) / 2 + (1 / 2 + 2 / 3) / 2) / 3)


def test_unrelated_embeddings_are_near_chance():
    for result in score_retrieval(normal(400, 16), normal(400, 16, seed=1)):
        assert abs(result.value - result.chance) < 4 * result.standard_error + 1e-3


def test_ranks_are_those_of_a_sorted_list_in_one_chunk_or_many(monkeypatch):
    x, y = normal(30, 5), normal(30, 5) + normal(30, 5, seed=1)
    cosine = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T
    ranks = (cosine.argsort(dim=1, descending=True) == torch.arange(30)[:, None]).nonzero()[:, 1] + 1
    for cells in (10_000, 70):
        monkeypatch.setattr("mvssl.evaluation.probes.retrieval.CELLS", cells)
        found = rank_positives(x, y)
        assert (found.better + 1).equal(ranks)
        assert recall(found, 5).equal((ranks <= 5).double())
        assert torch.allclose(reciprocal_rank(found), 1 / ranks.double())


def test_a_tie_of_two_counts_half():
    """The query's own candidate is second or third, with one as similar as itself."""
    found = Ranks(torch.tensor([1]), torch.tensor([2]))
    assert [recall(found, k).item() for k in (1, 2, 3)] == [0, 0.5, 1]
    assert reciprocal_rank(found).item() == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_precision_by_label_equals_scikit_learns(monkeypatch):
    x, y, labels = normal(30, 5), normal(30, 5, seed=1), torch.arange(30) % 3
    cosine = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(y).T
    expected = [average_precision_score(labels == labels[i], cosine[i]) for i in range(30)]
    for cells in (10_000, 70):
        monkeypatch.setattr("mvssl.evaluation.probes.retrieval.CELLS", cells)
        assert precision_by_label(x, y, labels).tolist() == pytest.approx(expected, abs=1e-9)


def test_only_a_permutation_of_one_view_changes_the_scores():
    x, order = normal(60, 6), torch.randperm(60)
    y = x + 0.1 * normal(60, 6, seed=1)
    original, permuted, broken = (
        score_retrieval(x, y),
        score_retrieval(x[order], y[order]),
        score_retrieval(x, y[order]),
    )
    assert [r.value for r in permuted] == pytest.approx([r.value for r in original])
    assert original[0].value > 0.9 > 0.2 > broken[0].value


def test_multi_hot_labels_are_not_used():
    x = normal(20, 4)
    result = score_retrieval(x, x, torch.ones(20, 3))[-1]
    assert result.value == 1
    assert "same sample" in result.protocol["right"]


def test_pairs_of_equal_width_are_measured_in_both_directions():
    x = normal(20, 4)
    views = ByView({"a": x, "b": x, "wide": normal(20, 9)}, torch.arange(20) % 2, {})
    found = list(retrieval(views, views))
    assert [r.what for r in found] == ["a to b"] * 4 + ["b to a"] * 4
    assert found[0].value == 1


def test_views_without_a_common_space_cannot_be_compared():
    views = ByView({"a": normal(20, 4), "b": normal(20, 5)}, torch.zeros(0), {})
    with pytest.raises(NotPossible, match="equal width"):
        list(retrieval(views, views))
