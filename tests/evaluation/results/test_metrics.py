"""Scores and standard errors against scikit-learn and arithmetic by hand."""

import io
import math

import pytest
import torch
from rich.console import Console
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, f1_score, recall_score, top_k_accuracy_score

from mvssl.errors import RecipeError
from mvssl.evaluation.results.metrics import (
    Result,
    average_precision,
    confidence_interval,
    mean_average_precision,
    mean_over_draws,
    paired,
    score_classifier,
    score_draws,
)
from mvssl.evaluation.results.records import build_record, compare, gain_of, merge_into, save
from mvssl.evaluation.results.tables import full_name, note_wilson, tables


def test_average_precision_is_scikit_learns_with_ties_and_without():
    labels = torch.rand(60, 5) < 0.3
    for scores in (torch.randn(60, 5), torch.randint(4, (60, 5)).float()):
        expected = [average_precision_score(labels[:, c], scores[:, c]) for c in range(5)]
        assert average_precision(scores, labels).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_weight_of_two_counts_the_sample_twice():
    scores, labels = torch.randint(6, (30, 3)).float(), torch.rand(30, 3) < 0.4
    counts = torch.randint(0, 3, (1, 30))
    twice = torch.repeat_interleave(torch.arange(30), counts[0])
    expected = average_precision(scores[twice], labels[twice])
    assert torch.allclose(average_precision(scores, labels, counts)[0], expected, equal_nan=True)


def test_a_class_without_a_positive_does_not_count():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    assert mean_average_precision(scores, torch.tensor([[1, 0], [0, 0]])) == 1.0


def test_the_error_of_an_accuracy_is_binomial():
    scores, labels = torch.eye(4)[[0, 1, 2, 0]], torch.arange(4)  # three of four right
    result = score_classifier(scores, labels, {})
    assert (result.value, result.standard_error) == (0.75, pytest.approx(math.sqrt(0.75 * 0.25 / 4)))


def test_classwise_metrics_equal_scikit_learn():
    labels, scores = torch.tensor([0] * 80 + [1] * 15 + [6] * 5), torch.randn(100, 7)
    found, predicted = score_classifier(scores, labels, {}).also, scores.argmax(1)
    assert found["balanced_accuracy"] == pytest.approx(
        recall_score(labels, predicted, labels=[0, 1, 6], average="macro")
    )
    assert found["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found["top_5"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5, labels=range(7)))
    assert [r is None for r in found["recall_per_class"]] == [False, False, True, True, True, True, False]
    assert build_record(score_classifier(scores, labels, {}))["also"] == found
    assert score_classifier(scores[:, :6], labels, {}).also["recall_per_class"][6] == 0  # not in train


@pytest.mark.parametrize("right", [50, 0])
def test_the_error_of_a_share_of_0_or_1_is_wilsons_interval(right):
    scores = torch.eye(2)[torch.zeros(50, dtype=torch.long)]
    result = score_classifier(scores, torch.full((50,), int(right == 0)), {})
    wilson = binomtest(right, 50).proportion_ci(2 * norm.cdf(1) - 1, "wilson")
    assert (result.value, result.standard_error) == (right / 50, pytest.approx(wilson.high - wilson.low))
    wilson = binomtest(right, 50).proportion_ci(0.95, "wilson")
    assert confidence_interval(result) == pytest.approx((wilson.low, wilson.high), abs=1e-5)
    assert "Wilson" in note_wilson([build_record(result)])
    assert note_wilson([build_record(result._replace(standard_error=0.0))]) == ""  # as older records have it


def test_the_error_over_draws_is_std_over_root_n():
    result = mean_over_draws([0.5, 0.7, 0.9, 0.5], {})
    by_hand = math.sqrt(((0.15**2) * 2 + 0.05**2 + 0.25**2) / 3) / math.sqrt(4)
    assert result.value == pytest.approx(0.65)
    assert result.standard_error == pytest.approx(by_hand)
    low, high = confidence_interval(result)
    assert (high - low) / 2 == pytest.approx(3.182446 * by_hand, rel=1e-5)  # Student's t with 3 degrees of freedom


def world(several: bool, ahead: float = 0.0) -> list[Result]:
    """Results of two encoders, the first better: eight classifiers each, on 80 test samples of varying difficulty."""
    labels = (torch.rand(80, 4) < 0.3).float() if several else torch.randint(4, (80,))
    truth, ease = labels if several else torch.eye(4)[labels], torch.randn(80, 4)
    skills = 1 + 0.4 * torch.randn(8)  # of the labels that were drawn, the same for both encoders
    return [
        score_draws([(skill + more) * truth + ease + 0.5 * torch.randn(80, 4) for skill in skills], labels, {})
        for more in (ahead, 0.0)
    ]


@pytest.mark.parametrize("several", [False, True])
def test_the_error_covers_draws_of_labels_and_test_samples(several):
    worlds = [world(several) for _ in range(80 if several else 400)]
    spread = torch.tensor([one.value for one, _ in worlds]).std().item()
    estimated = math.sqrt(sum(one.standard_error**2 for one, _ in worlds) / len(worlds))
    assert estimated == pytest.approx(spread, rel=0.25)
    differences = [paired(one, other) for one, other in worlds]
    spread = torch.tensor([found.difference for found in differences]).std().item()
    estimated = math.sqrt(sum(found.standard_error**2 for found in differences) / len(worlds))
    assert estimated == pytest.approx(spread, rel=0.25)


def test_the_error_of_compared_records_is_at_least_that_of_results():
    ahead, behind = world(False, ahead=0.5)
    facts = {"probe": "fewlabel", "view": "a", "layer": "vector", "n_train": 10, "n_test": 80}
    found = compare(
        *(
            build_record(r, encoder=name, **facts)
            for name, r in zip(("trained", "untrained"), (ahead, behind), strict=True)
        )
    )
    assert found.difference == pytest.approx(paired(ahead, behind).difference)
    assert found.standard_error >= paired(ahead, behind).standard_error
    assert found.standard_error <= math.hypot(ahead.standard_error, behind.standard_error)


def test_the_error_of_a_difference_ignores_shared_difficulty():
    hard = torch.rand(20).double()
    behind = mean_over_draws(hard.tolist(), {})
    ahead = mean_over_draws((hard + 0.1).tolist(), {})
    assert paired(ahead, behind).difference == pytest.approx(0.1)
    assert paired(ahead, behind).standard_error == pytest.approx(0, abs=1e-12)
    assert ahead.standard_error > 0.01


def test_the_error_of_a_difference_of_accuracies_is_mcnemars():
    labels = torch.zeros(100, dtype=torch.long)
    right = torch.tensor([[1.0, 0.0]])
    wrong = right.flip(1)
    ahead = score_classifier(torch.cat([right.expand(90, 2), wrong.expand(10, 2)]), labels, {})
    behind = score_classifier(torch.cat([right.expand(80, 2), wrong.expand(20, 2)]), labels, {})  # ten more wrong
    found = paired(ahead, behind)
    assert found.difference == pytest.approx(0.1)
    assert found.standard_error == pytest.approx(math.sqrt(0.1 * 0.9 / 99))


def test_the_bootstrap_estimates_the_error_of_mean_average_precision():
    """The reference is the deviation over new test sets of the same distribution."""

    def sample(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = (torch.rand(n, 3) < 0.3).float()
        return labels + torch.randn(n, 3), labels

    spread = torch.tensor([mean_average_precision(*sample(200)) for _ in range(300)]).std().item()
    found = sum(score_classifier(*sample(200), {}).standard_error for _ in range(10)) / 10
    assert found == pytest.approx(spread, rel=0.2)


def test_results_of_different_kinds_have_no_difference():
    with pytest.raises(ValueError, match="no paired difference"):
        paired(mean_over_draws([0.1, 0.2], {}), mean_over_draws([0.1, 0.2, 0.3], {}))


def made(scores: list[float], encoder: str, **changes) -> dict:
    facts = {"probe": "fewlabel", "view": "a", "encoder": encoder, "layer": "vector"}
    facts |= {"n_train": 10, "n_test": 10, "protocol": {"seed": 0, "data": "same", "label": "cls"}}
    what = changes.pop("what", "1 label/class")
    return build_record(mean_over_draws(scores, {"C": 1}, what=what), **(facts | changes))


def test_the_gain_follows_from_the_records():
    trained, untrained = [0.6, 0.8, 0.7], [0.5, 0.6, 0.4]
    ahead, behind = made(trained, "trained"), made(untrained, "untrained")
    found = compare(ahead, behind)
    written = gain_of(mean_over_draws(trained, {}), mean_over_draws(untrained, {}))
    assert found.difference == pytest.approx(0.2) == pytest.approx(written["difference"])
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3)) == pytest.approx(written["standard_error"])
    assert written["ahead_by"] == pytest.approx(2 * math.sqrt(3))


@pytest.mark.parametrize("change", [{"n_test": 11}, {"what": "10 labels/class"}, {"protocol": {"seed": 1}}])
def test_records_of_different_protocols_are_not_compared(change):
    with pytest.raises(RecipeError, match="cannot be compared"):
        compare(made([0.1, 0.2], "trained"), made([0.1, 0.2], "untrained", **change))


def test_rows_columns_and_bold_values_of_a_table():
    ahead = {"untrained": {"difference": -0.1, "standard_error": 0.02}}
    records = [
        made([0.5, 0.7], "pixels"),
        made([0.8, 0.8], "trained", gain=ahead),
        made([0.9, 0.9], "trained", what="10 labels/class"),
    ]
    [drawn] = tables(records)
    assert [c.header for c in drawn.columns] == ["view", "probe", "pixels", "trained", "gain"]
    assert [list(c.cells) for c in drawn.columns] == [
        ["a", "a"],
        ["1 label/class", "10 labels/class"],
        ["60.0 ± 10.0", ""],
        ["[bold]80.0 ± 0.0[/bold]", "[bold]90.0 ± 0.0[/bold]"],
        ["-10.0 ± 2.0", ""],
    ]


def printed(records: list[dict]) -> str:
    """The tables of records on a screen of 80 columns."""
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(*tables(records))
    return console.export_text()


def test_words_of_probe_names_are_not_broken_on_a_narrow_screen():
    """There are three columns of names. Names of the user may be broken."""
    gained = {"untrained": {"difference": 0.2, "standard_error": 0.02}}
    shared = {"view": "left_camera", "what": "10 labels/class"}
    records = [made([0.6, 0.7], "pixels", layer="pixels", **shared)]
    for layer in ("vector", "head:cmc_0"):
        records += [made([0.6, 0.7], "untrained", layer=layer, **shared)]
        records += [made([0.8, 0.8], "trained", layer=layer, gain=gained, **shared)]
    shown = printed(records)
    assert shown.count("labels/class") == 2
    assert shown.count("+20.0 ± 2.0") == 2


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1}, {"epochs": 2}, {"draws": 3}, {"k": 5}, {"mode": "frozen, bf16"},
        {"label": {"field": "json", "path": "speaker"}}, {"segments": {"field": "seg.png"}},
    ],
)  # fmt: skip
def test_other_settings_have_a_separate_table(changed, tmp_path):
    protocol = {"seed": 0, "data": {"test": {"fingerprint": "same"}}, "label": "cls"}
    first, again = (made([value, 0.7], "trained", protocol=protocol) for value in (0.5, 0.1))
    second = made([0.5, 0.7], "trained", protocol=protocol | changed)
    save(tmp_path / "x.json", [first, second])
    assert merge_into(tmp_path / "x.json", [again]) == [again, second]
    assert len(tables([first, second])) == 2


def test_full_names_distinguish_the_records_of_one_probe():
    protocol = {"seed": 1, "preset": {"name": "amdim"}, "epochs": 2, "paper_epochs": 120}
    estimated = full_name(made([0.5, 0.7], "trained", protocol=protocol))
    assert estimated == "1 label/class, protocol amdim, 2 of 120 epochs, seed 1"
    assert full_name(made([0.5, 0.7], "trained")) == "1 label/class"


def test_a_caption_warns_about_a_chosen_checkpoint():
    chosen = {"name": "a", "chosen": "by held-out loss on data.val"}
    assert "chosen by held-out loss on data.val, by default the test set" in " ".join(
        printed([made([0.5, 0.7], "trained", subject=chosen)]).split()
    )
    assert "chosen" not in printed([made([0.5, 0.7], "trained", subject={"name": "a"})])


def test_long_names_of_probes_leave_room_for_all_numbers():
    gained = {"untrained": {"difference": 0.291, "standard_error": 0.019}}
    what = "a_view_with_a_long_name and another_one_of_them, infonce"
    records = [made([0.5, 0.7], "pixels", what=what), made([0.5, 0.7], "untrained", what=what)]
    records += [made([0.8, 0.8], "trained", what=what, gain=gained)]
    shown = printed(records)
    assert "…" not in shown
    assert "60.0 ± 10.0  60.0 ± 10.0  80.0 ± 0.0  +29.1 ± 1.9" in shown
