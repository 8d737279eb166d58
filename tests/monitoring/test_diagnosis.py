"""The diagnosis of made-up numbers, and of runs that were broken on purpose."""

import math

import pytest
from small_runs import CONTRAST, sensors

from mvssl import train
from mvssl.monitoring.diagnosis import ORDER, TOP, BoundReading, Evidence, FeatureStatistics, diagnose, find_bounds
from mvssl.recipe import parse_recipe

WELL = FeatureStatistics(rank=60.0, spread=0.7, idle=0.1, width=128, samples=1024)
SOUND = {"loss": 2.0, "bound/a-b": 2.0, "ceiling/a-b": 4.85}


def evidence(held=SOUND, **changes) -> Evidence:
    """Evidence of one view `a`; `changes` are of its features or of the evidence."""
    shape = {name: changes.pop(name) for name in WELL._fields if name in changes}
    given = {"step": 100, "early": 10, "held": held, "features": {"a": WELL._replace(**shape)}}
    return Evidence(**{**given, **changes})


def test_a_run_with_good_numbers_is_healthy_and_reports_them():
    found = diagnose(evidence(first={"bound/a-b": 0.01}, trained={"bound/a-b": 2.2}))
    assert (found.name, found.findings) == ("healthy", [])
    assert found.summary == "a-b 2.00 of 4.85 nats; a fills 60.0 of 128 directions"


def test_one_sample_gives_no_finding_on_bounds_and_no_advice():
    blind = {"loss": 0.0, "bound/a-b": 0.0, "ceiling/a-b": 0.0}
    found = diagnose(evidence(blind, batch=1, samples=1, first=blind, trained={"bound/a-b": 3.0}))
    assert (found.name, found.findings) == ("too few held-out samples to say", [])
    assert diagnose(evidence(blind, batch=2, first=blind)).findings


@pytest.mark.parametrize(
    ("word", "changes", "number"),
    [
        ("diverged", {"held": {"loss": math.nan}}, "loss"),
        ("collapsed", {"spread": 0.001}, "0.0010"),
        ("critic uninformative", {"held": {**SOUND, "bound/a-b": 0.01}}, "0.01 of 4.85"),
        ("critic uninformative", {"held": {"bound/a-b": 0.2, "jsd/a-b": 0.004}}, "0.004 of at most 1.386"),
        ("critic uninformative", {"held": {"bound/a-b": 0.2, "gan/a-b": 0.004 - TOP}}, "0.004 of at most 1.386"),
        ("memorised", {"held": {**SOUND, "bound/a-b": -0.3}, "trained": {"bound/a-b": 3.1}}, "3.10"),
        ("partly collapsed", {"rank": 3.5}, "3.5 of 128"),
        ("partly collapsed", {"idle": 0.98}, "98%"),
        ("learned nothing", {"first": {"bound/a-b": 1.99}}, "+0.010"),
        ("bound at its ceiling", {"held": {**SOUND, "bound/a-b": 4.8}}, "4.80 of 4.85"),
        ("bound not to be believed", {"held": {"bound/a-b": 9.0, "jsd/a-b": 1.3}}, "6.93"),
    ],
)
def test_each_fault_has_a_name_its_number_and_advice(word, changes, number):
    found = diagnose(evidence(**changes))
    assert found.name == word
    assert number in found.findings[0].sentence
    assert len(found.findings[0].advice) > 20


def test_a_good_critic_is_healthy_despite_a_low_bound_in_nats():
    well = {"loss": -1.0, "bound/a-b": -3e5, "jsd/a-b": 1.0}
    assert diagnose(evidence(held=well, trained=well)).name == "healthy"


def test_an_interval_without_a_step_is_not_healthy():
    found = diagnose(evidence(trained={"loss": None, "skipped": 20}))
    assert found.name == "diverged"
    assert "no step" in found.findings[0].sentence


def test_every_diagnosis_is_ranked_once():
    assert len(set(ORDER)) == len(ORDER)
    both = diagnose(evidence(held={**SOUND, "bound/a-b": 0.0}, spread=0.001))
    assert [finding.what for finding in both.findings] == ["collapsed", "critic uninformative"]


def test_during_warm_up_only_collapse_is_reported():
    early = {"step": 5, "held": {**SOUND, "bound/a-b": 0.0}, "rank": 3.5}
    assert diagnose(evidence(**early)).name == "too early to say"
    assert diagnose(evidence(**early, spread=0.0)).name == "collapsed"


@pytest.mark.parametrize(("samples", "word"), [(9, "too few held-out samples to say"), (50, "healthy")])
def test_few_samples_without_a_finding_are_not_healthy(samples, word):
    assert diagnose(evidence(samples=samples)).name == word


def test_a_fault_of_one_view_or_bound_is_reported_as_partly():
    collapsed = WELL._replace(rank=1.0, spread=0.001)
    assert diagnose(evidence(features={"a": WELL, "b": collapsed})).name == "partly collapsed"
    three = {**SOUND, "bound/a-c": 0.01, "ceiling/a-c": 4.85}
    assert diagnose(evidence(held=three)).name == "partly uninformative"


def test_small_encoders_are_not_asked_for_ten_directions():
    assert diagnose(evidence(rank=4.0, width=8)).name == "healthy"
    assert diagnose(evidence(rank=4.0, width=512, samples=12)).findings == []


def test_bounds_are_found_with_their_ceilings_under_any_label():
    metrics = {
        "loss": 1.0,
        "cmc/loss": 1.0,
        "cmc/bound/a-b": 1.0,
        "cmc/ceiling/a-b": 2.0,
        "bound/a/local": 3.0,
        "gan/a/local": 0.1 - TOP,
    }
    found = find_bounds(metrics)
    assert found == {"cmc/a-b": BoundReading(1.0, 2.0, None), "a/local": BoundReading(3.0, None, pytest.approx(0.1))}
    assert str(found["cmc/a-b"]) == "1.00 of 2.00 nats"
    assert str(found["a/local"]) == "JSD 0.10 of 1.39"


def run(folder, objective, data=None, val=None, encoder=None, **optim):
    table = encoder or {"name": "mlp", "options": {"widths": [64, 64]}}
    return train(
        parse_recipe({
            "data": {"batch_size": 64, "workers": 0},
            "views": {"a": {"from": "a", "name": "vector"}, "b": {"from": "b", "name": "vector"}},
            "encoder": {"a": table, "b": table},
            "objective": objective,
            "optim": {"lr": 3e-3, "schedule": "constant", **optim},
            "train": {"steps": 120, "log_every": 10, "save_every": 120, "trackers": [], "out": str(folder)},
        }),
        data=data or sensors(2000, 1), val=val or sensors(500, 2),
    ).diagnosis  # fmt: skip


BOTTLENECK = {"name": "mib", "latent": 8, "units": 64, "beta": 0.01, "beta_end": 0, "critic": "separable"}
BOTTLENECK |= {"negatives": "all", "estimator": "infonce"}


@pytest.mark.parametrize("objective", [CONTRAST, BOTTLENECK])
def test_an_unchanged_run_is_healthy(tmp_path, objective):
    assert run(tmp_path, objective, sensors(2000, 1, noise=1.0), sensors(500, 2, noise=1.0)).name == "healthy"


def test_weights_that_decay_to_nothing_are_a_collapse(tmp_path):
    found = run(tmp_path, CONTRAST, weight_decay=100.0)
    assert found.name == "collapsed"
    assert {"a", "b"} <= {finding.view for finding in found.findings}


def test_a_learning_rate_of_zero_learns_nothing(tmp_path):
    found = run(tmp_path, CONTRAST, lr=1e-9)
    assert found.name in ("critic uninformative", "learned nothing")


def test_too_much_beta_leaves_the_critic_blind_at_2_ln_2(tmp_path):
    assert run(tmp_path / "nats", {**BOTTLENECK, "beta": 1000.0}).name == "critic uninformative"
    found = run(tmp_path / "jsd", {**BOTTLENECK, "beta": 1000.0, "estimator": "jsd"})
    assert found.name == "critic uninformative"
    assert "of at most 1.386" in found.findings[0].sentence
    assert "beta 1e+03" in found.findings[0].advice


def test_sensors_that_share_nothing_leave_the_critic_uninformative(tmp_path):
    data, other = sensors(2000, 1), sensors(2000, 3)
    val, val_other = sensors(500, 2), sensors(500, 4)
    unrelated = [
        [{"a": one["a"], "b": two["b"]} for one, two in zip(*pair, strict=True)]
        for pair in ((data, other), (val, val_other))
    ]
    found = run(tmp_path, CONTRAST, *unrelated)
    assert found.name in ("critic uninformative", "memorised")


def test_views_that_are_the_same_put_the_bound_at_its_ceiling(tmp_path):
    alike = [[{"a": x["a"], "b": x["a"]} for x in sensors(n, seed)] for n, seed in ((2000, 1), (500, 2))]
    assert run(tmp_path, CONTRAST, *alike).name == "bound at its ceiling"


def test_few_samples_used_often_are_memorised(tmp_path):
    noisy = sensors(64, 1, noise=20.0), sensors(500, 2, noise=20.0)
    assert run(tmp_path, CONTRAST, *noisy, weight_decay=0.0).name == "memorised"


def test_a_network_whose_outputs_are_all_the_same_has_collapsed(tmp_path):
    same = [[{"a": x["a"] * 0 + 1, "b": x["b"]} for x in sensors(n, seed)] for n, seed in ((2000, 1), (500, 2))]
    found = run(tmp_path, CONTRAST, *same)
    assert found.name in ("critic uninformative", "collapsed")
    assert "a" in [finding.view for finding in found.findings if "collapsed" in finding.what]
