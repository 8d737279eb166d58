"""A view that is missing at test: what it told alone is lost, what others told stays."""

import math

import pytest
import torch

from mvssl.evaluation import Labelled, linear, sensors
from mvssl.evaluation.features.inputs import ByView
from mvssl.evaluation.results.metrics import NotPossible

QUICK = {"epochs": 1, "batch_size": 64, "least_steps": 100}


def two_bits(n: int, seed: int) -> ByView:
    """Labels of two bits; `left` shows one, `right` the other, `none` nothing."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (n, 2), generator=generator)
    noise = torch.randn(n, 3, 4, generator=generator)
    left, right = (20 * bits[:, i, None] + noise[:, i] for i in (0, 1))
    return ByView({"left": left, "right": right, "none": noise[:, 2]}, 2 * bits[:, 0] + bits[:, 1], {})


def test_what_only_one_sensor_shows_is_lost_with_it():
    found = {r.what: r.value for r in sensors(two_bits(400, 0), two_bits(400, 1), **QUICK)}
    views = ("left", "right", "none")
    assert list(found) == ["all", *(f"without {v}" for v in views), *(f"only {v}" for v in views)]
    assert found["all"] == found["without none"] == 1
    for name in ("without left", "without right", "only left", "only right"):
        assert found[name] == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 400))
    assert found["only none"] == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))


def test_a_missing_sensor_is_its_mean_whatever_it_would_have_said():
    train, test = two_bits(200, 0), two_bits(100, 1)
    other = test._replace(features=test.features | {"left": 1000 * torch.randn(100, 4)})
    before, after = (sensors(train, split, **QUICK)[1] for split in (test, other))
    assert before.what == after.what == "without left"
    assert before.parts.equal(after.parts)


def test_all_sensors_are_the_linear_probe_on_all_of_them():
    train, test = two_bits(200, 0), two_bits(100, 1)
    joined = [Labelled(torch.cat(list(split.features.values()), 1), split.labels) for split in (train, test)]
    assert sensors(train, test, **QUICK)[0].parts.equal(linear(*joined, **QUICK).parts)


def test_a_single_sensor_cannot_be_missed():
    one = ByView({"left": torch.randn(10, 3)}, torch.arange(10) % 2, {})
    with pytest.raises(NotPossible):
        sensors(one, one)
