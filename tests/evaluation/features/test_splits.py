"""Which samples count, and how their classes are numbered."""

import pytest
import small_runs
import torch

from mvssl.errors import DataError, RecipeError
from mvssl.evaluation.features.cache import CachedFeatures
from mvssl.evaluation.features.layers import EncoderUnderTest, FeatureSpec
from mvssl.evaluation.features.splits import Classes, Needs, Split, open_splits
from mvssl.evaluation.results.metrics import mean_average_precision


class Mapped(torch.Tensor):
    """Counts the numbers that are copied out of it by rows."""

    copied = 0

    def __getitem__(self, rows):
        result = self.as_subclass(torch.Tensor)[rows]
        Mapped.copied += result.numel() if isinstance(rows, torch.Tensor) else 0
        return result


@pytest.mark.parametrize("left_out", [False, True])
def test_only_the_requested_view_and_samples_are_copied(left_out, monkeypatch):
    """A view of ImageNet has 10 GB. If one sample cannot be decoded, reading the features copies the rows."""
    monkeypatch.setattr(Mapped, "copied", 0)
    rows = torch.tensor([n for n in range(40) if not (left_out and n == 5)])
    views = {view: torch.randn(40, 3).as_subclass(Mapped) for view in ("a", "b")}
    spec = FeatureSpec(EncoderUnderTest("trained", None), "vector")
    entries = [CachedFeatures(views, rows), CachedFeatures({"label": torch.arange(40) % 3}, rows)]
    split = Split(Source(), [spec, FeatureSpec(None)], entries)
    first = split.features(spec, first=4)
    assert all(first[view].equal(views[view].as_subclass(torch.Tensor)[rows[:4]]) for view in "ab")
    assert Mapped.copied == (24 if left_out else 0)
    assert list(split.features(spec, "b")) == ["b"]
    assert split.features(spec, "b")["b"].equal(views["b"].as_subclass(torch.Tensor)[rows])
    assert split.features(spec, "c") == {}
    assert Mapped.copied == (24 + 2 * 39 * 3 if left_out else 0)


class Source:
    """The part of a `ShardSource` that a `Split` reads."""

    dropped = 0

    def __len__(self) -> int:
        return 40


def test_classes_of_train_and_test_have_the_same_numbers():
    train, test = torch.tensor([500, 7, 500]), torch.tensor([7, 9])
    classes = Classes.of(train, test)
    assert (classes(train).tolist(), classes(test).tolist()) == ([2, 0, 2], [0, 1])
    assert (len(classes), classes.left_out, classes.chance) == (3, 0, 0.0)


def test_chance_of_average_precision_is_that_of_random_scores():
    """With few positives it is well above their share: with three of a hundred about twice."""
    labels = torch.zeros(100, 2)
    labels[:3, 0], labels[:40, 1] = 1, 1
    reached = torch.tensor([mean_average_precision(torch.rand(100, 2), labels) for _ in range(300)]).mean().item()
    chance = Classes.of(labels, labels).chance
    assert chance == pytest.approx(reached, abs=0.01)
    assert chance > labels.mean().item() + 0.015


def test_classes_without_a_positive_in_both_splits_are_left_out_and_counted():
    train = torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 0]])
    test = torch.tensor([[1.0, 1, 0, 0], [0, 1, 0, 0]])
    classes = Classes.of(train, test)
    assert (classes(train).tolist(), classes(test).tolist()) == ([[1], [1]], [[1], [0]])
    assert (len(classes), classes.left_out, classes.chance) == (1, 3, 0.75)  # first or second
    with pytest.raises(DataError, match="no class has a positive"):
        Classes.of(train[:, 1:2], test[:, 1:2])


def test_labels_that_are_images_are_refused(tmp_path):
    small_runs.write_shards(tmp_path / "train", (5,))
    recipe = small_runs.recipe(tmp_path, tmp_path / "run", data__label={"field": "depth.png"})
    with pytest.raises(RecipeError, match=r"data\.label.*\[1, 8, 8\]"):
        open_splits(recipe)


def test_labels_and_segments_are_required_only_if_a_probe_needs_them(tmp_path):
    """Retrieval needs no labels, and kNN needs no segments."""
    small_runs.write_shards(tmp_path / "train", counts=(8,), unlabelled=8)
    given = small_runs.recipe(tmp_path, tmp_path / "run", evaluate={"segments": {"field": "seg.png"}})
    assert "label" not in open_splits(given, needs=Needs(labels=False)).shards["test"].shapes
    with pytest.raises(DataError, match=r"columns\.label: no sample has the field 'cls'"):
        open_splits(given)
    small_runs.write_shards(tmp_path / "train", counts=(8,))
    assert "label" in open_splits(given, needs=Needs(labels=False)).shards["test"].shapes
    with pytest.raises(DataError, match=r"columns\.segments: no sample has the field 'seg\.png'"):
        open_splits(given, needs=Needs(segments=True))
