"""The memory of who fits whom: a fading mean, equal on every process, part of every checkpoint."""

import pytest
import tiny
import torch
from safetensors.torch import load_file

from mvssl.monitoring.matching import CHANCE, FADE, FILE, Matching, pairs_of
from mvssl.recipe import View
from mvssl.training.loop import train

CPU = torch.device("cpu")
TWO = {"a": View.model_validate({"from": "one"}), "b": View.model_validate({"from": "two"})}
NO, YES = torch.tensor(False), torch.tensor(True)


class Shares:
    """Given shares instead of those of an `OutscoredShares`."""

    def __init__(self, **shares: list[float]):
        self.given = {name.replace("_", "-"): torch.tensor(share) for name, share in shares.items()}

    def means(self) -> dict[str, torch.Tensor]:
        return self.given


def test_pairs_are_of_views_that_come_from_different_columns():
    views = {
        "L": View.model_validate({"from": "image"}),
        "ab": View.model_validate({"from": "image"}),
        "depth": View.model_validate({"from": "depth", "count": 2}),
    }
    assert pairs_of(views) == {
        ("L", "depth_0"): "L-depth",
        ("L", "depth_1"): "L-depth",
        ("ab", "depth_0"): "ab-depth",
        ("ab", "depth_1"): "ab-depth",
    }


def test_the_mean_fades_and_a_streak_near_chance_is_counted():
    matching = Matching(TWO, 3, CPU)
    shares = [0.0, 0.5, 0.4]
    for share in shares:
        matching.update(torch.tensor([1]), Shares(a_b=[share]), NO)
    weights = [FADE**2, FADE, 1.0]
    expected = sum(w * s for w, s in zip(weights, shares, strict=True)) / sum(weights)
    assert matching.means()[0, 1].item() == pytest.approx(expected)
    assert matching.means()[0, [0, 2]].isnan().all()
    assert matching.chance[0].tolist() == [0, 2, 0]
    assert expected > CHANCE
    assert matching.visits.tolist() == [0, 3, 0]


def test_a_vetoed_step_and_a_sample_without_its_view_leave_no_trace():
    matching = Matching(TWO, 2, CPU)
    matching.update(torch.tensor([0, 1]), Shares(a_b=[0.3, 0.2]), NO)
    before = {name: value.clone() for name, value in matching.state().items()}
    matching.update(torch.tensor([0, 1]), Shares(a_b=[0.9, 0.9]), YES)
    matching.update(torch.tensor([0, 1]), Shares(a_b=[float("nan")] * 2), NO)
    matching.update(torch.tensor([0, 1]), Shares(), NO)
    assert all(torch.equal(value, before[name]) for name, value in matching.state().items())


def test_a_sample_twice_in_a_batch_counts_twice():
    matching = Matching(TWO, 1, CPU)
    matching.update(torch.tensor([0, 0]), Shares(a_b=[0.2, 0.6]), NO)
    assert matching.means().item() == pytest.approx(0.4)


SENSORS = {
    "data__columns": {"image": {"field": "png"}, "depth": {"field": "depth.png"}},
    "views": {"image": {"from": "image", "flip": 0.5}, "depth": {"from": "depth", "flip": 0.5}},
    "encoder": {name: {"name": "mlp", "options": {"widths": [16]}} for name in ("image", "depth")},
    "optim__schedule": "constant",
    "train__check_every": 4,
}


def test_an_interrupted_run_remembers_what_an_uninterrupted_one_does_and_two_processes_what_one_does(
    tmp_path, processes
):
    tiny.write_shards(tmp_path / "train", without_depth=6)
    runs = {"straight": [(1, 9)], "legs": [(1, 3), (1, 9)], "two": [(2, 9)], "unwatched": [(1, 9)]}
    for out, legs in runs.items():
        given = tiny.tables(tmp_path, tmp_path / out, data__missing="mask", **SENSORS)
        if out == "unwatched":
            given["train"]["check_every"] = 0
        for world, steps in legs:
            given["train"]["steps"] = steps
            if world == 1:
                train(tiny.parse_recipe(given))
            else:
                assert processes(tiny.train_as_rank, given) == [(2, "")] * 2
    watched, unwatched = (tiny.weights(tmp_path / out, 9) for out in ("straight", "unwatched"))
    assert all(torch.equal(watched[name], unwatched[name]) for name in watched)
    assert not list((tmp_path / "unwatched").glob(f"checkpoints/*/{FILE}"))
    kept = ("straight", "legs", "two")
    straight, legs, two = (load_file(tmp_path / out / "checkpoints/step-00000009" / FILE) for out in kept)
    assert straight["visits"].sum() > 50
    assert all(torch.equal(straight[name], legs[name]) for name in straight)
    for name in ("visits", "weight"):
        assert torch.equal(straight[name], two[name])
    assert torch.allclose(straight["total"], two["total"], atol=1e-3)
