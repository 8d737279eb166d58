"""Places of samples in the plane, groups and their names."""

from types import SimpleNamespace
from typing import cast

import torch

from mvssl.figures.charts import SQUARE
from mvssl.reporting.samples import EncodedSamples
from mvssl.reporting.sections.embedding import LINE_HEIGHT, group_points, place_features, separate


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


def test_names_of_groups_are_moved_until_none_covers_another():
    places = separate([(0, 0), (4, 1), (2, 2), (SQUARE, SQUARE)], [80, 80, 80, 80])
    for i in range(3):
        for j in range(i):
            assert abs(places[i][1] - places[j][1]) >= LINE_HEIGHT - 0.5
    assert all(40 <= x <= SQUARE - 40 and 0 < y < SQUARE for x, y in places)
