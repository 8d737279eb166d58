"""Places of samples in the plane, groups and their names."""

import itertools
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from mvssl.figures.charts import SQUARE
from mvssl.reporting.samples import EncodedSamples
from mvssl.reporting.sections.embedding import LETTER, LINE_HEIGHT, Group, group_points, place_features, place_names


def test_separate_groups_stay_separate():
    labels = torch.arange(60) % 3
    places = place_features(5 * torch.eye(3, 8)[labels] + 0.1 * torch.randn(60, 8))
    assert places.min() >= 0
    assert places.max() <= 1
    middles = torch.stack([places[labels == k].mean(0) for k in range(3)])
    radius = max(float((places[labels == k] - middles[k]).norm(dim=1).mean()) for k in range(3))
    assert torch.pdist(middles).min() > 2 * radius


def test_features_without_variance_are_one_point():
    assert (place_features(torch.ones(30, 4)) == 0.5).all()


def test_with_several_labels_the_colour_is_one_of_them():
    labels = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 0]])
    for classes, name in (["wall", "bed"], "bed"), ([], "class 1"):
        encoded = SimpleNamespace(classes=classes, class_name=lambda k, known=classes: known[k] if known else str(k))
        groups, note = group_points(cast(EncodedSamples, encoded), torch.rand(4, 2), labels)
        assert {group.name: len(group.points) for group in groups} == {f"{name} absent": 2, f"{name} present": 2}
        assert f"{name}, which 50%" in note


@pytest.mark.parametrize("places", [[(0, 1), (0.01, 1), (0, 0.99), (1, 0)], [(0.5, 0.0)] * 10])
def test_names_of_groups_are_moved_until_none_covers_another(places):
    groups = [Group("a long name", torch.tensor([place]), k) for k, place in enumerate(places)]
    labels = [(one.left * SQUARE / 100, one.top * SQUARE / 100) for one in place_names(groups)]
    width = LETTER * len("a long name")
    for (x, y), (left, top) in itertools.combinations(labels, 2):
        assert abs(y - top) >= LINE_HEIGHT - 0.01 or abs(x - left) >= width
    assert all(width / 2 <= x <= SQUARE - width / 2 and 0 < y < SQUARE for x, y in labels)
