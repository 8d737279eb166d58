"""The dense probe: interpolation, counts and mIoU by hand; maps that show the segments and maps that do not."""

import math

import pytest
import torch
import torch.nn.functional as F

from mvssl.evaluation.features.labelled import Standardiser
from mvssl.evaluation.probes.dense import (
    Counts,
    count_by_class,
    count_pixels,
    dense,
    highest_class,
    interpolate_at,
    miou,
    pixel_accuracy,
    sample_pixels,
)
from mvssl.evaluation.probes.linear import Linear
from mvssl.evaluation.results.metrics import NotPossible

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("mvssl.evaluation.probes.dense.SCHEDULE", {"epochs": 1, "batch_size": 256, "least_steps": 100})
    monkeypatch.setattr("mvssl.evaluation.probes.dense.PIXELS", 32)


def scenes(n: int, seed: int = 0, kinds: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """A map [n, kinds + 2, 4, 4] with each block's class and noise, and segments [n, 16, 16] of 4 x 4 blocks."""
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(kinds, (n, 4, 4), generator=generator)
    shown = F.one_hot(blocks, kinds).permute(0, 3, 1, 2).float()
    noise = torch.randn(n, 2, 4, 4, generator=generator)
    return torch.cat([shown, noise], 1), blocks.repeat_interleave(4, 1).repeat_interleave(4, 2)


def run(train, test, **options):
    return dense(([train[0]], train[1]), ([test[0]], test[1]), device=CPU, **options)


def test_maps_with_the_segments_score_high_and_noise_does_not():
    (maps, labels), (test_maps, test_labels) = scenes(40), scenes(20, seed=1)
    iou, accuracy = run((maps, labels), (test_maps, test_labels))
    assert (iou.metric.name, accuracy.metric.name) == ("miou", "pixel_accuracy")
    assert accuracy.value > 0.85  # bilinear upsampling blurs the edges of blocks
    blind, guessed = run((maps[:, 3:], labels), (test_maps[:, 3:], test_labels))
    assert guessed.value < 0.4
    assert blind.value < 0.3


def test_labels_of_the_size_of_the_map_are_predicted_without_error():
    (maps, labels), (test_maps, test_labels) = scenes(40), scenes(20, seed=1)
    assert run((maps, labels[:, ::4, ::4]), (test_maps, test_labels[:, ::4, ::4]))[0].value == 1


def test_features_at_pixels_are_those_of_the_upsampled_map():
    maps, size = [torch.randn(2, 3, 4, 5), torch.randn(2, 2, 7, 3)], (12, 10)
    places = torch.arange(120).expand(2, -1)
    whole = torch.cat([F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps], 1)
    assert torch.allclose(interpolate_at(maps, places, size), whole.flatten(2).transpose(1, 2), atol=1e-5)


def test_scores_of_upsampled_features_are_upsampled_scores(monkeypatch):
    monkeypatch.setattr("mvssl.evaluation.probes.dense.IMAGES", 2)
    maps, labels = [torch.randn(5, 3, 4, 4), torch.randn(5, 2, 2, 2)], torch.randint(3, (5, 8, 8))
    model = Linear(Standardiser(torch.randn(5), torch.rand(5) + 0.5), torch.randn(1, 3, 5), torch.randn(1, 3))
    features = interpolate_at(maps, torch.arange(64).expand(5, -1), (8, 8))
    predicted = model(features.flatten(0, 1))[:, 0].argmax(1).view(5, 64)
    expected = count_by_class(predicted, labels.flatten(1), 3)
    for ours, theirs in zip(count_pixels(model, maps, labels, ignore=None, device=CPU), expected, strict=True):
        assert ours.equal(theirs)


def test_counts_and_scores_by_hand():
    """Truth 0 0 1 2, predicted 0 1 1 0: class 0 has 1 of 3, class 1 has 1 of 2, class 2 has 0 of 1."""
    counts = count_by_class(torch.tensor([[0, 1, 1, 0]]), torch.tensor([[0, 0, 1, 2]]), 4)
    assert counts.correct.tolist() == [[1, 1, 0, 0]]
    assert counts.predicted.tolist() == [[2, 2, 0, 0]]
    assert counts.actual.tolist() == [[2, 1, 1, 0]]
    assert miou(counts).item() == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert pixel_accuracy(counts).item() == 0.5


def test_a_class_that_test_lacks_counts_only_as_an_error():
    counts = count_by_class(torch.tensor([[0, 3]]), torch.tensor([[0, 0]]), 4)
    assert miou(counts).item() == 0.5


def test_ignored_pixels_change_nothing():
    predicted, truth = torch.tensor([[0, 1, 2, 2]]), torch.tensor([[0, 1, 9, 9]])
    expected = count_by_class(predicted[:, :2], truth[:, :2], 10)
    for ours, theirs in zip(count_by_class(predicted, truth, 10, ignore=9), expected, strict=True):
        assert ours.equal(theirs)


def test_an_ignored_class_is_neither_drawn_nor_scored():
    maps, labels = scenes(40)
    hidden = labels.clone()
    hidden[:, :, :8] = 2
    hidden[0] = 2  # an image without any labelled pixel
    drawn = sample_pixels([maps], hidden, ignore=2, seed=0)
    assert len(drawn.classes) == 39
    assert not (drawn.classes == 2).any()
    iou, _ = run((maps, hidden), (maps, hidden), ignore=2)
    assert iou.protocol["classes"] == 2


def test_images_without_labelled_pixels_cannot_be_measured():
    maps, labels = scenes(10)
    with pytest.raises(NotPossible):
        run((maps, torch.full_like(labels, 2)), (maps, labels), ignore=2)


def test_chance_predicts_the_most_frequent_class_everywhere():
    maps, labels = scenes(30)
    labels[:, :, :10] = 1
    iou, accuracy = run((maps, labels), (maps, labels))
    share = (labels == 1).double().mean().item()
    assert accuracy.chance == pytest.approx(share)
    assert iou.chance == pytest.approx(share / 3)


def test_the_bootstrap_over_images_is_equal_for_every_encoder():
    train, test = scenes(30), scenes(25, seed=1)
    first, again = run(train, test)[1], run(train, test)[1]
    assert first.parts.equal(again.parts)
    counts = Counts(*(torch.rand(25, 3, dtype=torch.float64) for _ in range(3)))
    twice = torch.ones(1, 25)
    twice[0, 3] = 2
    doubled = Counts(*(torch.cat([x, x[3:4]]) for x in counts))
    assert miou(counts, twice)[0].item() == pytest.approx(miou(doubled).item())
    assert not math.isnan(first.standard_error)


@pytest.mark.parametrize("ignore", [-1, 255])
def test_an_ignored_class_may_have_any_number(ignore):
    truth = torch.tensor([[0, 1, ignore, 1]])
    assert highest_class(truth, ignore) == 1
    counts = count_by_class(torch.tensor([[0, 1, 0, 0]]), truth, kinds=2, ignore=ignore)
    assert counts.correct.tolist() == [[1, 1]]
    assert counts.actual.tolist() == [[1, 2]]
