"""Names of metrics: keys are read into parts and written again letter for letter."""

import pytest
import torch

from mvssl.objectives.metric_names import MetricName, find_terms, name_metrics

TERMS = {"cmc", "mib_0"}
KEYS = {
    "loss": MetricName("loss"),
    "val/loss": MetricName("loss", held_out=True),
    "cmc/loss": MetricName("loss", term="cmc"),
    "beta": MetricName("beta"),
    "mib_0/beta": MetricName("beta", term="mib_0"),
    "bound/a_0-a_1/vector-last": MetricName("bound", ("a_0-a_1", "vector-last")),
    "val/cmc/bound/rgb-depth": MetricName("bound", ("rgb-depth",), "cmc", held_out=True),
    "val/knn/val": MetricName("knn", ("val",), held_out=True),
    "val/mib_0/plane/xz/a": MetricName("plane", ("xz", "a"), "mib_0", held_out=True),
    "prior_penalty/image": MetricName("prior_penalty", ("image",)),
    "cmc": MetricName("cmc"),
    "val": MetricName("val"),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_read_into_its_parts_and_written_again(key):
    assert MetricName.parse(key, TERMS) == KEYS[key]
    assert str(KEYS[key]) == key


def test_metrics_of_one_subject_belong_together():
    names = [MetricName.parse(key, TERMS) for key in ("cmc/bound/a-b", "val/cmc/ceiling/a-b", "bound/a-b", "loss")]
    assert [name.subject for name in names] == ["cmc/a-b", "cmc/a-b", "a-b", ""]


def test_terms_are_those_that_log_a_loss_of_their_own():
    assert find_terms(["loss", "val/loss", "bound/a-b", "val/knn/a", "grad_norm"]) == set()
    assert find_terms(["loss", "cmc/loss", "cmc/bound/a-b", "val/mib_0/loss"]) == TERMS


def test_values_by_quantity_are_named_and_detached():
    value = torch.ones((), requires_grad=True)
    named = name_metrics({"bound": value, "ceiling": value}, "a-b", "vector-last")
    assert list(named) == ["bound/a-b/vector-last", "ceiling/a-b/vector-last"]
    assert not any(metric.requires_grad for metric in named.values())
