"""How often negatives outscore a positive, counted by hand; the tracker, equal on all processes and in checkpoints."""

from dataclasses import replace

import pytest
import small_runs
import torch
from safetensors.torch import load_file
from small_features import WIDTHS, context, features

from mvssl import train
from mvssl.monitoring.mispairing import CHANCE, FADE, MispairingTracker, pairs_of
from mvssl.objectives import AMDIM, CMC, MIB
from mvssl.objectives.pairs import MaskedScores
from mvssl.objectives.scoring.masks import Present, same_sample
from mvssl.recipe import ViewConfig

CPU = torch.device("cpu")
TWO = {"a": ViewConfig.model_validate({"from": "one"}), "b": ViewConfig.model_validate({"from": "two"})}
FILE = MispairingTracker.file


def visit(tracker: MispairingTracker, index: list[int], *shares: list[float], vetoed: bool = False) -> None:
    """End a step in which the samples `index` had these shares of the pair a-b."""
    tracker.shares = {"a-b": [torch.tensor(share) for share in shares]} if shares else {}
    tracker.end_step(torch.tensor(index), torch.tensor(vetoed))


def test_pairs_are_of_views_that_come_from_different_columns():
    views = {
        "L": ViewConfig.model_validate({"from": "image"}),
        "ab": ViewConfig.model_validate({"from": "image"}),
        "depth": ViewConfig.model_validate({"from": "depth", "count": 2}),
    }
    assert pairs_of(views) == {
        ("L", "depth_0"): "L-depth",
        ("L", "depth_1"): "L-depth",
        ("ab", "depth_0"): "ab-depth",
        ("ab", "depth_1"): "ab-depth",
    }


def test_the_mean_fades_and_a_streak_near_chance_is_counted():
    tracker = MispairingTracker(TWO, 3, CPU)
    shares = [0.0, 0.5, 0.4]
    for share in shares:
        visit(tracker, [1], [share])
    weights = [FADE**2, FADE, 1.0]
    expected = sum(w * s for w, s in zip(weights, shares, strict=True)) / sum(weights)
    assert tracker.means()[0, 1].item() == pytest.approx(expected)
    assert tracker.means()[0, [0, 2]].isnan().all()
    assert tracker.chance[0].tolist() == [0, 2, 0]
    assert expected > CHANCE
    assert tracker.visits.tolist() == [0, 3, 0]


def test_a_vetoed_step_and_a_sample_without_its_view_leave_no_trace():
    tracker = MispairingTracker(TWO, 2, CPU)
    visit(tracker, [0, 1], [0.3, 0.2])
    before = {name: value.clone() for name, value in tracker.state().items()}
    visit(tracker, [0, 1], [0.9, 0.9], vetoed=True)
    visit(tracker, [0, 1], [float("nan")] * 2)
    visit(tracker, [0, 1])
    assert all(torch.equal(value, before[name]) for name, value in tracker.state().items())


def test_a_sample_twice_in_a_batch_counts_twice():
    tracker = MispairingTracker(TWO, 1, CPU)
    visit(tracker, [0, 0], [0.2, 0.6])
    assert tracker.means().item() == pytest.approx(0.4)


SENSORS = {
    "data__columns": {"image": {"field": "png"}, "depth": {"field": "depth.png"}},
    "views": {"image": {"from": "image", "flip": 0.5}, "depth": {"from": "depth", "flip": 0.5}},
    "encoder": {name: {"name": "mlp", "options": {"widths": [16]}} for name in ("image", "depth")},
    "optim__schedule": "constant",
    "train__check_every": 4,
}


def test_a_resumed_run_and_two_processes_track_the_same(tmp_path, processes):
    small_runs.write_shards(tmp_path / "train", without_depth=6)
    runs = {"straight": [(1, 9)], "legs": [(1, 3), (1, 9)], "two": [(2, 9)], "unwatched": [(1, 9)]}
    for out, legs in runs.items():
        given = small_runs.tables(tmp_path, tmp_path / out, data__missing="mask", **SENSORS)
        if out == "unwatched":
            given["train"]["check_every"] = 0
        for world, steps in legs:
            given["train"]["steps"] = steps
            if world == 1:
                train(small_runs.parse_recipe(given))
            else:
                assert processes(small_runs.train_as_rank, given) == [(2, "")] * 2
    watched, unwatched = (small_runs.weights(tmp_path / out, 9) for out in ("straight", "unwatched"))
    assert all(torch.equal(watched[name], unwatched[name]) for name in watched)
    assert not list((tmp_path / "unwatched").glob(f"checkpoints/*/{FILE}"))
    kept = ("straight", "legs", "two")
    straight, legs, two = (load_file(tmp_path / out / "checkpoints/step-00000009" / FILE) for out in kept)
    assert straight["visits"].sum() > 50
    assert all(torch.equal(straight[name], legs[name]) for name in straight)
    for name in ("visits", "weight"):
        assert torch.equal(straight[name], two[name])
    assert torch.allclose(straight["total"], two["total"], atol=1e-3)


def shares(scores: torch.Tensor, *present) -> list[float]:
    n = len(scores)
    return MaskedScores(scores.view(n, n, -1), same_sample(n, CPU, Present(*present))).outscored_share().tolist()


def test_a_perfect_critic_has_share_zero():
    assert shares(torch.eye(6)) == [0] * 6
    assert shares(-torch.eye(6)) == [1] * 6


def test_a_blind_critic_has_share_one_half():
    assert shares(torch.zeros(6, 6)) == [0.5] * 6
    by_chance = torch.tensor(shares(torch.randn(400, 400)))
    assert by_chance.mean().item() == pytest.approx(0.5, abs=0.05)


def test_negatives_are_counted_over_the_anchors_of_each_candidate():
    scores = torch.tensor([[5.0, 9.0, 1.0], [7.0, 2.0, 3.0], [6.0, 8.0, 4.0]])
    assert shares(scores) == [1.0, 1.0, 0.0]


def test_shares_are_averaged_over_locations():
    assert shares(torch.stack([torch.eye(4), -torch.eye(4)], 2)) == [0.5] * 4


def test_absent_rows_are_neither_positives_nor_negatives():
    anchors, candidates = torch.tensor([True, True, True, False]), torch.tensor([True, False, True, True])
    scores = torch.eye(4)
    scores[3, 0] = 9.0  # of an absent anchor
    found = shares(scores, anchors, candidates)
    assert found[0] == 0
    assert found[2] == 0
    assert all(value != value for value in (found[1], found[3]))


@pytest.mark.parametrize("made", [CMC, MIB, AMDIM])
def test_an_observer_sees_the_pairs_and_leaves_the_loss_unchanged(made):
    widths = {"a": WIDTHS, "b": WIDTHS, "c": WIDTHS}
    options = {AMDIM: {"embed": 12, "scales": (("vector", 0),)}, MIB: {"latent": 4, "units": 8, "beta_end": 0}}
    objective = made(widths, **options.get(made, {})).double()
    encoded = {view: features(5) for view in widths}
    plain, _ = objective(encoded, context(5))
    columns = {"a": "one", "b": "two", "c": "one"}
    views = {name: ViewConfig.model_validate({"from": column}) for name, column in columns.items()}
    observer = MispairingTracker(views, 5, CPU)
    observed, _ = objective(encoded, replace(context(5), observer=observer))
    assert torch.equal(plain, observed)
    found = {pair: torch.stack(shares).mean(0) for pair, shares in observer.shares.items()}
    assert found.keys() == {"a-b", "b-c"}
    assert all(share.shape == (5,) and not share.requires_grad for share in found.values())
    if made is CMC:
        one, other = (objective.represent(view, encoded[view]) for view in "ab")
        scores = one @ other.T
        expected = (torch.tensor(shares(scores)) + torch.tensor(shares(scores.T))) / 2
        assert torch.allclose(found["a-b"].float(), expected)


def test_an_objective_that_holds_all_scores_passes_them_through_its_context():
    tracker = MispairingTracker(TWO, 5, CPU)
    watching, scores, mask = replace(context(5), observer=tracker), torch.randn(5, 5, 2), same_sample(5, CPU, Present())
    watching.observe("b", "a", scores.requires_grad_(), mask)
    watching.observe("a", "b", scores.repeat_interleave(3, 0), mask)  # of three components: ignored
    watching.observe("a", "c", scores, mask)  # not of two columns
    assert torch.equal(tracker.shares["a-b"][0], MaskedScores(scores, mask).outscored_share())
    assert [len(shares) for shares in tracker.shares.values()] == [1]
    assert not tracker.shares["a-b"][0].requires_grad
    assert watching.watches("a", "b")
    assert not watching.watches("a", "c")
    assert not context(5).watches("a", "b")
